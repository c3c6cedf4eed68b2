//! Q6_K: six bits, four in one place and two in another, with a signed scale every 16 weights.

use std::arch::x86_64::*;

use super::sixteens::{Sixteens, f16, times};
use super::strip::{At, Group, Strip, dwords, nibbles, scales, transpose};
use crate::DType;
use crate::kernels::panel::Shape;
use crate::kernels::sixteens::Order;

pub(super) struct Q6K;

/// Bytes of a block, and where its fields begin.
const BLOCK: usize = 210;
const HIGH: usize = 128;
const SCALES: usize = 192;
const D: usize = 208;

/// Nibbles and, at 0x30 of each byte, the two bits above them.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn join(nibbles: __m256i, bits: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_or_si256(nibbles, _mm256_and_si256(bits, _mm256_set1_epi8(0x30))) }
}

/// What 32 bytes hold, low nibbles and then high ones: place `4v + l` is the sub-block in lane `l` of 64 weights.
pub(in crate::kernels) const Q6K_ORDER: Order =
    [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];

impl Sixteens for Q6K {
    const ORDER: Order = Q6K_ORDER;

    #[inline(always)]
    unsafe fn quants(p: *const u8, v: usize) -> [__m256i; 2] {
        // SAFETY: the caller has AVX2 and gives a block.
        unsafe {
            let (low, high) = nibbles(_mm256_loadu_si256(p.add(32 * v).cast()));
            let bits = _mm256_loadu_si256(p.add(HIGH + v / 2 * 32).cast());
            let (of_low, of_high) = match v % 2 {
                0 => (_mm256_slli_epi16::<4>(bits), bits),
                _ => (_mm256_slli_epi16::<2>(bits), _mm256_srli_epi16::<2>(bits)),
            };
            [join(low, of_low), join(high, of_high)]
        }
    }

    #[inline(always)]
    unsafe fn scales(p: *const u8) -> ([__m256; 2], [__m256; 2]) {
        // SAFETY: the caller has AVX2 and F16C, and gives a block.
        unsafe {
            let scales = times(_mm_loadu_si128(p.add(SCALES).cast()), f16(p.add(D)));
            (scales, [_mm256_setzero_ps(); 2])
        }
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
