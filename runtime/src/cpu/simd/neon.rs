//! NEON, which every 64-bit Arm CPU has: 4 lanes.

use std::arch::aarch64::*;

use half::f16;

use super::{Op, Simd};

/// NEON is part of the aarch64 baseline: no proof needed.
#[derive(Clone, Copy)]
pub(super) struct Neon;

pub(super) fn run<O: Op>(op: O) -> O::Out {
    op.run(Neon)
}

// SAFETY of every block below: NEON is baseline on aarch64; memory is vouched for by the callers
// of the unsafe methods.
#[allow(clippy::undocumented_unsafe_blocks, unused_unsafe)]
impl Simd for Neon {
    const LANES: usize = 4;
    const WIDE: bool = true;
    type V = float32x4_t;

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: float32x4_t) {
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> float32x4_t {
        // The f16 intrinsics are unstable; FCVTL is baseline.
        unsafe {
            let half = vld1_u16(p);
            let out: float32x4_t;
            std::arch::asm!("fcvtl {o:v}.4s, {h:v}.4h", o = out(vreg) out, h = in(vreg) half,
                options(pure, nomem, nostack, preserves_flags));
            out
        }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, v: float32x4_t) {
        let mut lanes = [0.0f32; 4];
        unsafe {
            vst1q_f32(lanes.as_mut_ptr(), v);
            for (i, x) in lanes.into_iter().enumerate() {
                *p.add(i) = f16::from_f32(x).to_bits();
            }
        }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> float32x4_t {
        unsafe {
            let x = [*p, *p.add(1), *p.add(2), *p.add(3)].map(f32::from);
            vld1q_f32(x.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_i16_pairs(self, p: *mut i16, a: float32x4_t, b: float32x4_t) {
        unsafe {
            let (a, b) = (vcvtnq_s32_f32(a), vcvtnq_s32_f32(b));
            vst1q_s32(p.cast(), vorrq_s32(a, vshlq_n_s32::<16>(b)));
        }
    }
    #[inline(always)]
    unsafe fn store_u8_fours(self, p: *mut u8, [a, b, c, d]: [float32x4_t; 4]) {
        unsafe {
            let (a, b) = (vcvtnq_s32_f32(a), vshlq_n_s32::<8>(vcvtnq_s32_f32(b)));
            let c = vshlq_n_s32::<16>(vcvtnq_s32_f32(c));
            let d = vshlq_n_s32::<24>(vcvtnq_s32_f32(d));
            vst1q_s32(p.cast(), vorrq_s32(vorrq_s32(a, b), vorrq_s32(c, d)));
        }
    }
    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmaxnmq_f32(a, b) }
    }
    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vminnmq_f32(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    fn scale_by_pow2(self, v: float32x4_t, n: float32x4_t) -> float32x4_t {
        unsafe {
            let bits = vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127)));
            vmulq_f32(v, vreinterpretq_f32_s32(bits))
        }
    }
    #[inline(always)]
    fn round(self, v: float32x4_t) -> float32x4_t {
        unsafe { vrndnq_f32(v) }
    }
    #[inline(always)]
    fn sum(self, v: float32x4_t) -> f32 {
        unsafe { vaddvq_f32(v) }
    }
    #[inline(always)]
    fn max_lane(self, v: float32x4_t) -> f32 {
        unsafe { vmaxnmvq_f32(v) }
    }
}
