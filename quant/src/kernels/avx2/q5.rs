//! Q5_0 and Q5_1: nibbles and, apart from them, a fifth bit of each weight. They differ by where the
//! fields are, and by -16 or a minimum.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step, halves};
use super::strip::{At, Group, Strip, dwords, lanes, nibbles, scales, set_where, transpose};
use crate::DType;
use crate::kernels::panel::Shape;

/// Values (q - 16) · d.
pub(super) type Q5_0 = Q5<22>;
/// Values q · d + m.
pub(super) type Q5_1 = Q5<24>;

/// `d`, with 24 bytes `m`, then 4 bytes of high bits and 16 of nibbles.
pub(super) struct Q5<const BLOCK: usize>;

impl<const BLOCK: usize> Q5<BLOCK> {
    const HAS_MIN: bool = <Self as Strip>::SHAPE.mins;
    /// Byte of the high bits, in a block.
    const HIGH: usize = BLOCK - 20;
}

/// The weights 0..16 and 16..32 of two blocks, whose high bits are at `p` and `p + BLOCK`.
///
/// # Safety
/// AVX2; the bits and the nibbles after them must be readable.
#[inline(always)]
unsafe fn pair<const BLOCK: usize>(p: *const u8) -> (__m256i, __m256i) {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, high) = nibbles(lanes(p.add(4), BLOCK));
        // Each block's 32 bits, four times in its lane.
        let a = _mm_set1_epi32(p.cast::<i32>().read_unaligned());
        let b = _mm_set1_epi32(p.add(BLOCK).cast::<i32>().read_unaligned());
        let bits = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
        // Bytes 0 and 1 eight times each; bytes 2 and 3.
        let byte = _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0101_0101_0101_0101, 0));
        let low_bits = _mm256_shuffle_epi8(bits, byte);
        let high_bits = _mm256_shuffle_epi8(bits, _mm256_add_epi8(byte, _mm256_set1_epi8(2)));
        let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201u64 as i64);
        (set_where::<16>(low, low_bits, bit), set_where::<16>(high, high_bits, bit))
    }
}

impl<const BLOCK: usize> Lanes for Q5<BLOCK> {
    const BYTES: usize = 4 * BLOCK;

    #[inline(always)]
    unsafe fn step(p: *const u8, _part: usize) -> Step {
        // SAFETY: the caller has AVX2 and gives four blocks.
        unsafe {
            Step {
                q: [pair::<BLOCK>(p.add(Self::HIGH)), pair::<BLOCK>(p.add(2 * BLOCK + Self::HIGH))],
                d: halves(|b| p.add(b * BLOCK).cast::<u16>().read_unaligned()),
                m: if Self::HAS_MIN {
                    halves(|b| p.add(b * BLOCK + 2).cast::<u16>().read_unaligned())
                } else {
                    _mm_setzero_ps()
                },
            }
        }
    }
}

impl<const BLOCK: usize> Strip for Q5<BLOCK> {
    const SHAPE: Shape = Shape::of(if BLOCK == 24 { DType::Q5_1 } else { DType::Q5_0 }).unwrap();
    const MAX: u8 = 31;
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let rows = rows.skip(g * BLOCK);
        // SAFETY: the caller has AVX2 and says that the block is readable.
        unsafe {
            let quads = transpose(|r| _mm_loadu_si128(rows.row(r).add(Self::HIGH + 4).cast()));
            // Dword `r`: the 32 high bits of row `r`.
            let bits = dwords(|r| rows.row(r).add(Self::HIGH).cast::<u32>().read_unaligned());
            let first = _mm_set_epi32(0x0C0C_0C0C, 0x0808_0808, 0x0404_0404, 0);
            let first = _mm256_broadcastsi128_si256(first);
            let mut q = [_mm256_setzero_si256(); 8];
            for (i, q) in q.iter_mut().enumerate() {
                let nibbles = if i < 4 { quads[i] } else { _mm256_srli_epi16::<4>(quads[i - 4]) };
                let nibbles = _mm256_and_si256(nibbles, _mm256_set1_epi8(0x0F));
                // The byte with the bits of weights `4i .. 4i + 4`, four times; then those bits.
                let byte = _mm256_add_epi8(first, _mm256_set1_epi8((i / 2) as i8));
                let bit = _mm256_set1_epi32((0x0804_0201u32 << (i % 2 * 4)) as i32);
                *q = set_where::<16>(nibbles, _mm256_shuffle_epi8(bits, byte), bit);
            }
            Group {
                q,
                d: scales(|r| rows.row(r).cast::<u16>().read_unaligned()),
                m: if Self::HAS_MIN {
                    scales(|r| rows.row(r).cast::<u16>().add(1).read_unaligned())
                } else {
                    _mm256_setzero_ps()
                },
            }
        }
    }
}
