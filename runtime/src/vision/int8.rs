//! Rows in int8 blocks of 32, as matrices of block formats take them: half the arithmetic of fixed
//! point, at the rounding that quantized text models live with.

use quant::codec::{FastCodec, QK};
use quant::kernels::{Kernels, Rows};
use quant::{DType, Matrix};
use rayon::prelude::*;

use super::memory::reserve;
use crate::error::RuntimeError;

/// Rows that are quantized at a time.
const CHUNK: usize = 16;

/// Rows of activations in int8 blocks of 32, the last one filled up with zeros.
pub(super) struct Quantized {
    rows: usize,
    /// Features of a row.
    depth: usize,
    /// The same in whole blocks.
    cols: usize,
    q: Vec<i8>,
    scale: Vec<f32>,
    sum: Vec<i32>,
}

impl Quantized {
    /// Room for rows of `depth` features.
    pub(super) fn new(rows: usize, depth: usize) -> Result<Self, RuntimeError> {
        let cols = depth.next_multiple_of(QK);
        let len = rows.saturating_mul(cols);
        Ok(Quantized {
            rows,
            depth,
            cols,
            q: reserve(len)?,
            scale: reserve(len / QK)?,
            sum: reserve(len / QK)?,
        })
    }

    /// Fills in all rows; `row(r, out)` says what row `r` is.
    pub(super) fn fill(&mut self, k: &Kernels, row: impl Fn(usize, &mut [f32]) + Sync) {
        let (depth, cols, blocks) = (self.depth, self.cols, self.cols / QK);
        let scales = self.scale.par_chunks_mut(CHUNK * blocks);
        let sums = self.sum.par_chunks_mut(CHUNK * blocks);
        self.q.par_chunks_mut(CHUNK * cols).zip(scales).zip(sums).enumerate().for_each_init(
            || vec![0.0; cols],
            |x, (chunk, ((q, scale), sum))| {
                let rows = q.chunks_exact_mut(cols).zip(scale.chunks_exact_mut(blocks));
                for (r, ((q, scale), sum)) in rows.zip(sum.chunks_exact_mut(blocks)).enumerate() {
                    row(chunk * CHUNK + r, &mut x[..depth]);
                    k.quantize(x, q, scale, sum);
                }
            },
        );
    }

    /// As kernels read them.
    pub(super) fn rows(&self) -> Rows<'_> {
        let Quantized { rows: n, cols, .. } = *self;
        Rows { n, cols, q: &self.q, scale: &self.scale, sum: &self.sum, ..Rows::default() }
    }
}

/// A float matrix in Q8_0, its rows filled up to whole blocks with zeros. Files cannot hold such rows
/// in blocks, and keep them in f16 beside matrices of a block format. One layer's at a time.
pub(super) struct Padded {
    rows: usize,
    cols: usize,
    bytes: Vec<u8>,
}

impl Padded {
    /// Room for a matrix.
    pub(super) fn new(rows: usize, depth: usize) -> Result<Self, RuntimeError> {
        let cols = depth.next_multiple_of(QK);
        let len = DType::Q8_0.row_bytes(cols).and_then(|row| row.checked_mul(rows));
        Ok(Padded { rows, cols, bytes: reserve(len.unwrap_or(usize::MAX))? })
    }

    /// Takes a matrix in, and gives it back in blocks.
    pub(super) fn fill(&mut self, w: Matrix<'_>) -> Matrix<'_> {
        assert!(w.rows() == self.rows && w.cols().next_multiple_of(QK) == self.cols);
        let (cols, codec) = (self.cols, FastCodec::detect());
        let row_bytes = self.bytes.len() / self.rows;
        self.bytes.par_chunks_mut(CHUNK * row_bytes).enumerate().for_each_init(
            || vec![0.0; cols],
            |x, (chunk, out)| {
                for (r, out) in out.chunks_exact_mut(row_bytes).enumerate() {
                    codec.decode(w.dtype(), w.row(chunk * CHUNK + r), &mut x[..w.cols()]);
                    codec.encode(DType::Q8_0, x, out);
                }
            },
        );
        Matrix::new(DType::Q8_0, self.rows, cols, &self.bytes).expect("made with these dimensions")
    }
}

#[cfg(test)]
mod tests {
    use quant::codec::decode_row;
    use quant::kernels::Isa;

    use super::super::batched::matmul;
    use super::super::linear::{Finish, Product};
    use super::super::workers::Workers;
    use super::*;
    use crate::cpu::shared::SharedBuf;

    /// Against sums over the weights as stored: rounding the activations is all that differs. Whole
    /// blocks and others; one batch and several.
    #[test]
    fn close_to_the_stored_weights() {
        for (rows, cols, features) in [(37, 96, 70), (515, 72, 33)] {
            let noise = |i: usize| ((i * 7919 + 13) % 2003) as f32 / 1001.5 - 1.0;
            let x: Vec<f32> = (0..rows * cols).map(|i| noise(i * i % 9973)).collect();
            let w: Vec<f32> = (0..features * cols).map(|i| noise(i * 31 % 8191) * 0.1).collect();
            let bias: Vec<f32> = (0..features).map(noise).collect();
            let mut padded = Padded::new(features, cols).unwrap();
            let floats = bytemuck::cast_slice(&w);
            let w = padded.fill(Matrix::new(DType::F32, features, cols, floats).unwrap());
            let mut stored = vec![0.0; features * w.cols()];
            decode_row(DType::Q8_0, w.data(), &mut stored);
            let ld = features + 5;
            for isa in Isa::available() {
                let k = Kernels::for_isa(isa).unwrap();
                let mut acts = Quantized::new(rows, cols).unwrap();
                acts.fill(&k, |r, out| out.copy_from_slice(&x[r * cols..][..cols]));
                let mut out = SharedBuf::zeroed(rows * ld).unwrap();
                let product = Product { w, bias: &bias, column: 5 };
                let workers = Workers::new();
                matmul(&k, &workers, &[product], acts.rows(), &out, ld, Finish::Set);
                let y = out.get();
                for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact(ld)) {
                    assert!(y[..5].iter().all(|v| *v == 0.0));
                    for (r, y) in y[5..].iter().enumerate() {
                        let stored = &stored[r * w.cols()..][..w.cols()];
                        let terms = stored.iter().zip(x).map(|(w, x)| w * x);
                        let want = terms.sum::<f32>() + bias[r];
                        // Each activation is off by 1/254 of its block's largest at most.
                        let size: f32 = stored.iter().map(|w| w.abs()).sum();
                        assert!((y - want).abs() < size / 254.0 * 1.01 + 1e-5, "{isa}: {y} {want}");
                    }
                }
            }
        }
    }
}
