//! Q2_K and Q3_K: two bits, with a scale every 16 weights. Q2_K has a minimum beside each scale; Q3_K has
//! a third bit apart from the two.

use std::arch::x86_64::*;

use super::sixteens::{Sixteens, f16, times};
use super::strip::{At, Group, Strip, dwords, scales, set_where, transpose};
use crate::DType;
use crate::kernels::panel::Shape;
use crate::kernels::sixteens::Order;

/// Values q · d + m.
pub(in crate::kernels) type Q2K = TwoBits<84>;
/// Values (q - 4) · d.
pub(in crate::kernels) type Q3K = TwoBits<110>;

/// 84 bytes: 16 of scales and minimums, 64 of bits, `d`, `dmin`. 110 bytes: 32 of third bits, 64 of bits, the
/// packed scales, `d`. AVX-512 reads them as this says, 64 bytes at a time.
pub(in crate::kernels) struct TwoBits<const BLOCK: usize>;

impl<const BLOCK: usize> TwoBits<BLOCK> {
    pub(in crate::kernels) const THREE: bool = BLOCK == 110;
    /// Where fields begin, in a block.
    pub(in crate::kernels) const QUANTS: usize = if Self::THREE { 32 } else { 16 };
    pub(in crate::kernels) const SCALES: usize = if Self::THREE { 96 } else { 0 };
    pub(in crate::kernels) const D: usize = if Self::THREE { 108 } else { 80 };
    /// What 16 bytes hold of four sub-blocks, one after the other: place `4v + l` is sub-block `8 (v / 2) + 2l + v % 2`.
    pub(in crate::kernels) const FOURS: Order =
        [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15];

    /// Q3_K's 16 scales, -32..32.
    ///
    /// # Safety
    /// AVX2; a block must be readable at `p`.
    #[inline(always)]
    pub(in crate::kernels) unsafe fn signed_scales(p: *const u8) -> __m128i {
        // SAFETY: the caller's promise.
        unsafe {
            let low = _mm_set1_epi64x(p.add(Self::SCALES).cast::<i64>().read_unaligned());
            let high = _mm_set1_epi32(p.add(Self::SCALES + 8).cast::<i32>().read_unaligned());
            // Bits of neighbours come along, and are masked off.
            let low = _mm_and_si128(_mm_srlv_epi64(low, _mm_set_epi64x(4, 0)), _mm_set1_epi8(15));
            let high = _mm_srlv_epi32(high, _mm_set_epi32(6, 4, 2, 0));
            let high = _mm_slli_epi32::<4>(_mm_and_si128(high, _mm_set1_epi8(3)));
            _mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32))
        }
    }

    /// Of the sub-blocks `2i` and `2i + 1` of half `part` of a block, 16 weights each, from weight `from` on.
    ///
    /// # Safety
    /// AVX2; a block must be readable at `p`.
    #[inline(always)]
    unsafe fn lanes(p: *const u8, part: usize, i: usize, from: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let load =
                |at: usize| _mm256_broadcastsi128_si256(_mm_loadu_si128(p.add(at + from).cast()));
            let of_lane =
                |a: __m128i, b: __m128i| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
            let counts = of_lane(_mm_set1_epi32(4 * i as i32), _mm_set1_epi32(4 * i as i32 + 2));
            let two = _mm256_srlv_epi32(load(Self::QUANTS + 32 * part), counts);
            let two = _mm256_and_si256(two, _mm256_set1_epi8(3));
            if !Self::THREE {
                return two;
            }
            // Bits `4 · part + 2i` and the next become bit 2 of their bytes.
            let first = 4 * part as i32 + 2 * i as i32;
            let third = match first {
                0 => _mm256_sllv_epi32(load(0), of_lane(_mm_set1_epi32(2), _mm_set1_epi32(1))),
                _ => {
                    let counts = of_lane(_mm_set1_epi32(first - 2), _mm_set1_epi32(first - 1));
                    _mm256_srlv_epi32(load(0), counts)
                }
            };
            _mm256_or_si256(two, _mm256_and_si256(third, _mm256_set1_epi8(4)))
        }
    }
}

impl<const BLOCK: usize> Sixteens for TwoBits<BLOCK> {
    const ORDER: Order = Self::FOURS;

