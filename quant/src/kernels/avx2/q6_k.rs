//! Q6_K: six bits, four in one place and two in another, with a signed scale every 16 weights.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step};
use super::strip::{At, Group, Strip, dwords, nibbles, scales, transpose};
use crate::DType;
use crate::kernels::panel::Shape;

pub(super) struct Q6K;

/// Bytes of a block, and where its fields begin.
const BLOCK: usize = 210;
const HIGH: usize = 128;
const SCALES: usize = 192;
const D: usize = 208;

/// The eight scales of half `part` of a block.
///
/// # Safety
/// AVX2 and F16C; a block must be readable at `p`.
#[inline(always)]
unsafe fn scales_of(p: *const u8, part: usize) -> (__m128, __m128) {
    // SAFETY: the caller's promise.
    unsafe {
        let eight = _mm_loadl_epi64(p.add(SCALES + 8 * part).cast());
        let d = _mm_cvtsi32_si128(i32::from(p.add(D).cast::<u16>().read_unaligned()));
        let d = _mm256_broadcastss_ps(_mm_cvtph_ps(d));
        let all = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight)), d);
        let (a, b) = (_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
        (_mm_shuffle_ps::<0b10_00_10_00>(a, b), _mm_shuffle_ps::<0b11_01_11_01>(a, b))
    }
}

/// Nibbles and, at 0x30 of each byte, the two bits above them.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn join(nibbles: __m256i, bits: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_or_si256(nibbles, _mm256_and_si256(bits, _mm256_set1_epi8(0x30))) }
}

/// The lower lanes of two blocks, and the upper.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn pair(a: __m256i, b: __m256i) -> (__m256i, __m256i) {
    // SAFETY: the caller has AVX2.
    unsafe { (_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)) }
}

impl Lanes for Q6K {
    const BYTES: usize = BLOCK;
    const PARTS: usize = 2;
    const HALVES: bool = true;

    #[inline(always)]
    unsafe fn step(p: *const u8, part: usize) -> Step {
        // SAFETY: the caller has AVX2 and gives a block.
        unsafe {
            let a = _mm256_loadu_si256(p.add(64 * part).cast());
            let b = _mm256_loadu_si256(p.add(64 * part + 32).cast());
            let bits = _mm256_loadu_si256(p.add(HIGH + 32 * part).cast());
            let (a, b) = (nibbles(a), nibbles(b));
            let blocks = [
                join(a.0, _mm256_slli_epi16::<4>(bits)),
                join(b.0, _mm256_slli_epi16::<2>(bits)),
                join(a.1, bits),
                join(b.1, _mm256_srli_epi16::<2>(bits)),
            ];
            let q = [pair(blocks[0], blocks[1]), pair(blocks[2], blocks[3])];
            Step { q, d: scales_of(p, part).0, m: _mm_setzero_ps() }
        }
    }

    #[inline(always)]
    unsafe fn scales_hi(p: *const u8, part: usize) -> (__m128, __m128) {
        // SAFETY: passed on.
        unsafe { (scales_of(p, part).1, _mm_setzero_ps()) }
    }
}

impl Strip for Q6K {
    const SHAPE: Shape = Shape::of(DType::Q6_K).unwrap();
    const MAX: u8 = 63;
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let (rows, g) = (rows.skip(g / 16 * BLOCK), g % 16);
        // Columns 16 · half .. of run `k` of 32, in the half `block` of 128.
        let (block, k, half) = (g / 8, g / 2 % 4, g % 2);
        // SAFETY: the caller has AVX2 and says that the block is readable.
        unsafe {
            let quants = rows.skip(64 * block + k % 2 * 32 + 16 * half);
            let quants = transpose(|r| _mm_loadu_si128(quants.row(r).cast()));
            let bits = rows.skip(HIGH + 32 * block + 16 * half);
            let bits = transpose(|r| _mm_loadu_si128(bits.row(r).cast()));
            let nibble = _mm_cvtsi32_si128(k as i32 / 2 * 4);
            let pair = _mm_cvtsi32_si128(k as i32 * 2);
            let mut q = [_mm256_setzero_si256(); 8];
            for i in 0..4 {
                let low = _mm256_srl_epi16(quants[i], nibble);
                let high = _mm256_srl_epi16(bits[i], pair);
                let high = _mm256_slli_epi16::<4>(_mm256_and_si256(high, _mm256_set1_epi8(3)));
                q[i] = _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(0x0F)), high);
            }
            let scale = dwords(|r| rows.row(r).add(SCALES + g).cast::<i8>().read() as u32);
            let d = scales(|r| rows.row(r).add(D).cast::<u16>().read_unaligned());
            Group { q, d: _mm256_mul_ps(_mm256_cvtepi32_ps(scale), d), m: _mm256_setzero_ps() }
        }
    }
}
