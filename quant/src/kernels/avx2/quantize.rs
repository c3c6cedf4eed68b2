//! Activations to int8 blocks of 32, bit for bit what scalar does.

use std::arch::x86_64::*;

use crate::codec::QK;

/// `q`, `scale` and `sum` are as long as `x.len()` says.
#[target_feature(enable = "avx2")]
pub(super) fn quantize(x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
    let blocks = x.chunks_exact(QK).zip(q.chunks_exact_mut(QK)).zip(scale).zip(sum);
    for (((x, q), scale), sum) in blocks {
        let sign = _mm256_set1_ps(-0.0);
        let mut v = [_mm256_setzero_ps(); 4];
        let mut m = _mm256_setzero_ps();
        for (i, v) in v.iter_mut().enumerate() {
            // SAFETY: each of the four lies within the block's 32 floats.
            *v = unsafe { _mm256_loadu_ps(x.as_ptr().add(8 * i)) };
            // `max` returns its second operand when the first is NaN: NaNs are ignored.
            m = _mm256_max_ps(_mm256_andnot_ps(sign, *v), m);
        }
        let m = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps::<1>(m));
        let m = _mm_max_ps(m, _mm_movehl_ps(m, m));
        let m = _mm_max_ss(m, _mm_movehdup_ps(m));
        let d = _mm_cvtss_f32(m) / 127.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        let r = [round(v[0], id), round(v[1], id), round(v[2], id), round(v[3], id)];
        *scale = d;
        let s = _mm256_add_epi32(_mm256_add_epi32(r[0], r[1]), _mm256_add_epi32(r[2], r[3]));
        let s = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256::<1>(s));
        let s = _mm_add_epi32(s, _mm_shuffle_epi32::<0b01_00_11_10>(s));
        let s = _mm_add_epi32(s, _mm_shuffle_epi32::<0b10_11_00_01>(s));
        *sum = _mm_cvtsi128_si32(s);
        // Packing works within 128-bit lanes: the dwords come out as 0 4 1 5 2 6 3 7.
        let low = _mm256_packs_epi32(r[0], r[1]);
        let high = _mm256_packs_epi32(r[2], r[3]);
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
        // SAFETY: a block has 32 bytes.
        unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), bytes) };
    }
}

/// `(x · id).round_ties_even() as i8`: saturating, NaN to 0.
#[inline]
#[target_feature(enable = "avx2")]
fn round(x: __m256, id: f32) -> __m256i {
    let x = _mm256_mul_ps(x, _mm256_set1_ps(id));
    let x = _mm256_and_ps(x, _mm256_cmp_ps::<_CMP_ORD_Q>(x, x));
    let x = _mm256_max_ps(_mm256_min_ps(x, _mm256_set1_ps(127.0)), _mm256_set1_ps(-128.0));
    _mm256_cvtps_epi32(x)
}
