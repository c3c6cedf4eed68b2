//! The packed scales and minimums of Q4_K and Q5_K, see [`KScales`].

use std::arch::x86_64::*;

use super::strip::{At, transpose};
use crate::codec::KScales;

/// `d`, `dmin` and the packed scales: the first 16 bytes of a block.
pub(super) const HEADER: usize = 16;

/// The 8 scales of a block's sub-blocks, then their minimums (what is added, so negative).
///
/// # Safety
/// `HEADER` bytes must be readable at `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn of_block(p: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    let (ds, packed) =
        unsafe { (p.cast::<u32>().read_unaligned(), p.add(4).cast::<KScales>().read()) };
    let (scales, mins) = packed.unpack_words();
    let six_bits = _mm512_cvtepu8_epi32(_mm_set_epi64x(mins as i64, scales as i64));
    let ds = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi32_si128((ds ^ 0x8000_0000) as i32)));
    let half = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm512_mul_ps(_mm512_cvtepi32_ps(six_bits), _mm512_permutexvar_ps(half, ds))
}

/// Of what [`of_block`] returned: scales and minimums of the sub-blocks `4 · part ..`, sub-block
/// `i % 4` in element `i`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn of_part(all: __m512, part: usize) -> (__m512, __m512) {
    let four = _mm512_broadcast_i32x4(_mm_set_epi32(3, 2, 1, 0));
    let scales = _mm512_add_epi32(four, _mm512_set1_epi32(4 * part as i32));
    let mins = _mm512_add_epi32(scales, _mm512_set1_epi32(8));
    (_mm512_permutexvar_ps(scales, all), _mm512_permutexvar_ps(mins, all))
}

/// The scales and the minimums (what is added) of sub-block `s` of the blocks at `rows`.
///
/// # Safety
/// AVX-512 F, BW, DQ, VL and VNNI; `HEADER` bytes must be readable in each row.
#[inline(always)]
pub(super) unsafe fn of_rows(rows: At, s: usize) -> (__m512, __m512) {
    // SAFETY: the caller's promise.
    unsafe {
        let [ds, a, b, c] = transpose(|r| _mm_loadu_si128(rows.row(r).cast()));
        let d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(ds));
        let dmin = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(ds)));
        // The byte of this sub-block to the bottom of its dword.
        let byte = _mm_cvtsi32_si128(s as i32 % 4 * 8);
        let a = _mm512_srl_epi32(a, byte);
        let b = _mm512_srl_epi32(b, byte);
        let (scale, min) = if s < 4 {
            let six = _mm512_set1_epi32(0x3F);
            (_mm512_and_si512(a, six), _mm512_and_si512(b, six))
        } else {
            let c = _mm512_srl_epi32(c, byte);
            let (four, two) = (_mm512_set1_epi32(0x0F), _mm512_set1_epi32(0x30));
            let low = _mm512_and_si512(c, four);
            let high = _mm512_and_si512(_mm512_srli_epi32::<4>(c), four);
            (
                _mm512_or_si512(low, _mm512_and_si512(_mm512_srli_epi32::<2>(a), two)),
                _mm512_or_si512(high, _mm512_and_si512(_mm512_srli_epi32::<2>(b), two)),
            )
        };
        let min = _mm512_mul_ps(_mm512_cvtepi32_ps(min), dmin);
        (_mm512_mul_ps(_mm512_cvtepi32_ps(scale), d), _mm512_xor_ps(min, _mm512_set1_ps(-0.0)))
    }
}
