//! Block formats that an instruction set has no int8 kernel for: strips of rows and the activations
//! are decoded to f32, then multiplied as such. Slower than int8, by far faster than scalar.

use super::{DECODED, F32, FloatIsa, matmul_of};
use crate::codec::{QK, decode_row};
use crate::kernels::{Job, Rows, Scratch};
use crate::{DType, Matrix};

/// Rows decoded at a time.
const STRIP: usize = 32;

#[inline(always)]
pub(super) fn matmul<I: FloatIsa>(isa: I, job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, ld } = job;
    let mut f32s = std::mem::take(&mut scratch.f32s);
    f32s.resize((x.n + STRIP) * x.cols, 0.0);
    let (acts, strip) = f32s.split_at_mut(x.n * x.cols);
    for ((a, q), scale) in acts.chunks_exact_mut(QK).zip(x.q.chunks_exact(QK)).zip(x.scale) {
        for (a, &q) in a.iter_mut().zip(q) {
            *a = f32::from(q) * scale;
        }
    }
    let x = Rows { x: acts, q: &[], scale: &[], sum: &[], packed: None, ..x };
    for r0 in rows.clone().step_by(STRIP) {
        let m = STRIP.min(rows.end - r0);
        let strip = &mut strip[..m * x.cols];
        for (r, row) in strip.chunks_exact_mut(x.cols).enumerate() {
            decode_row(w.dtype(), w.row(r0 + r), row);
        }
        let w = Matrix::new(DType::F32, m, x.cols, bytemuck::cast_slice(strip));
        let w = w.expect("a strip is as long as its rows");
        let job = Job { w, rows: 0..m, x, y: &mut y[r0 - rows.start..], ld };
        matmul_of::<I, F32>(isa, job, scratch, DECODED);
    }
    scratch.f32s = f32s;
}
