//! The 12 bytes in which Q4_K and Q5_K keep the 6-bit scale and the 6-bit minimum of each of their
//! 8 sub-blocks of 32 weights.
//!
//! ```text
//! byte  0..4   bits 0..6: scale of sub-block j;  bits 6..8: bits 4..6 of scale j+4
//! byte  4..8   bits 0..6: minimum j;             bits 6..8: bits 4..6 of minimum j+4
//! byte  8..12  bits 0..4: bits 0..4 of scale j+4; bits 4..8: bits 0..4 of minimum j+4
//! ```

use bytemuck::{Pod, Zeroable};

/// Scales and minimums of 8 sub-blocks, packed.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct KScales(pub [u8; 12]);

impl KScales {
    /// The 8 scales and the 8 minimums, each below 64.
    pub fn unpack(&self) -> ([u8; 8], [u8; 8]) {
        let b = &self.0;
        let (mut scales, mut mins) = ([0; 8], [0; 8]);
        for j in 0..4 {
            scales[j] = b[j] & 63;
            mins[j] = b[j + 4] & 63;
            scales[j + 4] = (b[j + 8] & 15) | (b[j] >> 6 << 4);
            mins[j + 4] = (b[j + 8] >> 4) | (b[j + 4] >> 6 << 4);
        }
        (scales, mins)
    }

    /// [`KScales::unpack`] a word at a time: byte `j` of the numbers is scale and minimum `j`.
    #[inline(always)]
    pub fn unpack_words(&self) -> (u64, u64) {
        // Without `map`: it becomes a call, and what it returns goes through memory, where nothing is
        // inlined across crates or their parts.
        let [a, b, c]: [[u8; 4]; 3] = bytemuck::cast(self.0);
        let (a, b, c) = (u32::from_le_bytes(a), u32::from_le_bytes(b), u32::from_le_bytes(c));
        let join = |low: u32, high: u32, two: u32| {
            let high = (high & 0x0F0F_0F0F) | (two >> 2 & 0x3030_3030);
            u64::from(low & 0x3F3F_3F3F) | u64::from(high) << 32
        };
        (join(a, c, a), join(b, c >> 4, b))
    }
}

const _: () = assert!(size_of::<KScales>() == 12 && align_of::<KScales>() == 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_bytes() {
        for seed in 0..100u8 {
            let packed = KScales(std::array::from_fn(|i| {
                seed.wrapping_mul(97).wrapping_add((i as u8).wrapping_mul(41))
            }));
            let (scales, mins) = packed.unpack_words();
            assert_eq!((scales.to_le_bytes(), mins.to_le_bytes()), packed.unpack());
        }
    }
}