    #[inline(always)]
    unsafe fn quants(p: *const u8, v: usize) -> [__m256i; 2] {
        let (part, from) = (v / 2, v % 2 * 16);
        // SAFETY: the caller has AVX2 and gives a block.
        unsafe { [Self::lanes(p, part, 0, from), Self::lanes(p, part, 1, from)] }
    }

    #[inline(always)]
    unsafe fn scales(p: *const u8) -> ([__m256; 2], [__m256; 2]) {
        // SAFETY: the caller has AVX2 and F16C, and gives a block.
        unsafe {
            let d = f16(p.add(Self::D));
            if Self::THREE {
                return (times(Self::signed_scales(p), d), [_mm256_setzero_ps(); 2]);
            }
            let (both, mask) = (_mm_loadu_si128(p.cast()), _mm_set1_epi8(15));
            let dmin = _mm256_xor_ps(f16(p.add(Self::D + 2)), _mm256_set1_ps(-0.0));
            let min = _mm_and_si128(_mm_srli_epi16::<4>(both), mask);
            (times(_mm_and_si128(both, mask), d), times(min, dmin))
        }
    }
}

impl<const BLOCK: usize> Strip for TwoBits<BLOCK> {
    const SHAPE: Shape = Shape::of(if BLOCK == 110 { DType::Q3_K } else { DType::Q2_K }).unwrap();
    const MAX: u8 = if Self::THREE { 7 } else { 3 };
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let (rows, g) = (rows.skip(g / 16 * BLOCK), g % 16);
        // Columns 16 · half .. of run `k` of 32, in the half `block` of 128.
        let (block, k, half) = (g / 8, g / 2 % 4, g % 2);
        // SAFETY: the caller has AVX2 and says that the block is readable.
        unsafe {
            let quants = rows.skip(Self::QUANTS + 32 * block + 16 * half);
            let quants = transpose(|r| _mm_loadu_si128(quants.row(r).cast()));
            let pair = _mm_cvtsi32_si128(2 * k as i32);
            let mut q = [_mm256_setzero_si256(); 8];
            for i in 0..4 {
                q[i] = _mm256_and_si256(_mm256_srl_epi16(quants[i], pair), _mm256_set1_epi8(3));
            }
            let f16 = |at: usize| scales(|r| rows.row(r).add(at).cast::<u16>().read_unaligned());
            if !Self::THREE {
                let both = dwords(|r| u32::from(rows.row(r).add(g).read()));
                let scale = _mm256_and_si256(both, _mm256_set1_epi32(0x0F));
                let d = _mm256_mul_ps(_mm256_cvtepi32_ps(scale), f16(Self::D));
                let min = _mm256_cvtepi32_ps(_mm256_srli_epi32::<4>(both));
                let min = _mm256_mul_ps(min, f16(Self::D + 2));
                return Group { q, d, m: _mm256_xor_ps(min, _mm256_set1_ps(-0.0)) };
            }
            let third = rows.skip(16 * half);
            let third = transpose(|r| _mm_loadu_si128(third.row(r).cast()));
            let bit = _mm256_set1_epi8((1u8 << (4 * block + k)) as i8);
            for i in 0..4 {
                q[i] = set_where::<4>(q[i], third[i], bit);
            }
            let [_, a, b, c] =
                transpose(|r| _mm_loadu_si128(rows.row(r).add(Self::SCALES - 4).cast()));
            // The bits of this sub-block to the bottom of their dwords.
            let byte = g as i32 % 4 * 8;
            let low = if g % 8 < 4 { a } else { b };
            let low = _mm256_srl_epi32(low, _mm_cvtsi32_si128(byte + g as i32 / 8 * 4));
            let high = _mm256_srl_epi32(c, _mm_cvtsi32_si128(byte + g as i32 / 4 * 2));
            let high = _mm256_slli_epi32::<4>(_mm256_and_si256(high, _mm256_set1_epi32(3)));
            let scale = _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(0x0F)), high);
            let scale = _mm256_cvtepi32_ps(_mm256_sub_epi32(scale, _mm256_set1_epi32(32)));
            Group { q, d: _mm256_mul_ps(scale, f16(Self::D)), m: _mm256_setzero_ps() }
        }
    }
}
