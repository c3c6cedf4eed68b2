//! Q5_1: 32 weights in 24 bytes.
//!
//! ```text
//! byte  0..2   d, f16
//! byte  2..4   m, f16
//! byte  4..8   qh, u32: bit j is bit 4 of weight j
//! byte  8..24  byte 8+j: bits 0..4 of weight j in the low nibble, of weight j+16 in the high one
//! value        q · d + m
//! ```

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::QK;
use super::q5_0::join;

/// One block of Q5_1 as it lies in the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// Scale, f16 little-endian.
    pub d: [u8; 2],
    /// Value of q = 0, f16 little-endian.
    pub m: [u8; 2],
    /// Bit `j` (little-endian) is the highest bit of weight `j`.
    pub qh: [u8; 4],
    /// Low bits: weight `j` in the low nibble of byte `j`, weight `j + 16` in the high one.
    pub qs: [u8; QK / 2],
}

const _: () = assert!(size_of::<BlockQ5_1>() == 24 && align_of::<BlockQ5_1>() == 1);

pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytemuck::cast_slice::<u8, BlockQ5_1>(bytes).iter().zip(out.chunks_exact_mut(QK))
    {
        let d = f16::from_le_bytes(b.d).to_f32();
        let m = f16::from_le_bytes(b.m).to_f32();
        for (o, q) in o.iter_mut().zip(join(&b.qs, b.qh)) {
            *o = f32::from(q) * d + m;
        }
    }
}
