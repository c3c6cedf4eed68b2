//! f32 vectors of 16.

use std::arch::x86_64::*;

use crate::kernels::float::{self, FloatIsa, Weight};
use crate::kernels::{Avx512Vnni, Job, Scratch};

// SAFETY (of every block below): the token proves AVX-512 F; loads and stores pass on the caller's
// promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl FloatIsa for Avx512Vnni {
    type V = __m512;
    const WIDTH: usize = 16;
    const TOKENS: usize = 12;

    #[inline(always)]
    fn zero(self) -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    unsafe fn load_f32(self, at: *const u8) -> __m512 {
        unsafe { _mm512_loadu_ps(at.cast()) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, at: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, at: *const u8) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn store(self, v: __m512, at: *mut f32) {
        unsafe { _mm512_storeu_ps(at, v) }
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
            let mut a = [_mm512_setzero_ps(); 16];
            for (a, row) in a.iter_mut().zip(rows) {
                *a = W::load(self, row.add(offset));
            }
            // In every 128-bit lane 4 × 4: afterwards `a[4g + i]`, lane `l`, holds the weights
            // `4l + i` of the rows `4g .. 4g + 4`.
            for a in a.as_chunks_mut::<4>().0 {
                let lo = [_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpacklo_ps(a[2], a[3])];
                let hi = [_mm512_unpackhi_ps(a[0], a[1]), _mm512_unpackhi_ps(a[2], a[3])];
                a[0] = _mm512_shuffle_ps::<0b01_00_01_00>(lo[0], lo[1]);
                a[1] = _mm512_shuffle_ps::<0b11_10_11_10>(lo[0], lo[1]);
                a[2] = _mm512_shuffle_ps::<0b01_00_01_00>(hi[0], hi[1]);
                a[3] = _mm512_shuffle_ps::<0b11_10_11_10>(hi[0], hi[1]);
            }
            // Then the lanes, 4 × 4 again.
            for i in 0..4 {
                // Lanes 0 and 2 (`even`), 1 and 3 (`odd`) of two groups of rows each.
                let even0 = _mm512_shuffle_f32x4::<0b10_00_10_00>(a[i], a[i + 4]);
                let even1 = _mm512_shuffle_f32x4::<0b10_00_10_00>(a[i + 8], a[i + 12]);
                let odd0 = _mm512_shuffle_f32x4::<0b11_01_11_01>(a[i], a[i + 4]);
                let odd1 = _mm512_shuffle_f32x4::<0b11_01_11_01>(a[i + 8], a[i + 12]);
                let k = [
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(even0, even1),
                    _mm512_shuffle_f32x4::<0b10_00_10_00>(odd0, odd1),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(even0, even1),
                    _mm512_shuffle_f32x4::<0b11_01_11_01>(odd0, odd1),
                ];
                for (l, k) in k.into_iter().enumerate() {
                    _mm512_storeu_ps(out.add((4 * l + i) * stride), k);
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn matmul(isa: Avx512Vnni, job: Job<'_>, scratch: &mut Scratch) {
    float::matmul(isa, job, scratch);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn transpose(
    isa: Avx512Vnni,
    from: &[f32],
    width: usize,
    to: &mut [f32],
    height: usize,
) {
    float::transpose(isa, from, width, to, height);
}
