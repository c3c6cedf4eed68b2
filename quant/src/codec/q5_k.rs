//! Q5_K: 256 weights in 176 bytes, 8 sub-blocks of 32.
//!
//! ```text
//! byte  0..2     d, f16
//! byte  2..4     dmin, f16
//! byte  4..16    scale and minimum of each sub-block, 6 bits each
//! byte 16..48    byte j: bit s is bit 4 of weight j of sub-block s
//! byte 48..176   4 × 32 bytes: byte j of group g holds bits 0..4 of weight j of sub-block 2g in the
//!                low nibble, of sub-block 2g+1 in the high one
//! value          (d · scale) · q - (dmin · minimum)
//! ```

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::k_scales::KScales;
use super::{QK, QK_K};

/// One block of Q5_K as it lies in the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5K {
    /// Scale of the scales, f16 little-endian.
    pub d: [u8; 2],
    /// Scale of the minimums, f16 little-endian.
    pub dmin: [u8; 2],
    /// Scales and minimums of the sub-blocks.
    pub scales: KScales,
    /// High bits: bit `s` of byte `j` belongs to weight `j` of sub-block `s`.
    pub qh: [u8; QK],
    /// Low bits: 32 bytes hold two sub-blocks, the even one in the low nibbles.
    pub qs: [u8; QK_K / 2],
}

const _: () = assert!(size_of::<BlockQ5K>() == 176 && align_of::<BlockQ5K>() == 1);

impl BlockQ5K {
    /// Weight `i` of 256 before it is scaled, 0..32.
    #[inline]
    pub fn quant(&self, i: usize) -> u8 {
        let (s, j) = (i / QK, i % QK);
        let low = self.qs[s / 2 * QK + j] >> (s % 2 * 4) & 15;
        low | (self.qh[j] >> s & 1) << 4
    }
}

pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytemuck::cast_slice::<u8, BlockQ5K>(bytes);
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
