//! Activations to int8 blocks of 32, bit for bit what scalar does.

use std::arch::aarch64::*;
use std::array;

use crate::codec::QK;

/// `q`, `scale` and `sum` are as long as `x.len()` says.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn quantize(x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
    let blocks = x.chunks_exact(QK).zip(q.chunks_exact_mut(QK)).zip(scale).zip(sum);
    for (((x, q), scale), sum) in blocks {
        // SAFETY: eight vectors are the block's 32 floats.
        let x: [_; 8] = array::from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) });
        // `maxnm` returns the number where the other is NaN: NaNs are ignored.
        let m = x.iter().fold(vdupq_n_f32(0.0), |m, &x| vmaxnmq_f32(m, vabsq_f32(x)));
        let d = vmaxnmvq_f32(m) / 127.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        // Ties to even, NaN to 0; the narrowing saturates.
        let r: [_; 8] = array::from_fn(|i| vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(x[i], id))));
        let narrow = |i: usize| {
            let pair = |i: usize| vqmovn_s16(vcombine_s16(r[i], r[i + 1]));
            vcombine_s8(pair(i), pair(i + 2))
        };
        let (a, b) = (narrow(0), narrow(4));
        *scale = d;
        *sum = i32::from(vaddlvq_s8(a)) + i32::from(vaddlvq_s8(b));
        // SAFETY: both halves lie within the block's 32 bytes.
        unsafe {
            vst1q_s8(q.as_mut_ptr(), a);
            vst1q_s8(q.as_mut_ptr().add(16), b);
        }
    }
}
