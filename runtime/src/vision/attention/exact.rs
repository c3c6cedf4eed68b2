//! Attention in f32, some queries and all keys at a time.

use quant::kernels::{Kernels, Rows, Scratch};
use quant::{DType, Matrix};
use rayon::prelude::*;

use super::super::memory::reserve;
use super::Shape;
use crate::cpu::attention::softmax::softmax_row;
use crate::cpu::shared::SharedBuf;
use crate::error::RuntimeError;

/// Queries at a time.
const QUERIES: usize = 32;

/// A head's keys, `[rows, head_dim]`, and values the other way round, `[head_dim, rows]`.
struct Head {
    k: Vec<f32>,
    v: Vec<f32>,
}

/// Scratch of a thread.
#[derive(Default)]
struct Own {
    q: Vec<f32>,
    /// `[QUERIES, rows]`
    weights: Vec<f32>,
    /// `[QUERIES, head_dim]`
    y: Vec<f32>,
    scratch: Scratch,
}

pub(super) fn attention(
    k: &Kernels,
    shape: Shape,
    qkv: &[f32],
    out: &SharedBuf<f32>,
) -> Result<(), RuntimeError> {
    let Shape { rows, head_dim: hd, .. } = shape;
    let ld = 3 * shape.hidden();
    let heads: Vec<Head> = (0..shape.heads)
        .into_par_iter()
        .map(|head| Head::new(shape, qkv, head))
        .collect::<Result<_, _>>()?;
    let strips = rows.div_ceil(QUERIES);
    (0..shape.heads * strips).into_par_iter().for_each_init(Own::default, |own, item| {
        let (head, first) = (item / strips, item % strips * QUERIES);
        let n = QUERIES.min(rows - first);
        let scale = 1.0 / (hd as f32).sqrt();
        own.q.clear();
        for i in 0..n {
            let q = &qkv[(first + i) * ld + head * hd..][..hd];
            own.q.extend(q.iter().map(|v| v * scale));
        }
        own.weights.resize(n * rows, 0.0);
        own.y.resize(n * hd, 0.0);
        let Head { k: keys, v } = &heads[head];
        multiply(k, keys, rows, &own.q, &mut own.weights, &mut own.scratch);
        let sums: [f32; QUERIES] = std::array::from_fn(|i| {
            if i < n { softmax_row(k, &mut own.weights[i * rows..][..rows]) } else { 1.0 }
        });
        multiply(k, v, hd, &own.weights, &mut own.y, &mut own.scratch);
        for (i, y) in own.y.chunks_exact(hd).enumerate() {
            let at = (first + i) * shape.hidden() + head * hd;
            // SAFETY: these rows and this head belong to this item, and nobody reads `out` before
            // all are done.
            let out = unsafe { out.write(at..at + hd) };
            out.iter_mut().zip(y).for_each(|(out, y)| *out = y / sums[i]);
        }
    });
    Ok(())
}

impl Head {
    fn new(shape: Shape, qkv: &[f32], head: usize) -> Result<Self, RuntimeError> {
        let Shape { rows, head_dim: hd, .. } = shape;
        let mut this = Head { k: reserve(rows * hd)?, v: reserve(rows * hd)? };
        for (row, x) in qkv.chunks_exact(3 * shape.hidden()).enumerate().take(rows) {
            let part = |i: usize| &x[i * shape.hidden() + head * hd..][..hd];
            this.k[row * hd..][..hd].copy_from_slice(part(1));
            for (d, v) in part(2).iter().enumerate() {
                this.v[d * rows + row] = *v;
            }
        }
        Ok(this)
    }
}

/// y = x · wᵀ, `w` of `rows` rows.
fn multiply(k: &Kernels, w: &[f32], rows: usize, x: &[f32], y: &mut [f32], scratch: &mut Scratch) {
    let cols = w.len() / rows;
    let w = Matrix::new(DType::F32, rows, cols, bytemuck::cast_slice(w)).expect("whole rows");
    let x = Rows { n: x.len() / cols, cols, x, ..Rows::default() };
    k.matmul(w, 0..rows, x, y, rows, scratch);
}
