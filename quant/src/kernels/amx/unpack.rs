//! Weights and activations as bf16, rounded to the nearest, ties to even.

use std::arch::x86_64::*;

use super::tile::LINE;
use crate::codec::QK;
use crate::kernels::avx512::Strip;
use crate::kernels::sweep::At;

/// Unpacks the first `steps` steps of a strip to `[steps][pairs of columns][16 rows][2]`, of which steps
/// begin `stride` bytes apart.
///
/// # Safety
/// AVX-512 F, BW, DQ, VL, VNNI, VBMI and BF16; the rows hold so many steps, and there is room for them at
/// `panel`, which lies on a 64-byte boundary.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512bf16")]
pub(super) unsafe fn unpack<F: Strip>(rows: At, steps: usize, panel: *mut u8, stride: usize) {
    let groups = QK / F::SHAPE.group;
    let fours = F::SHAPE.group / 4;
    for step in 0..steps {
        for part in 0..groups {
            // SAFETY: the rows hold that group.
            let group = unsafe { F::group(rows, step * groups + part) };
            let offset = _mm512_mul_ps(group.d, _mm512_set1_ps(-(F::SHAPE.offset as f32)));
            let zero = if F::SHAPE.mins { _mm512_add_ps(offset, group.m) } else { offset };
            let (d, zero) = (twice(group.d), twice(zero));
            for (i, q) in group.q.into_iter().take(fours).enumerate() {
                // SAFETY: there is room for the step.
                unsafe {
                    let to = panel.add(step * stride + (part * fours + i) * 2 * LINE);
                    _mm512_store_si512(to.cast(), pair::<0>(q, d, zero));
                    _mm512_store_si512(to.add(LINE).cast(), pair::<2>(q, d, zero));
                }
            }
        }
    }
}

/// Each row's value twice, side by side: those of the first eight rows, and of the others.
#[inline]
#[target_feature(enable = "avx512f")]
fn twice(v: __m512) -> [__m512; 2] {
    let first = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    let second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    [_mm512_permutexvar_ps(first, v), _mm512_permutexvar_ps(second, v)]
}

/// Columns `COLUMN` and the one after it of the four that `q` holds of 16 rows, value = quant · d + zero.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi,avx512bf16")]
fn pair<const COLUMN: usize>(q: __m512i, d: [__m512; 2], zero: [__m512; 2]) -> __m512i {
    // Byte 0 of each dword of the halves, whose dwords are a row's two columns.
    const fn bytes(half: usize, column: usize) -> [u8; 64] {
        let mut bytes = [0; 64];
        let mut i = 0;
        while i < 16 {
            bytes[4 * i] = ((half * 8 + i / 2) * 4 + column + i % 2) as u8;
            i += 1;
        }
        bytes
    }
    const FIRST: u64 = 0x1111_1111_1111_1111;
    let half = |bytes: &'static [u8; 64], d: __m512, zero: __m512| {
        // SAFETY: the array has 64 bytes.
        let bytes = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
        let q = _mm512_maskz_permutexvar_epi8(FIRST, bytes, q);
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(q), d, zero)
    };
    let low = half(const { &bytes(0, COLUMN) }, d[0], zero[0]);
    let high = half(const { &bytes(1, COLUMN) }, d[1], zero[1]);
    // SAFETY: any 64 bytes are a vector of integers.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Rounds blocks of 32; block `b` goes to `out[first + b * stride..]`.
///
/// # Safety
/// AVX-512 F and BF16; `out` has a line there for each whole block of `x`.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn round(x: &[f32], first: usize, stride: usize, out: &mut [u8]) {
    for (b, x) in x.as_chunks::<QK>().0.iter().enumerate() {
        // SAFETY: the block has 32 floats, and `out` a line for it.
        unsafe {
            let (lo, hi) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)));
            let both: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(hi, lo));
            _mm512_storeu_si512(out.as_mut_ptr().add(first + b * stride).cast(), both);
        }
    }
}
