//! Q6_K: 256 weights in 210 bytes, 16 sub-blocks of 16.
//!
//! ```text
//! byte   0..128   ql: 2 × 64 bytes, one run for each half of 128 weights. Byte j of a run holds
//!                 bits 0..4 of the half's weight j (low nibble) and of its weight j+64 (high)
//! byte 128..192   qh: 2 × 32 bytes, one run a half. Bits 2k and 2k+1 of byte j are bits 4 and 5 of
//!                 the half's weight j + 32k
//! byte 192..208   16 × i8: scale of weights 16s..16s+16
//! byte 208..210   d, f16
//! value           (d · scale) · (q - 32)
//! ```

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::QK_K;

/// One block of Q6_K as it lies in the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ6K {
    /// Low 4 bits of each weight.
    pub ql: [u8; QK_K / 2],
    /// High 2 bits of each weight.
    pub qh: [u8; QK_K / 4],
    /// Scale of each sub-block of 16.
    pub scales: [i8; QK_K / 16],
    /// Scale of the scales, f16 little-endian.
    pub d: [u8; 2],
}

const _: () = assert!(size_of::<BlockQ6K>() == 210 && align_of::<BlockQ6K>() == 1);

impl BlockQ6K {
    /// Weight `i` of 256 before it is scaled, -32..32.
    #[inline]
    pub fn quant(&self, i: usize) -> i8 {
        let (half, j) = (i / 128, i % 128);
        let low = self.ql[half * 64 + j % 64] >> (j / 64 * 4) & 15;
        let high = self.qh[half * 32 + j % 32] >> (j / 32 * 2) & 3;
        (low | high << 4) as i8 - 32
    }
}

pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytemuck::cast_slice::<u8, BlockQ6K>(bytes);
    for (b, o) in blocks.iter().zip(out.chunks_exact_mut(QK_K)) {
        let d = f16::from_le_bytes(b.d).to_f32();
        for (i, o) in o.iter_mut().enumerate() {
            *o = d * f32::from(b.scales[i / 16]) * f32::from(b.quant(i));
        }
    }
}
