//! Matmuls of block formats with int8 activations: half the arithmetic of fixed point, at the
//! rounding that quantized text models live with.

use quant::codec::QK;
use quant::kernels::{Kernels, Rows, Scratch};
use rayon::prelude::*;

use super::linear::{Finish, Product, store};
use super::memory::reserve;
use crate::cpu::shared::SharedBuf;
use crate::error::RuntimeError;

/// Weight rows that a thread multiplies at a time.
const PART: usize = 64;
/// Rows of activations that are quantized at a time.
const CHUNK: usize = 16;

/// Rows of activations in int8 blocks of 32.
pub(super) struct Quantized {
    rows: usize,
    cols: usize,
    q: Vec<i8>,
    scale: Vec<f32>,
    sum: Vec<i32>,
    /// Counts fillings, so that kernels know what they have laid out already.
    filled: u64,
}

impl Quantized {
    /// Room for rows of `cols` features, a multiple of 32.
    pub(super) fn new(rows: usize, cols: usize) -> Result<Self, RuntimeError> {
        let len = rows.saturating_mul(cols);
        Ok(Quantized {
            rows,
            cols,
            q: reserve(len)?,
            scale: reserve(len / QK)?,
            sum: reserve(len / QK)?,
            filled: 0,
        })
    }

    /// Fills in all rows; `row(r, out)` says what row `r` is.
    pub(super) fn fill(&mut self, k: &Kernels, row: impl Fn(usize, &mut [f32]) + Sync) {
        let (cols, blocks) = (self.cols, self.cols / QK);
        self.filled += 1;
        let scales = self.scale.par_chunks_mut(CHUNK * blocks);
        let sums = self.sum.par_chunks_mut(CHUNK * blocks);
        self.q.par_chunks_mut(CHUNK * cols).zip(scales).zip(sums).enumerate().for_each_init(
            || vec![0.0; cols],
            |x, (chunk, ((q, scale), sum))| {
                let rows = q.chunks_exact_mut(cols).zip(scale.chunks_exact_mut(blocks));
                for (r, ((q, scale), sum)) in rows.zip(sum.chunks_exact_mut(blocks)).enumerate() {
                    row(chunk * CHUNK + r, x);
                    k.quantize(x, q, scale, sum);
                }
            },
        );
    }
}

/// As [`linear::matmul`](super::linear::matmul), for matrices of block formats.
pub(super) fn matmul(
    k: &Kernels,
    matrices: &[Product<'_>],
    x: &Quantized,
    out: &SharedBuf<f32>,
    ld: usize,
    finish: Finish,
) {
    let parts: Vec<(Product<'_>, usize)> = matrices
        .iter()
        .flat_map(|&m| (0..m.w.rows()).step_by(PART).map(move |first| (m, first)))
        .collect();
    let rows = Rows { n: x.rows, cols: x.cols, x: &[], q: &x.q, scale: &x.scale, sum: &x.sum };
    let scratch = || (Scratch::default(), vec![0.0; x.rows * PART]);
    parts.into_par_iter().for_each_init(scratch, |(scratch, y), (m, first)| {
        let n = PART.min(m.w.rows() - first);
        scratch.set_input(x.filled);
        k.matmul(m.w, first..first + n, rows, y, n, scratch);
        for (t, y) in y.chunks_exact_mut(n).enumerate().take(x.rows) {
            let at = t * ld + m.column + first;
            // SAFETY: these columns belong to this part, and each part to one thread; nobody reads
            // `out` before all are done.
            let out = unsafe { out.write(at..at + n) };
            store(k, y, &m.bias[first..first + n], out, finish);
        }
    });
}

#[cfg(test)]
mod tests {
    use quant::codec::encode_row;
    use quant::kernels::Isa;
    use quant::{DType, Matrix};

    use super::*;

    /// Against sums over the weights as stored: rounding the activations is all that differs.
    #[test]
    fn close_to_the_stored_weights() {
        let (rows, cols, features) = (37, 96, 70);
        let noise = |i: usize| ((i * 7919 + 13) % 2003) as f32 / 1001.5 - 1.0;
        let x: Vec<f32> = (0..rows * cols).map(|i| noise(i * i % 9973)).collect();
        let w: Vec<f32> = (0..features * cols).map(|i| noise(i * 31 % 8191) * 0.1).collect();
        let bias: Vec<f32> = (0..features).map(noise).collect();
        let mut bytes = vec![0; DType::Q8_0.row_bytes(w.len()).unwrap()];
        encode_row(DType::Q8_0, &w, &mut bytes);
        let mut stored = vec![0.0; w.len()];
        quant::codec::decode_row(DType::Q8_0, &bytes, &mut stored);
        let ld = features + 5;
        for isa in Isa::available() {
            let k = Kernels::for_isa(isa).unwrap();
            let mut acts = Quantized::new(rows, cols).unwrap();
            acts.fill(&k, |r, out| out.copy_from_slice(&x[r * cols..][..cols]));
            let mut out = SharedBuf::zeroed(rows * ld).unwrap();
            let w = Matrix::new(DType::Q8_0, features, cols, &bytes).unwrap();
            let product = Product { w, bias: &bias, column: 5 };
            matmul(&k, &[product], &acts, &out, ld, Finish::Set);
            let y = out.get();
            for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact(ld)) {
                assert!(y[..5].iter().all(|v| *v == 0.0));
                for (r, y) in y[5..].iter().enumerate() {
                    let terms = || stored[r * cols..].iter().zip(x).map(|(w, x)| w * x);
                    let want = terms().sum::<f32>() + bias[r];
                    // Each activation is off by 1/254 of its block's largest at most.
                    let size: f32 = stored[r * cols..][..cols].iter().map(|w| w.abs()).sum();
                    assert!((y - want).abs() < size / 254.0 * 1.01 + 1e-5, "{isa}: {y} {want}");
                }
            }
        }
    }
}
