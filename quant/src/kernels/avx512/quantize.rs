//! Activations to int8 blocks of 32, bit for bit what scalar does.
//!
//! Four blocks at a time, so that maxima and sums are taken across the lanes of all four together, and
//! the divisions are one each.

#![allow(clippy::needless_range_loop)] // iterators over arrays by value go through memory, or become calls

use std::arch::x86_64::*;

use crate::codec::QK;
use crate::kernels::panel::{START, Shape};

/// Blocks that are quantized together.
const FOUR: usize = 4;
/// A smaller scale than this has a reciprocal that may overflow.
const LEAST: f32 = 1e-37;

/// `q`, `scale` and `sum` are as long as `x.len()` says.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn quantize(x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
    let (fours, rest) = x.as_chunks::<{ FOUR * QK }>();
    let (q_fours, q_rest) = q.as_chunks_mut::<{ FOUR * QK }>();
    let (scale_fours, scale_rest) = scale.as_chunks_mut::<FOUR>();
    let (sum_fours, sum_rest) = sum.as_chunks_mut::<FOUR>();
    for (i, x) in fours.iter().enumerate() {
        match four(x) {
            // SAFETY: they hold the quants, scales and sums of four.
            Some(four) => unsafe {
                let q = q_fours[i].as_mut_ptr();
                _mm512_storeu_si512(q.cast(), four.q[0]);
                _mm512_storeu_si512(q.add(2 * QK).cast(), four.q[1]);
                _mm_storeu_ps(scale_fours[i].as_mut_ptr(), four.scale);
                _mm_storeu_si128(sum_fours[i].as_mut_ptr().cast(), four.sum);
            },
            None => each(x, &mut q_fours[i], &mut scale_fours[i], &mut sum_fours[i]),
        }
    }
    if !rest.is_empty() {
        each(rest, q_rest, scale_rest, sum_rest);
    }
}

/// Some columns of the `t`-th of a tile's `tokens`, into their groups of 32 at `out`; what is missing to
/// four blocks is left for another way. Returns the number of blocks that were done.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn packed(
    x: &[f32],
    shape: Shape,
    (t, tokens): (usize, usize),
    out: &mut [u8],
) -> usize {
    let stride = shape.pack_bytes(tokens);
    assert!(shape.group == QK && t < tokens && out.len() >= x.len() / QK * stride);
    let fours = x.as_chunks::<{ FOUR * QK }>().0;
    for (i, x) in fours.iter().enumerate() {
        let Some(four) = four(x) else { return i * FOUR };
        let words = shape.words(four.scale, four.sum);
        for b in 0..FOUR {
            let q = four.q[b / 2];
            let q = if b % 2 == 0 {
                _mm512_castsi512_si256(q)
            } else {
                _mm512_extracti64x4_epi64::<1>(q)
            };
            // SAFETY: `out` has this group, and the group this token's quants and words.
            unsafe {
                let group = out.as_mut_ptr().add((i * FOUR + b) * stride);
                _mm256_storeu_si256(group.add(t * QK).cast(), q);
                let to = group.add(tokens * QK).cast::<u32>();
                for field in 0..if shape.mins { 3 } else { 2 } {
                    to.add(field * tokens + t).write_unaligned(words[field][b]);
                }
            }
        }
    }
    fours.len() * FOUR
}

impl Shape {
    /// The words of four groups: scales, starts of sums and minimums' factors.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn words(self, scale: __m128, sum: __m128i) -> [[u32; FOUR]; 3] {
        let offset = _mm_mullo_epi32(sum, _mm_set1_epi32(self.offset));
        let init = _mm_sub_epi32(_mm_set1_epi32(START), offset);
        let minsum = _mm_mul_ps(scale, _mm_cvtepi32_ps(sum));
        let mut words = [[0; FOUR]; 3];
        // SAFETY: there is room for four in each.
        unsafe {
            _mm_storeu_ps(words[0].as_mut_ptr().cast(), scale);
            _mm_storeu_si128(words[1].as_mut_ptr().cast(), init);
            _mm_storeu_ps(words[2].as_mut_ptr().cast(), minsum);
        }
        words
    }
}

/// Four blocks, quantized.
struct Four {
    q: [__m512i; 2],
    scale: __m128,
    sum: __m128i,
}

