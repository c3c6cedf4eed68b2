//! Q8_0: 32 weights in 34 bytes.
//!
//! ```text
//! byte  0..2   d, f16
//! byte  2..34  32 × i8
//! value        q · d
//! ```

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::QK;

/// One block of Q8_0 as it lies in the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// Scale, f16 little-endian.
    pub d: [u8; 2],
    /// Quantized weights.
    pub qs: [i8; QK],
}

const _: () = assert!(size_of::<BlockQ8_0>() == 34 && align_of::<BlockQ8_0>() == 1);

pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytemuck::cast_slice::<u8, BlockQ8_0>(bytes).iter().zip(out.chunks_exact_mut(QK))
    {
        let d = f16::from_le_bytes(b.d).to_f32();
        for (o, q) in o.iter_mut().zip(b.qs) {
            *o = f32::from(q) * d;
        }
    }
}

/// `d = max|x| / 127`; weights are rounded half away from zero with the f32 value of `1 / d`.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    let blocks = bytemuck::cast_slice_mut::<u8, BlockQ8_0>(out);
    for (x, b) in x.chunks_exact(QK).zip(blocks) {
        let d = x.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        b.d = f16::from_f32(d).to_le_bytes();
        for (q, v) in b.qs.iter_mut().zip(x) {
            *q = (v * id).round() as i8;
        }
    }
}
