//! Q6_K: six bits, four in one place and two in another, with a signed scale every 16 weights.

use std::arch::x86_64::*;

use super::sixteens::{Sixteens, f16};
use super::strip::{At, Group, Strip, dwords, scales, transpose};
use crate::DType;
use crate::kernels::avx2::Q6K_ORDER;
use crate::kernels::panel::Shape;
use crate::kernels::sixteens::Order;

pub(in crate::kernels) struct Q6K;

/// Bytes of a block, and where its fields begin.
const BLOCK: usize = 210;
const HIGH: usize = 128;
const SCALES: usize = 192;
const D: usize = 208;

impl Sixteens for Q6K {
    const ORDER: Order = Q6K_ORDER;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn quants(p: *const u8, v: usize) -> __m512i {
        // SAFETY: the caller gives a block.
        let load =
            |at: usize| unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(p.add(at).cast())) };
        // 64 weights: the low nibbles of 32 bytes, then the high ones.
        let nibbles = _mm512_srlv_epi64(load(32 * v), halves(0, 4));
        // Two bits of each, to the bits 4 and 5 of their bytes.
        let counts = if v.is_multiple_of(2) { halves(4, 0) } else { halves(2, 62) };
        let bits = _mm512_rolv_epi64(load(HIGH + 32 * (v / 2)), counts);
        let bits = _mm512_and_si512(bits, _mm512_set1_epi8(0x30));
        _mm512_or_si512(_mm512_and_si512(nibbles, _mm512_set1_epi8(0x0F)), bits)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales(p: *const u8) -> (__m512, __m512) {
        // SAFETY: the caller gives a block.
        unsafe {
            let scales = _mm512_cvtepi8_epi32(_mm_loadu_si128(p.add(SCALES).cast()));
            let d = _mm512_mul_ps(_mm512_cvtepi32_ps(scales), f16(p.add(D)));
            (d, _mm512_setzero_ps())
        }
    }
}

/// Counts for the lower and for the upper half.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(low: i64, high: i64) -> __m512i {
    let (low, high) = (_mm256_set1_epi64x(low), _mm256_set1_epi64x(high));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

impl Strip for Q6K {
    const SHAPE: Shape = Shape::of(DType::Q6_K).unwrap();
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let (rows, g) = (rows.skip(g / 16 * BLOCK), g % 16);
        // Columns 16 · half .. of run `k` of 32, in the half `block` of 128.
        let (block, k, half) = (g / 8, g / 2 % 4, g % 2);
        // SAFETY: the caller has AVX-512 and says that the block is readable.
        unsafe {
            let quants = rows.skip(64 * block + k % 2 * 32 + 16 * half);
            let quants = transpose(|r| _mm_loadu_si128(quants.row(r).cast()));
            let bits = rows.skip(HIGH + 32 * block + 16 * half);
            let bits = transpose(|r| _mm_loadu_si128(bits.row(r).cast()));
            let mut q = [_mm512_setzero_si512(); 8];
            let (nibble, pair) =
                (_mm_cvtsi32_si128(k as i32 / 2 * 4), _mm_cvtsi32_si128(k as i32 * 2));
            for i in 0..4 {
                let low = _mm512_srl_epi16(quants[i], nibble);
                let high = _mm512_slli_epi16::<4>(_mm512_and_si512(
                    _mm512_srl_epi16(bits[i], pair),
                    _mm512_set1_epi8(3),
                ));
                q[i] = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(0x0F)), high);
            }
            let scale = dwords(|r| rows.row(r).add(SCALES + g).cast::<i8>().read() as u32);
            let d = scales(|r| rows.row(r).add(D).cast::<u16>().read_unaligned());
            Group { q, d: _mm512_mul_ps(_mm512_cvtepi32_ps(scale), d), m: _mm512_setzero_ps() }
        }
    }
}
