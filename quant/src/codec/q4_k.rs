//! Q4_K: 256 weights in 144 bytes, 8 sub-blocks of 32.
//!
//! ```text
//! byte  0..2     d, f16
//! byte  2..4     dmin, f16
//! byte  4..16    scale and minimum of each sub-block, 6 bits each
//! byte 16..144   4 × 32 bytes: byte j of group g holds weight j of sub-block 2g in the low nibble,
//!                of sub-block 2g+1 in the high one
//! value          (d · scale) · nibble - (dmin · minimum)
//! ```

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::k_scales::KScales;
use super::{QK, QK_K};

/// One block of Q4_K as it lies in the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4K {
    /// Scale of the scales, f16 little-endian.
    pub d: [u8; 2],
    /// Scale of the minimums, f16 little-endian.
    pub dmin: [u8; 2],
    /// Scales and minimums of the sub-blocks.
    pub scales: KScales,
    /// Nibbles: 32 bytes hold two sub-blocks, the even one in the low nibbles.
    pub qs: [u8; QK_K / 2],
}

const _: () = assert!(size_of::<BlockQ4K>() == 144 && align_of::<BlockQ4K>() == 1);

impl BlockQ4K {
    /// Weight `i` of 256 before it is scaled, 0..16.
    #[inline]
    pub fn quant(&self, i: usize) -> u8 {
        let (s, j) = (i / QK, i % QK);
        self.qs[s / 2 * QK + j] >> (s % 2 * 4) & 15
    }
}

pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytemuck::cast_slice::<u8, BlockQ4K>(bytes);
    for (b, o) in blocks.iter().zip(out.chunks_exact_mut(QK_K)) {
        let d = f16::from_le_bytes(b.d).to_f32();
        let dmin = f16::from_le_bytes(b.dmin).to_f32();
        let (scales, mins) = b.scales.unpack();
        for (s, o) in o.chunks_exact_mut(QK).enumerate() {
            let (scale, min) = (d * f32::from(scales[s]), dmin * f32::from(mins[s]));
            for (j, o) in o.iter_mut().enumerate() {
                *o = scale * f32::from(b.quant(s * QK + j)) - min;
            }
        }
    }
}
