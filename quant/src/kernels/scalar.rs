//! The oracle: what every kernel must compute, in the plainest way.

use super::{Input, Job, Scratch};
use crate::codec::{QK, decode_row};

pub(super) fn quantize(x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
    for (b, x) in x.chunks_exact(QK).enumerate() {
        let d = x.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        let q = &mut q[b * QK..][..QK];
        for (q, v) in q.iter_mut().zip(x) {
            *q = (v * id).round_ties_even() as i8;
        }
        scale[b] = d;
        sum[b] = q.iter().map(|&q| i32::from(q)).sum();
    }
}

/// Decodes each weight row and takes the dot product with the activations as they are stored.
pub(super) fn matmul(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, ld } = job;
    let cols = w.cols();
    scratch.f32s.resize(cols, 0.0);
    for (i, r) in rows.enumerate() {
        decode_row(w.dtype(), w.row(r), &mut scratch.f32s);
        for t in 0..x.n {
            y[t * ld + i] = match Input::of(w.dtype()) {
                Input::F32 => dot(&scratch.f32s, &x.x[t * cols..][..cols]),
                Input::Q8 => dot_q8(
                    &scratch.f32s,
                    &x.q[t * cols..][..cols],
                    &x.scale[t * cols / QK..][..cols / QK],
                ),
            };
        }
    }
}

fn dot(w: &[f32], x: &[f32]) -> f32 {
    w.iter().zip(x).map(|(w, x)| w * x).sum()
}

fn dot_q8(w: &[f32], q: &[i8], scale: &[f32]) -> f32 {
    w.chunks_exact(QK)
        .zip(q.chunks_exact(QK))
        .zip(scale)
        .map(|((w, q), d)| d * w.iter().zip(q).map(|(w, &q)| w * f32::from(q)).sum::<f32>())
        .sum()
}
