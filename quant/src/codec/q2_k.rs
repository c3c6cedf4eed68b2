//! Q2_K: 256 weights in 84 bytes, 16 sub-blocks of 16.
//!
//! ```text
//! byte  0..16   byte s: scale of weights 16s..16s+16 in the low nibble, their minimum in the high one
//! byte 16..80   2 × 32 bytes, one run for each half of 128 weights. Bits 2k and 2k+1 of byte j are
//!               the half's weight j + 32k
//! byte 80..82   d, f16
//! byte 82..84   dmin, f16
//! value         (d · scale) · q - (dmin · minimum)
//! ```

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::QK_K;

/// One block of Q2_K as it lies in the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ2K {
    /// Scale (low nibble) and minimum (high nibble) of each sub-block of 16.
    pub scales: [u8; QK_K / 16],
    /// 2 bits of each weight.
    pub qs: [u8; QK_K / 4],
    /// Scale of the scales, f16 little-endian.
    pub d: [u8; 2],
    /// Scale of the minimums, f16 little-endian.
    pub dmin: [u8; 2],
}

const _: () = assert!(size_of::<BlockQ2K>() == 84 && align_of::<BlockQ2K>() == 1);

pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytemuck::cast_slice::<u8, BlockQ2K>(bytes);
    for (b, o) in blocks.iter().zip(out.chunks_exact_mut(QK_K)) {
        let d = f16::from_le_bytes(b.d).to_f32();
        let dmin = f16::from_le_bytes(b.dmin).to_f32();
        for (i, o) in o.iter_mut().enumerate() {
            let (half, j) = (i / 128, i % 128);
            let q = b.qs[half * 32 + j % 32] >> (j / 32 * 2) & 3;
            let packed = b.scales[i / 16];
            let (scale, min) = (d * f32::from(packed & 15), dmin * f32::from(packed >> 4));
            *o = scale * f32::from(q) - min;
        }
    }
}
