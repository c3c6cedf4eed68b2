//! Q4_0: 32 weights in 18 bytes.
//!
//! ```text
//! byte  0..2   d, f16
//! byte  2..18  byte 2+j: weight j in the low nibble, weight j+16 in the high nibble
//! value        (nibble - 8) · d
//! ```

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::QK;

/// One block of Q4_0 as it lies in the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// Scale, f16 little-endian.
    pub d: [u8; 2],
    /// Weight `j` in the low nibble of byte `j`, weight `j + 16` in the high one.
    pub qs: [u8; QK / 2],
}

const _: () = assert!(size_of::<BlockQ4_0>() == 18 && align_of::<BlockQ4_0>() == 1);

pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytemuck::cast_slice::<u8, BlockQ4_0>(bytes).iter().zip(out.chunks_exact_mut(QK))
    {
        let d = f16::from_le_bytes(b.d).to_f32();
        for (j, q) in b.qs.iter().enumerate() {
            o[j] = f32::from((q & 15) as i8 - 8) * d;
            o[j + QK / 2] = f32::from((q >> 4) as i8 - 8) * d;
        }
    }
}

/// The scale maps the weight of largest magnitude (the first, where several tie) to -8, and the
/// nibbles are rounded with the scale's f32 value, before it is itself rounded to f16.
pub(super) fn encode(x: &[f32], out: &mut [u8]) {
    let blocks = bytemuck::cast_slice_mut::<u8, BlockQ4_0>(out);
    for (x, b) in x.chunks_exact(QK).zip(blocks) {
        let mut extreme = 0.0f32;
        for &v in x {
            if v.abs() > extreme.abs() {
                extreme = v;
            }
        }
        let d = extreme / -8.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        b.d = f16::from_f32(d).to_le_bytes();
        // Truncation after + 8.5 is what rounds. Where `d` is so small that `id` is infinite the
        // cast saturates, hence the lower bound; the f16 scale of such a block is zero.
        let nibble = |v: f32| ((v * id + 8.5) as i8).clamp(0, 15) as u8;
        for j in 0..QK / 2 {
            b.qs[j] = nibble(x[j]) | nibble(x[j + QK / 2]) << 4;
        }
    }
}
