//! f32 vectors of 4.

use std::arch::aarch64::*;

use super::ops::f16_to_f32;
use crate::kernels::float::{self, FloatIsa, Weight};
use crate::kernels::{Job, NeonDotprod, Scratch};

// SAFETY (of every block below): the token proves NEON; loads and stores pass on the caller's promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl FloatIsa for NeonDotprod {
    type V = float32x4_t;
    const WIDTH: usize = 4;
    const TOKENS: usize = 12;

    #[inline(always)]
    fn zero(self) -> float32x4_t {
        unsafe { vdupq_n_f32(0.0) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sum(self, a: float32x4_t) -> f32 {
        unsafe { vaddvq_f32(a) }
    }

    #[inline(always)]
    unsafe fn load_f32(self, at: *const u8) -> float32x4_t {
        unsafe { vreinterpretq_f32_u8(vld1q_u8(at)) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, at: *const u8) -> float32x4_t {
        f16_to_f32(unsafe { vreinterpret_u16_u8(vld1_u8(at)) })
    }

    #[inline(always)]
    unsafe fn load_bf16(self, at: *const u8) -> float32x4_t {
        unsafe {
            let wide = vmovl_u16(vreinterpret_u16_u8(vld1_u8(at)));
            vreinterpretq_f32_u32(vshlq_n_u32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn store(self, v: float32x4_t, at: *mut f32) {
        unsafe { vst1q_f32(at, v) }
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
            let mut a = [vdupq_n_f32(0.0); 4];
            for (a, row) in a.iter_mut().zip(rows) {
                *a = W::load(self, row.add(offset));
            }
            let even01 = vreinterpretq_f64_f32(vtrn1q_f32(a[0], a[1]));
            let even23 = vreinterpretq_f64_f32(vtrn1q_f32(a[2], a[3]));
            let odd01 = vreinterpretq_f64_f32(vtrn2q_f32(a[0], a[1]));
            let odd23 = vreinterpretq_f64_f32(vtrn2q_f32(a[2], a[3]));
            let k = [
                vtrn1q_f64(even01, even23),
                vtrn1q_f64(odd01, odd23),
                vtrn2q_f64(even01, even23),
                vtrn2q_f64(odd01, odd23),
            ];
            for (i, k) in k.into_iter().enumerate() {
                vst1q_f32(out.add(i * stride), vreinterpretq_f32_f64(k));
            }
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn matmul(isa: NeonDotprod, job: Job<'_>, scratch: &mut Scratch) {
    float::matmul(isa, job, scratch);
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn transpose(
    isa: NeonDotprod,
    from: &[f32],
    width: usize,
    to: &mut [f32],
    height: usize,
) {
    float::transpose(isa, from, width, to, height);
}