/// Four blocks of ordinary numbers. `None` where there are others: infinities and NaNs, or so small ones
/// that the reciprocals of their scales are no numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn four(x: &[f32; FOUR * QK]) -> Option<Four> {
    let mut v = [[_mm512_setzero_ps(); 2]; FOUR];
    let mut max = [_mm_setzero_ps(); FOUR];
    let mut numbers = 0xFFFF;
    for b in 0..FOUR {
        // SAFETY: block b has 32 floats.
        v[b] = unsafe {
            let p = x.as_ptr().add(b * QK);
            [_mm512_loadu_ps(p), _mm512_loadu_ps(p.add(16))]
        };
        numbers &= _mm512_cmp_ps_mask::<_CMP_ORD_Q>(v[b][0], v[b][1]);
        let m = _mm512_max_ps(_mm512_abs_ps(v[b][0]), _mm512_abs_ps(v[b][1]));
        let m = _mm256_max_ps(_mm512_castps512_ps256(m), _mm512_extractf32x8_ps::<1>(m));
        max[b] = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps::<1>(m));
    }
    // Element b: the maximum of block b.
    let m01 = _mm_max_ps(_mm_unpacklo_ps(max[0], max[1]), _mm_unpackhi_ps(max[0], max[1]));
    let m23 = _mm_max_ps(_mm_unpacklo_ps(max[2], max[3]), _mm_unpackhi_ps(max[2], max[3]));
    let m = _mm_max_ps(_mm_movelh_ps(m01, m23), _mm_movehl_ps(m23, m01));
    let d = _mm_div_ps(m, _mm_set1_ps(127.0));
    let zero = _mm_cmp_ps_mask::<_CMP_EQ_OQ>(d, _mm_setzero_ps());
    let small = _mm_cmp_ps_mask::<_CMP_LT_OQ>(d, _mm_set1_ps(LEAST));
    let infinite = _mm_cmp_ps_mask::<_CMP_EQ_OQ>(d, _mm_set1_ps(f32::INFINITY));
    if numbers != 0xFFFF || (small & !zero) | infinite != 0 {
        return None;
    }
    let id = _mm_maskz_div_ps(!zero & 0xF, _mm_set1_ps(1.0), d);
    let id = _mm512_castps128_ps512(id);
    // No product is further from zero than 127 and a rounding of it.
    let mut words = [_mm512_setzero_si512(); FOUR];
    for b in 0..FOUR {
        let id = _mm512_permutexvar_ps(_mm512_set1_epi32(b as i32), id);
        let lo = _mm512_cvtps_epi32(_mm512_mul_ps(v[b][0], id));
        let hi = _mm512_cvtps_epi32(_mm512_mul_ps(v[b][1], id));
        words[b] = _mm512_packs_epi32(lo, hi);
    }
    // Lane l of two blocks' packed bytes: the quads l of both halves of one, then of the other.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let ones = _mm512_set1_epi8(1);
    let (mut q, mut sums) = ([_mm512_setzero_si512(); 2], [_mm512_setzero_si512(); 2]);
    for pair in 0..2 {
        let bytes = _mm512_packs_epi16(words[2 * pair], words[2 * pair + 1]);
        let bytes = _mm512_permutexvar_epi32(order, bytes);
        q[pair] = bytes;
        let s = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, bytes);
        let s = _mm512_add_epi32(s, _mm512_shuffle_epi32::<0x4E>(s));
        sums[pair] = _mm512_add_epi32(s, _mm512_shuffle_epi32::<0xB1>(s));
    }
    // A block has two lanes, each full of its sum.
    let first = _mm512_setr_epi32(0, 8, 16, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    let second = _mm512_add_epi32(first, _mm512_set1_epi32(4));
    let s = _mm512_add_epi32(
        _mm512_permutex2var_epi32(sums[0], first, sums[1]),
        _mm512_permutex2var_epi32(sums[0], second, sums[1]),
    );
    Some(Four { q, scale: d, sum: _mm512_castsi512_si128(s) })
}

/// Block by block, whatever the numbers are.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn each(x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
    // By index: iterators over several slices become calls where they are not inlined.
    let (x, q) = (x.as_chunks::<QK>().0, q.as_chunks_mut::<QK>().0);
    for b in 0..x.len() {
        let (x, q) = (&x[b], &mut q[b]);
        // SAFETY: both halves lie within the block's 32 floats.
        let lo = unsafe { _mm512_loadu_ps(x.as_ptr()) };
        // SAFETY: likewise.
        let hi = unsafe { _mm512_loadu_ps(x.as_ptr().add(16)) };
        // `max` returns its second operand when the first is NaN: NaNs are ignored.
        let zero = _mm512_setzero_ps();
        let m = _mm512_max_ps(_mm512_abs_ps(hi), _mm512_max_ps(_mm512_abs_ps(lo), zero));
        let d = _mm512_reduce_max_ps(m) / 127.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        let (lo, hi) = (round(lo, id), round(hi, id));
        scale[b] = d;
        sum[b] = _mm512_reduce_add_epi32(_mm512_add_epi32(lo, hi));
        // SAFETY: both halves lie within the block's 32 bytes.
        unsafe {
            _mm_storeu_si128(q.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(lo));
            _mm_storeu_si128(q.as_mut_ptr().add(16).cast(), _mm512_cvtepi32_epi8(hi));
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
