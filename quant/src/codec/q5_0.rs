//! Q5_0: 32 weights in 22 bytes.
//!
//! ```text
//! byte  0..2   d, f16
//! byte  2..6   qh, u32: bit j is bit 4 of weight j
//! byte  6..22  byte 6+j: bits 0..4 of weight j in the low nibble, of weight j+16 in the high one
//! value        (q - 16) · d
//! ```

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::QK;

/// One block of Q5_0 as it lies in the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// Scale, f16 little-endian.
    pub d: [u8; 2],
    /// Bit `j` (little-endian) is the highest bit of weight `j`.
    pub qh: [u8; 4],
    /// Low bits: weight `j` in the low nibble of byte `j`, weight `j + 16` in the high one.
    pub qs: [u8; QK / 2],
}

const _: () = assert!(size_of::<BlockQ5_0>() == 22 && align_of::<BlockQ5_0>() == 1);

/// The 5-bit numbers of a block, from its low nibbles and high bits.
pub(super) fn join(qs: &[u8; QK / 2], qh: [u8; 4]) -> [u8; QK] {
    let qh = u32::from_le_bytes(qh);
    std::array::from_fn(|j| {
        let low = if j < QK / 2 { qs[j] & 15 } else { qs[j - QK / 2] >> 4 };
        low | ((qh >> j & 1) << 4) as u8
    })
}

pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    for (b, o) in bytemuck::cast_slice::<u8, BlockQ5_0>(bytes).iter().zip(out.chunks_exact_mut(QK))
    {
        let d = f16::from_le_bytes(b.d).to_f32();
        for (o, q) in o.iter_mut().zip(join(&b.qs, b.qh)) {
            *o = f32::from(q as i8 - 16) * d;
        }
    }
}
