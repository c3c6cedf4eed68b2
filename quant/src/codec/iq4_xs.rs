//! IQ4_XS: 256 weights in 136 bytes, 8 sub-blocks of 32, with the values of [`iq4_nl`](super::iq4_nl).
//!
//! ```text
//! byte  0..2     d, f16
//! byte  2..4     scales_h, u16: bits 2s and 2s+1 are bits 4 and 5 of the scale of sub-block s
//! byte  4..8     scales_l: byte j holds bits 0..4 of scale 2j in the low nibble, of scale 2j+1 in the high one
//! byte  8..136   8 × 16 bytes, one run a sub-block: byte j holds its weight j in the low nibble,
//!                its weight j+16 in the high one
//! value          (d · (scale - 32)) · IQ4_VALUES[q]
//! ```

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::iq4_nl::IQ4_VALUES;
use super::{QK, QK_K};

/// One block of IQ4_XS as it lies in the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIQ4XS {
    /// Scale of the scales, f16 little-endian.
    pub d: [u8; 2],
    /// High 2 bits of each scale.
    pub scales_h: [u8; 2],
    /// Low 4 bits of each scale.
    pub scales_l: [u8; QK_K / QK / 2],
    /// Nibbles: 16 bytes a sub-block.
    pub qs: [u8; QK_K / 2],
}

const _: () = assert!(size_of::<BlockIQ4XS>() == 136 && align_of::<BlockIQ4XS>() == 1);

impl BlockIQ4XS {
    /// The scales of the 8 sub-blocks, -32..32.
    pub fn scales(&self) -> [i8; QK_K / QK] {
        let high = u16::from_le_bytes(self.scales_h);
        std::array::from_fn(|s| {
            let low = self.scales_l[s / 2] >> (s % 2 * 4) & 15;
            let high = (high >> (2 * s) & 3) as u8;
            (low | high << 4) as i8 - 32
        })
    }
}

pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytemuck::cast_slice::<u8, BlockIQ4XS>(bytes);
    for (b, o) in blocks.iter().zip(out.chunks_exact_mut(QK_K)) {
        let d = f16::from_le_bytes(b.d).to_f32();
        let scales = b.scales();
        for (s, o) in o.chunks_exact_mut(QK).enumerate() {
            let scale = d * f32::from(scales[s]);
            for (j, q) in b.qs[s * QK / 2..][..QK / 2].iter().enumerate() {
                o[j] = scale * f32::from(IQ4_VALUES[usize::from(q & 15)]);
                o[j + QK / 2] = scale * f32::from(IQ4_VALUES[usize::from(q >> 4)]);
            }
        }
    }
}
