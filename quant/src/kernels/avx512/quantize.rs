//! Activations to int8 blocks of 32, bit for bit what scalar does.

use std::arch::x86_64::*;

use crate::codec::QK;

/// `q`, `scale` and `sum` are as long as `x.len()` says.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn quantize(x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
    let blocks = x.chunks_exact(QK).zip(q.chunks_exact_mut(QK)).zip(scale).zip(sum);
    for (((x, q), scale), sum) in blocks {
        // SAFETY: both halves lie within the block's 32 floats.
        let (a, b) = unsafe { (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))) };
        // `max` returns its second operand when the first is NaN: NaNs are ignored.
        let zero = _mm512_setzero_ps();
        let m = _mm512_max_ps(_mm512_abs_ps(b), _mm512_max_ps(_mm512_abs_ps(a), zero));
        let d = _mm512_reduce_max_ps(m) / 127.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        let (a, b) = (round(a, id), round(b, id));
        *scale = d;
        *sum = _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
        // SAFETY: both halves lie within the block's 32 bytes.
        unsafe {
            _mm_storeu_si128(q.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(a));
            _mm_storeu_si128(q.as_mut_ptr().add(16).cast(), _mm512_cvtepi32_epi8(b));
        }
    }
}

/// `(x · id).round_ties_even() as i8`: saturating, NaN to 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn round(x: __m512, id: f32) -> __m512i {
    let x = _mm512_mul_ps(x, _mm512_set1_ps(id));
    let number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(x, x);
    let x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(127.0)), _mm512_set1_ps(-128.0));
    _mm512_maskz_cvtps_epi32(number, x)
}
