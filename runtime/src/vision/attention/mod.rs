//! Attention of every patch to every patch, without ever holding more scores than some queries'.
//!
//! [`tiled`]: in integers, one block of keys at a time. [`exact`]: in f32.

mod bytes;
mod exact;
mod fixed;
mod tiled;

use quant::kernels::Kernels;

use crate::cpu::shared::SharedBuf;
use crate::error::RuntimeError;

/// Shapes of an attention without mask.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Rows that attend to each other.
    pub(super) rows: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
}

impl Shape {
    fn hidden(self) -> usize {
        self.heads * self.head_dim
    }
}

/// What the two products are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    /// f32.
    Exact,
    /// 16-bit fixed point.
    Fixed,
    /// 8 bits.
    Bytes,
}

/// out = softmax(q · kᵀ / √head_dim) · v for each head. `qkv` is `[rows, 3 · hidden]`, q, k and v side
/// by side, `out` `[rows, hidden]`.
pub(super) fn attention(
    k: &Kernels,
    numbers: Numbers,
    shape: Shape,
    qkv: &[f32],
    out: &SharedBuf<f32>,
) -> Result<(), RuntimeError> {
    match numbers {
        Numbers::Exact => exact::attention(k, shape, qkv, out),
        Numbers::Fixed => tiled::attention::<fixed::Fixed>(k, shape, qkv, out),
        Numbers::Bytes => tiled::attention::<bytes::Bytes>(k, shape, qkv, out),
    }
}

#[cfg(test)]
mod tests {
    use quant::kernels::Isa;

    use super::*;

    /// Softmax attention in f64, all at once.
    fn naive(shape: Shape, qkv: &[f32]) -> Vec<f64> {
        let (h, hd, ld) = (shape.hidden(), shape.head_dim, 3 * shape.hidden());
        let at =
            |row: usize, part: usize, head: usize| &qkv[row * ld + part * h + head * hd..][..hd];
        let mut out = vec![0.0; shape.rows * h];
        for (row, out) in out.chunks_exact_mut(h).enumerate() {
            for (head, out) in out.chunks_exact_mut(hd).enumerate() {
                let q = at(row, 0, head);
                let dot = |k: &[f32]| -> f64 {
                    q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                let s: Vec<f64> =
                    (0..shape.rows).map(|j| dot(at(j, 1, head)) / (hd as f64).sqrt()).collect();
                let max = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = s.iter().map(|s| (s - max).exp()).sum();
                for (j, s) in s.iter().enumerate() {
                    let w = (s - max).exp() / total;
                    for (o, v) in out.iter_mut().zip(at(j, 2, head)) {
                        *o += w * f64::from(*v);
                    }
                }
            }
        }
        out
    }

    /// Flat and peaked attention (scores up to 60 and more), few rows and several blocks.
    #[test]
    fn matches_plain_softmax() {
        for isa in Isa::available() {
            let k = Kernels::for_isa(isa).unwrap();
            for (rows, heads, head_dim) in [(1, 1, 16), (64, 3, 16), (33, 2, 13), (400, 1, 72)] {
                for size in [0.5, 5.0] {
                    let shape = Shape { rows, heads, head_dim };
                    let noise = |i: usize| ((i * 7919 + 104_729) % 2003) as f32 / 1001.5 - 1.0;
                    let ld = 3 * shape.hidden();
                    // Keys and values all lie a little to one side.
                    let qkv: Vec<f32> =
                        (0..rows * ld).map(|i| (noise(i * i % 7001) + 0.2) * size).collect();
                    let want = naive(shape, &qkv);
                    // Scores of a size of size² √head_dim / 3 are off by so much of it; values and
                    // weights by the same.
                    for (numbers, unit) in
                        [(Numbers::Exact, 2e-6), (Numbers::Fixed, 3e-4), (Numbers::Bytes, 1.5e-2)]
                    {
                        let mut out = SharedBuf::zeroed(rows * shape.hidden()).unwrap();
                        attention(&k, numbers, shape, &qkv, &out).unwrap();
                        let bound = f64::from(size) * unit * (3.0 + f64::from(size * size));
                        for (got, want) in out.get().iter().zip(&want) {
                            let error = (f64::from(*got) - want).abs();
                            assert!(
                                error < bound,
                                "{isa} {numbers:?} {rows} {head_dim} {size}: {error}"
                            );
                        }
                    }
                }
            }
        }
    }
}
