//! Q2_K and Q3_K: two bits, with a scale every 16 weights. Q2_K has a minimum beside each scale; Q3_K has
//! a third bit apart from the two.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step};
use super::strip::{At, Group, Strip, dwords, scales, set_where, transpose};
use crate::DType;
use crate::codec::Q3Scales;
use crate::kernels::panel::Shape;

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

    /// The scales of the sub-blocks `8 · part + 2i + odd`, for `i` = 0..4, and their minimums (what is added).
    ///
    /// # Safety
    /// AVX2 and F16C; a block must be readable at `p`.
    #[inline(always)]
    pub(in crate::kernels) unsafe fn scales_of(
        p: *const u8,
        part: usize,
        odd: usize,
    ) -> (__m128, __m128) {
        // SAFETY: the caller's promise.
        unsafe {
            // Every other byte.
            let four = |bytes: u64| {
                let bytes = bytes >> (8 * odd) & 0x00FF_00FF_00FF_00FF;
                _mm_cvtepi32_ps(_mm_cvtepu16_epi32(_mm_cvtsi64_si128(bytes as i64)))
            };
            let f16 = |at: usize| {
                let half = i32::from(p.add(at).cast::<u16>().read_unaligned());
                _mm_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(half)))
            };
            if Self::THREE {
                let packed = p.add(Self::SCALES).cast::<Q3Scales>().read();
                let scale = _mm_sub_ps(four(packed.unpack_word(part)), _mm_set1_ps(32.0));
                return (_mm_mul_ps(scale, f16(Self::D)), _mm_setzero_ps());
            }
            let both = p.add(8 * part).cast::<u64>().read_unaligned();
            let (scale, min) = (both & 0x0F0F_0F0F_0F0F_0F0F, both >> 4 & 0x0F0F_0F0F_0F0F_0F0F);
            let min = _mm_mul_ps(four(min), f16(Self::D + 2));
            (_mm_mul_ps(four(scale), f16(Self::D)), _mm_xor_ps(min, _mm_set1_ps(-0.0)))
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
            let bit = |b: usize| _mm_set1_epi8((1u8 << (4 * part + 2 * i + b)) as i8);
            set_where::<4>(two, load(0), of_lane(bit(0), bit(1)))
        }
    }
}

impl<const BLOCK: usize> Lanes for TwoBits<BLOCK> {
    const BYTES: usize = BLOCK;
    const PARTS: usize = 2;
    const HALVES: bool = true;

    #[inline(always)]
    unsafe fn step(p: *const u8, part: usize) -> Step {
        // SAFETY: the caller has AVX2 and gives a block.
        unsafe {
            let pair = |i: usize| (Self::lanes(p, part, i, 0), Self::lanes(p, part, i, 16));
            let (d, m) = Self::scales_of(p, part, 0);
            Step { q: [pair(0), pair(1)], d, m }
        }
    }

    #[inline(always)]
    unsafe fn scales_hi(p: *const u8, part: usize) -> (__m128, __m128) {
        // SAFETY: passed on.
        unsafe { Self::scales_of(p, part, 1) }
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
