//! Q3_K: 256 weights in 110 bytes, 16 sub-blocks of 16.
//!
//! ```text
//! byte   0..32    hmask: bit 4h+k of byte j is bit 2 of weight j + 32k of half h (of 128 weights)
//! byte  32..96    2 × 32 bytes, one run a half. Bits 2k and 2k+1 of byte j are bits 0 and 1 of the
//!                 half's weight j + 32k
//! byte  96..104   byte j: bits 0..4 of scale j in the low nibble, of scale j+8 in the high one
//! byte 104..108   bits 2k and 2k+1 of byte j: bits 4 and 5 of scale j + 4k
//! byte 108..110   d, f16
//! value           (d · (scale - 32)) · (q - 4), where scale s is that of weights 16s..16s+16
//! ```

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::QK_K;

/// One block of Q3_K as it lies in the file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ3K {
    /// Highest bit of each weight.
    pub hmask: [u8; QK_K / 8],
    /// Low 2 bits of each weight.
    pub qs: [u8; QK_K / 4],
    /// Scale of each sub-block of 16.
    pub scales: Q3Scales,
    /// Scale of the scales, f16 little-endian.
    pub d: [u8; 2],
}

const _: () = assert!(size_of::<BlockQ3K>() == 110 && align_of::<BlockQ3K>() == 1);

impl BlockQ3K {
    /// Weight `i` of 256 before it is scaled, -4..4.
    #[inline]
    pub fn quant(&self, i: usize) -> i8 {
        let (half, j) = (i / 128, i % 128);
        let low = self.qs[half * 32 + j % 32] >> (j / 32 * 2) & 3;
        let high = self.hmask[j % 32] >> (half * 4 + j / 32) & 1;
        (low | high << 2) as i8 - 4
    }
}

/// The 16 scales of a block, 6 bits each.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct Q3Scales(pub [u8; 12]);

impl Q3Scales {
    /// The scales, -32..32.
    pub fn unpack(&self) -> [i8; QK_K / 16] {
        let b = &self.0;
        std::array::from_fn(|s| {
            let low = b[s % 8] >> (s / 8 * 4) & 15;
            let high = b[8 + s % 4] >> (s / 4 * 2) & 3;
            (low | high << 4) as i8 - 32
        })
    }
}

pub(super) fn decode(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytemuck::cast_slice::<u8, BlockQ3K>(bytes);
    for (b, o) in blocks.iter().zip(out.chunks_exact_mut(QK_K)) {
        let d = f16::from_le_bytes(b.d).to_f32();
        let scales = b.scales.unpack();
        for (i, o) in o.iter_mut().enumerate() {
            *o = d * f32::from(scales[i / 16]) * f32::from(b.quant(i));
        }
    }
}
