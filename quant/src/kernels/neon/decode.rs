//! Few tokens: rows as they lie in the file, each weight read once. Bound by memory.

use std::arch::aarch64::*;

use super::DECODE_MAX;
use super::blocks::{Blocks, scale};
use super::ops::{f16_to_f32, sdot};
use crate::codec::QK;
use crate::kernels::Job;
use crate::kernels::prefetch::prefetch;

/// Blocks a step: their scales are a vector.
const STEP: usize = 4;
/// How far ahead of the loads memory is asked for, in bytes.
const AHEAD: usize = 512;

/// # Safety
/// NEON and dotprod; `job` holds what its documentation says, its weights are `F`'s and at most
/// `DECODE_MAX` tokens are asked for.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn matmul<F: Blocks>(job: Job<'_>) {
    // SAFETY: passed on.
    unsafe {
        match job.x.n {
            1 => rows::<F, 1>(job),
            2 => rows::<F, 2>(job),
            3 => rows::<F, 3>(job),
            DECODE_MAX => rows::<F, DECODE_MAX>(job),
            n => unreachable!("{n} tokens a row"),
        }
    }
}

/// # Safety
/// See [`matmul`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn rows<F: Blocks, const N: usize>(job: Job<'_>) {
    let Job { w, rows, x, y, ld } = job;
    let blocks = x.cols / QK;
    debug_assert_eq!(w.row_bytes(), blocks * F::BYTES);
    let acts = x.q.as_ptr();
    for (i, r) in rows.enumerate() {
        let row = w.row(r).as_ptr();
        let mut acc = [[vdupq_n_f32(0.0); 2]; N];
        let mut b = 0;
        while b + STEP <= blocks {
            // SAFETY: `STEP` more blocks of the row and of each token are there.
            unsafe {
                let p = row.add(b * F::BYTES);
                for line in 0..(STEP * F::BYTES).div_ceil(64) {
                    prefetch(p.wrapping_add(AHEAD + 64 * line));
                }
                let mut d = [0; STEP];
                let mut q = [[vdupq_n_s8(0); 2]; STEP];
                for (i, (d, q)) in d.iter_mut().zip(&mut q).enumerate() {
                    let block = p.add(i * F::BYTES);
                    (*d, *q) = (scale(block), F::quants(block));
                }
                let d = f16_to_f32(vld1_u16(d.as_ptr()));
                for (t, acc) in acc.iter_mut().enumerate() {
                    let scales = vmulq_f32(d, vld1q_f32(x.scale.as_ptr().add(t * blocks + b)));
                    let x = acts.add((t * blocks + b) * QK);
                    acc[0] = vfmaq_laneq_f32::<0>(acc[0], product(q[0], x), scales);
                    acc[1] = vfmaq_laneq_f32::<1>(acc[1], product(q[1], x.add(QK)), scales);
                    acc[0] = vfmaq_laneq_f32::<2>(acc[0], product(q[2], x.add(2 * QK)), scales);
                    acc[1] = vfmaq_laneq_f32::<3>(acc[1], product(q[3], x.add(3 * QK)), scales);
                }
            }
            b += STEP;
        }
        while b < blocks {
            // SAFETY: one more block of the row and of each token is there.
            unsafe {
                let p = row.add(b * F::BYTES);
                let (q, d) = (F::quants(p), f16_to_f32(vdup_n_u16(scale(p))));
                for (t, acc) in acc.iter_mut().enumerate() {
                    let d = vmulq_n_f32(d, x.scale[t * blocks + b]);
                    let x = acts.add((t * blocks + b) * QK);
                    acc[0] = vfmaq_f32(acc[0], product(q, x), d);
                }
            }
            b += 1;
        }
        for (t, acc) in acc.iter().enumerate() {
            y[t * ld + i] = vaddvq_f32(vaddq_f32(acc[0], acc[1]));
        }
    }
}

/// Four parts of the integer product of a block of weights and one of activations.
///
/// # Safety
/// NEON and dotprod; 32 activations must be readable at `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn product(q: [int8x16_t; 2], x: *const i8) -> float32x4_t {
    // SAFETY: the caller's promise.
    let x = unsafe { [vld1q_s8(x), vld1q_s8(x.add(16))] };
    vcvtq_f32_s32(sdot(sdot(vdupq_n_s32(0), q[0], x[0]), q[1], x[1]))
}
