//! Matmuls through the kernels of the text model: f32 activations for float weights, int8 ones for
//! block formats.

use quant::codec::QK;
use quant::kernels::{Kernels, Rows};
use rayon::prelude::*;

use super::linear::{Finish, Product, store};
use super::workers::Workers;
use crate::cpu::shared::SharedBuf;

/// Rows of activations that pass over the weights together. What a kernel lays out of them is laid out
/// once and stays in the caches while all weights are multiplied with it; unpacking the weights again
/// for every batch costs a hundredth of that.
const BATCH: usize = 512;
/// Weight rows that a thread multiplies at a time: results that stay in the second-level cache.
const PART: usize = 64;

/// A piece of work: some rows of a matrix, a batch of activations.
struct Item<'a> {
    product: Product<'a>,
    first: usize,
    batch: usize,
}

/// out[t][column + r] = finish(x[t] · w[r] + bias[r]) for every matrix. Rows of `out` are `ld` long.
pub(super) fn matmul(
    k: &Kernels,
    workers: &Workers,
    matrices: &[Product<'_>],
    x: Rows<'_>,
    out: &SharedBuf<f32>,
    ld: usize,
    finish: Finish,
) {
    let batches = x.n.div_ceil(BATCH);
    let fits = |m: &Product<'_>| m.column + m.w.rows() <= ld && m.w.cols() == x.cols;
    assert!(matrices.iter().all(fits));
    let mut items = Vec::new();
    for batch in 0..batches {
        for &product in matrices {
            let parts = (0..product.w.rows()).step_by(PART);
            items.extend(parts.map(|first| Item { product, first, batch }));
        }
    }
    let input = workers.inputs(batches);
    // In order: a thread's next item is mostly one of the same batch.
    items.par_iter().for_each(|item| {
        let Product { w, bias, column } = item.product;
        let (t0, first) = (item.batch * BATCH, item.first);
        let (rows, n) = (batch(x, t0), PART.min(w.rows() - first));
        let own = &mut *workers.own();
        own.y.resize(own.y.len().max(BATCH * PART), 0.0);
        own.kernels.set_input(input + item.batch as u64);
        k.matmul(w, first..first + n, rows, &mut own.y, n, &mut own.kernels);
        for (t, y) in own.y.chunks_exact_mut(n).enumerate().take(rows.n) {
            let at = (t0 + t) * ld + column + first;
            // SAFETY: these columns of these rows belong to this item, and each item to one thread;
            // nobody reads `out` before all are done.
            let out = unsafe { out.write(at..at + n) };
            store(k, y, &bias[first..first + n], out, finish);
        }
    });
}

/// At most `BATCH` rows from `t0` on.
fn batch(x: Rows<'_>, t0: usize) -> Rows<'_> {
    let n = BATCH.min(x.n - t0);
    // Of one of the two kinds there is nothing.
    fn part<T>(all: &[T], first: usize, n: usize) -> &[T] {
        if all.is_empty() { all } else { &all[first..first + n] }
    }
    let blocks = x.cols / QK;
    Rows {
        n,
        cols: x.cols,
        x: part(x.x, t0 * x.cols, n * x.cols),
        q: part(x.q, t0 * x.cols, n * x.cols),
        scale: part(x.scale, t0 * blocks, n * blocks),
        sum: part(x.sum, t0 * blocks, n * blocks),
        packed: None,
    }
}
