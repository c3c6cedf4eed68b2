//! Q4_1: 32 weights in 20 bytes.
//!
//! ```text
//! byte  0..2   d, f16
//! byte  2..4   m, f16
//! byte  4..20  byte 4+j: weight j in the low nibble, weight j+16 in the high nibble
//! value        nibble · d + m
//! ```

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::QK;

/// One block of Q4_1 as it lies in the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// Scale, f16 little-endian.
    pub d: [u8; 2],
    /// Value of nibble 0, f16 little-endian.
    pub m: [u8; 2],
    /// Weight `j` in the low nibble of byte `j`, weight `j + 16` in the high one.
    pub qs: [u8; QK / 2],
}

const _: () = assert!(size_of::<BlockQ4_1>() == 20 && align_of::<BlockQ4_1>() == 1);

pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytemuck::cast_slice::<u8, BlockQ4_1>(bytes).iter().zip(out.chunks_exact_mut(QK))
    {
        let d = f16::from_le_bytes(b.d).to_f32();
        let m = f16::from_le_bytes(b.m).to_f32();
        for (j, q) in b.qs.iter().enumerate() {
            o[j] = f32::from(q & 15) * d + m;
            o[j + QK / 2] = f32::from(q >> 4) * d + m;
        }
    }
}
