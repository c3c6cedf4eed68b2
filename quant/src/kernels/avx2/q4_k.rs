//! Q4_K and Q5_K: nibbles in sub-blocks of 32 with packed scales and minimums; Q5_K has a fifth bit
//! apart from them.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step};
use super::strip::{At, Group, Strip, nibbles, scales, set_where, transpose};
use crate::DType;
use crate::codec::KScales;
use crate::kernels::panel::Shape;

pub(super) type Q4K = Nibbles<144>;
pub(super) type Q5K = Nibbles<176>;

/// `d`, `dmin` and the packed scales; with 176 bytes 32 bytes of high bits; 4 × 32 bytes of nibbles.
pub(super) struct Nibbles<const BLOCK: usize>;

/// Bytes of `d`, `dmin` and the packed scales.
const HEADER: usize = 16;

impl<const BLOCK: usize> Nibbles<BLOCK> {
    const FIVE: bool = BLOCK == 176;
    /// Byte of the nibbles, in a block.
    const QUANTS: usize = BLOCK - 128;

    /// The weights 0..16 and 16..32 of the sub-blocks `2i` and `2i + 1`.
    ///
    /// # Safety
    /// AVX2; a block must be readable at `p`.
    #[inline(always)]
    unsafe fn pair(p: *const u8, i: usize) -> (__m256i, __m256i) {
        // SAFETY: the caller's promise.
        unsafe {
            let q = _mm256_loadu_si256(p.add(Self::QUANTS + 32 * i).cast());
            let (mut even, mut odd) = nibbles(q);
            if Self::FIVE {
                // Bit `s` belongs to sub-block `s`.
                let bits = _mm256_loadu_si256(p.add(HEADER).cast());
                let bit = 1u8 << (2 * i);
                even = set_where::<16>(even, bits, _mm256_set1_epi8(bit as i8));
                odd = set_where::<16>(odd, bits, _mm256_set1_epi8((bit << 1) as i8));
            }
            (
                _mm256_permute2x128_si256::<0x20>(even, odd),
                _mm256_permute2x128_si256::<0x31>(even, odd),
            )
        }
    }
}

/// The four lowest bytes as floats.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn four(bytes: u64) -> __m128 {
    // SAFETY: the caller has AVX2.
    unsafe { _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes as i32))) }
}

impl<const BLOCK: usize> Lanes for Nibbles<BLOCK> {
    const BYTES: usize = BLOCK;
    const PARTS: usize = 2;

    #[inline(always)]
    unsafe fn step(p: *const u8, part: usize) -> Step {
        // SAFETY: the caller has AVX2 and gives a block.
        unsafe {
            let (low, mins) = p.add(4).cast::<KScales>().read().unpack_words();
            let ds = _mm_cvtph_ps(_mm_cvtsi32_si128(p.cast::<i32>().read_unaligned()));
            let (d, dmin) = (_mm_shuffle_ps::<0>(ds, ds), _mm_shuffle_ps::<0b01_01_01_01>(ds, ds));
            Step {
                q: [Self::pair(p, 2 * part), Self::pair(p, 2 * part + 1)],
                d: _mm_mul_ps(four(low >> (32 * part)), d),
                m: _mm_xor_ps(_mm_mul_ps(four(mins >> (32 * part)), dmin), _mm_set1_ps(-0.0)),
            }
        }
    }
}

impl<const BLOCK: usize> Strip for Nibbles<BLOCK> {
    const SHAPE: Shape = Shape::of(DType::Q4_K).unwrap();
    const MAX: u8 = if Self::FIVE { 31 } else { 15 };
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let (rows, s) = (rows.skip(g / 8 * BLOCK), g % 8);
        // SAFETY: the caller has AVX2 and says that the block is readable.
        unsafe {
            let quants = rows.skip(Self::QUANTS + s / 2 * 32);
            let a = transpose(|r| _mm_loadu_si128(quants.row(r).cast()));
            let b = transpose(|r| _mm_loadu_si128(quants.row(r).add(16).cast()));
            let mut q = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
            let odd = _mm_cvtsi32_si128(s as i32 % 2 * 4);
            for q in &mut q {
                *q = _mm256_and_si256(_mm256_srl_epi16(*q, odd), _mm256_set1_epi8(0x0F));
            }
            if Self::FIVE {
                let high = rows.skip(HEADER);
                let a = transpose(|r| _mm_loadu_si128(high.row(r).cast()));
                let b = transpose(|r| _mm_loadu_si128(high.row(r).add(16).cast()));
                let bits = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
                let bit = _mm256_set1_epi8((1u8 << s) as i8);
                for (q, bits) in q.iter_mut().zip(bits) {
                    *q = set_where::<16>(*q, bits, bit);
                }
            }
            let (d, m) = scales_of(rows, s);
            Group { q, d, m }
        }
    }
}

/// The scales and the minimums (what is added) of sub-block `s` of the blocks at `rows`.
///
/// # Safety
/// AVX2 and F16C; `HEADER` bytes must be readable in each row.
#[inline(always)]
unsafe fn scales_of(rows: At, s: usize) -> (__m256, __m256) {
    // SAFETY: the caller's promise.
    unsafe {
        let [_, a, b, c] = transpose(|r| _mm_loadu_si128(rows.row(r).cast()));
        // The byte of this sub-block to the bottom of its dword.
        let byte = _mm_cvtsi32_si128(s as i32 % 4 * 8);
        let a = _mm256_srl_epi32(a, byte);
        let b = _mm256_srl_epi32(b, byte);
        let (scale, min) = if s < 4 {
            let six = _mm256_set1_epi32(0x3F);
            (_mm256_and_si256(a, six), _mm256_and_si256(b, six))
        } else {
            let c = _mm256_srl_epi32(c, byte);
            let (four, two) = (_mm256_set1_epi32(0x0F), _mm256_set1_epi32(0x30));
            let low = _mm256_and_si256(c, four);
            let high = _mm256_and_si256(_mm256_srli_epi32::<4>(c), four);
            (
                _mm256_or_si256(low, _mm256_and_si256(_mm256_srli_epi32::<2>(a), two)),
                _mm256_or_si256(high, _mm256_and_si256(_mm256_srli_epi32::<2>(b), two)),
            )
        };
        let d = scales(|r| rows.row(r).cast::<u16>().read_unaligned());
        let dmin = scales(|r| rows.row(r).cast::<u16>().add(1).read_unaligned());
        let min = _mm256_mul_ps(_mm256_cvtepi32_ps(min), dmin);
        (_mm256_mul_ps(_mm256_cvtepi32_ps(scale), d), _mm256_xor_ps(min, _mm256_set1_ps(-0.0)))
    }
}
