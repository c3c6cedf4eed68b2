//! IQ4_NL: 32 weights in 18 bytes, each one of 16 values that do not lie evenly.
//!
//! ```text
//! byte  0..2   d, f16
//! byte  2..18  byte 2+j: weight j in the low nibble, weight j+16 in the high one
//! value        d · IQ4_VALUES[q]
//! ```

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::QK;

/// What the nibbles of IQ4_NL and IQ4_XS stand for: closer together near zero, where most weights are
/// (`kvalues_iq4nl` in ggml).
pub const IQ4_VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// One block of IQ4_NL as it lies in the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ4NL {
    /// Scale, f16 little-endian.
    pub d: [u8; 2],
    /// Nibbles: weight `j` in the low half of byte `j`, weight `j + 16` in the high half.
    pub qs: [u8; QK / 2],
}

const _: () = assert!(size_of::<BlockIQ4NL>() == 18 && align_of::<BlockIQ4NL>() == 1);

pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytemuck::cast_slice::<u8, BlockIQ4NL>(bytes);
    for (b, o) in blocks.iter().zip(out.chunks_exact_mut(QK)) {
        let d = f16::from_le_bytes(b.d).to_f32();
        for (j, q) in b.qs.iter().enumerate() {
            o[j] = d * f32::from(IQ4_VALUES[usize::from(q & 15)]);
            o[j + QK / 2] = d * f32::from(IQ4_VALUES[usize::from(q >> 4)]);
        }
    }
}
