//! f32 vectors of 8.

use std::arch::x86_64::*;

use crate::kernels::float::{self, FloatIsa, Weight};
use crate::kernels::{Avx2, Job, Scratch};

// SAFETY (of every block below): the token proves AVX2, FMA and F16C; loads and stores pass on the
// caller's promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl FloatIsa for Avx2 {
    type V = __m256;
    const WIDTH: usize = 8;
    const TOKENS: usize = 6;

    #[inline(always)]
    fn zero(self) -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        unsafe {
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }
    }

    #[inline(always)]
    unsafe fn load_f32(self, at: *const u8) -> __m256 {
        unsafe { _mm256_loadu_ps(at.cast()) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, at: *const u8) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, at: *const u8) -> __m256 {
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn store(self, v: __m256, at: *mut f32) {
        unsafe { _mm256_storeu_ps(at, v) }
    }

    #[inline(always)]
    unsafe fn transpose<W: Weight>(
        self,
        rows: &[*const u8],
        offset: usize,
        out: *mut f32,
        stride: usize,
    ) {
        unsafe {
            let mut a = [_mm256_setzero_ps(); 8];
            for (a, row) in a.iter_mut().zip(rows) {
                *a = W::load(self, row.add(offset));
            }
            // In both 128-bit lanes 4 × 4: afterwards `a[4g + i]`, lane `l`, holds the weights
            // `4l + i` of the rows `4g .. 4g + 4`.
            for a in a.as_chunks_mut::<4>().0 {
                let lo = [_mm256_unpacklo_ps(a[0], a[1]), _mm256_unpacklo_ps(a[2], a[3])];
                let hi = [_mm256_unpackhi_ps(a[0], a[1]), _mm256_unpackhi_ps(a[2], a[3])];
                a[0] = _mm256_shuffle_ps::<0b01_00_01_00>(lo[0], lo[1]);
                a[1] = _mm256_shuffle_ps::<0b11_10_11_10>(lo[0], lo[1]);
                a[2] = _mm256_shuffle_ps::<0b01_00_01_00>(hi[0], hi[1]);
                a[3] = _mm256_shuffle_ps::<0b11_10_11_10>(hi[0], hi[1]);
            }
            for i in 0..4 {
                let lanes = (a[i], a[i + 4]);
                let low = _mm256_permute2f128_ps::<0x20>(lanes.0, lanes.1);
                let high = _mm256_permute2f128_ps::<0x31>(lanes.0, lanes.1);
                _mm256_storeu_ps(out.add(i * stride), low);
                _mm256_storeu_ps(out.add((i + 4) * stride), high);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul(isa: Avx2, job: Job<'_>, scratch: &mut Scratch) {
    float::matmul(isa, job, scratch);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn transpose(isa: Avx2, from: &[f32], width: usize, to: &mut [f32], height: usize) {
    float::transpose(isa, from, width, to, height);
}
