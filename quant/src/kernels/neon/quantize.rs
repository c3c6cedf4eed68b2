//! Activations to int8 blocks of 32, bit for bit what scalar does.

use std::arch::aarch64::*;

use crate::codec::QK;

/// `q`, `scale` and `sum` are as long as `x.len()` says.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn quantize(x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
    let blocks = x.chunks_exact(QK).zip(q.chunks_exact_mut(QK)).zip(scale).zip(sum);
    for (((x, q), scale), sum) in blocks {
        let mut v = [vdupq_n_f32(0.0); 8];
        let mut m = v[0];
        for (i, v) in v.iter_mut().enumerate() {
            // SAFETY: eight vectors are the block's 32 floats.
            *v = unsafe { vld1q_f32(x.as_ptr().add(4 * i)) };
            // `maxnm` returns the number where the other is NaN: NaNs are ignored.
            m = vmaxnmq_f32(m, vabsq_f32(*v));
        }
        let d = vmaxnmvq_f32(m) / 127.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        let mut r = [vdup_n_s16(0); 8];
        for (r, v) in r.iter_mut().zip(v) {
            // Ties to even, NaN to 0; the narrowing saturates.
            *r = vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v, id)));
        }
        let a = vcombine_s8(narrow(r[0], r[1]), narrow(r[2], r[3]));
        let b = vcombine_s8(narrow(r[4], r[5]), narrow(r[6], r[7]));
        *scale = d;
        *sum = i32::from(vaddlvq_s8(a)) + i32::from(vaddlvq_s8(b));
        // SAFETY: both halves lie within the block's 32 bytes.
        unsafe {
            vst1q_s8(q.as_mut_ptr(), a);
            vst1q_s8(q.as_mut_ptr().add(16), b);
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn narrow(a: int16x4_t, b: int16x4_t) -> int8x8_t {
    vqmovn_s16(vcombine_s16(a, b))
}
