//! The instructions of these kernels back to back on registers: the ceilings of
//! [`ceiling`](crate::kernels::ceiling). Each returns the number of operations done.

use std::arch::aarch64::*;
use std::hint::black_box;

use super::ops::{sdot, smmla};

/// Independent chains: more than latency × throughput anywhere.
const CHAINS: usize = 16;
const LOOPS: usize = 20_000;

/// 16 products and additions an instruction.
#[target_feature(enable = "neon,dotprod")]
pub(in crate::kernels) fn sdot_128() -> f64 {
    let (a, b) = black_box((vdupq_n_s8(1), vdupq_n_s8(1)));
    let mut acc = [vdupq_n_s32(0); CHAINS];
    for _ in 0..LOOPS {
        for acc in &mut acc {
            *acc = sdot(*acc, a, b);
        }
    }
    black_box(acc);
    (LOOPS * CHAINS * 32) as f64
}

/// 32 products and additions an instruction.
#[target_feature(enable = "neon,i8mm")]
pub(in crate::kernels) fn smmla_128() -> f64 {
    let (a, b) = black_box((vdupq_n_s8(1), vdupq_n_s8(1)));
    let mut acc = [vdupq_n_s32(0); CHAINS];
    for _ in 0..LOOPS {
        for acc in &mut acc {
            *acc = smmla(*acc, a, b);
        }
    }
    black_box(acc);
    (LOOPS * CHAINS * 64) as f64
}

/// 4 products and additions an instruction.
#[target_feature(enable = "neon")]
pub(in crate::kernels) fn fma_128() -> f64 {
    let (a, b) = black_box((vdupq_n_f32(1e-3), vdupq_n_f32(1e-3)));
    let mut acc = [vdupq_n_f32(0.0); CHAINS];
    for _ in 0..LOOPS {
        for acc in &mut acc {
            *acc = vfmaq_f32(*acc, a, b);
        }
    }
    black_box(acc);
    (LOOPS * CHAINS * 8) as f64
}
