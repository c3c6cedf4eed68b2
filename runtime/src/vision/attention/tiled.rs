//! One block of keys at a time (FlashAttention, Dao et al. 2022), over numbers that are cheap to
//! multiply.
//!
//! Queries lie in lanes: a strip of `PANEL` of them is the panel of both products. The first
//! multiplies it with keys, [`softmax`](crate::cpu::attention::softmax) turns the scores into a panel of weights,
//! and the second multiplies that with the features of the values. Maxima and sums are then taken lane
//! by lane, and nothing is transposed on the way.
//!
//! Keys and values are taken without their means: a softmax does not see that something was taken from
//! every key, and what was taken from every value is the same in every weighted mean of them. What is
//! left is rounded more finely, and weights too small to be counted belong to values around zero.

use bytemuck::Pod;
use quant::kernels::Kernels;
use quant::kernels::fixed::{PANEL, TILE};
use rayon::prelude::*;

use super::super::memory::reserve;
use super::Shape;
use crate::aligned::Aligned;
use crate::cpu::attention::softmax::{self, Running, Weights};
use crate::cpu::shared::SharedBuf;
use crate::error::RuntimeError;

/// Keys in a block: whole tiles, and a multiple of 4.
const KEYS: usize = 12 * TILE;

/// Numbers that both products are made of.
pub(super) trait Form {
    /// One of a panel.
    type Panel: Pod + Send + Sync;
    /// One of a tile.
    type Tile: Copy + Default + Send + Sync;
    /// Values of a row that lie side by side.
    const TOGETHER: usize;

    /// Packs a panel: row `r` is `x[r * ld ..][.. n]`, and `q` has room for as many values of `PANEL`
    /// rows as it is long, the rest of which become zeros.
    fn pack_panel(k: &Kernels, rows: PackRows<'_>, q: &mut [Self::Panel], scale: &mut [f32; PANEL]);

    /// The same of a tile; `start` is what sums with a packed panel begin with.
    fn pack_tile(
        k: &Kernels,
        rows: PackRows<'_>,
        q: &mut [Self::Tile],
        scale: &mut [f32],
        start: &mut [i32],
    );

    /// Takes a block of scores in, and makes a panel of weights of it.
    fn softmax(
        k: &Kernels,
        scores: &mut [f32],
        running: &mut Running,
        weights: Weights<'_, Self::Panel>,
    );

    /// y[r][i] = tile row r · panel row i over `len` values, added to what is there if `add`.
    fn multiply(
        k: &Kernels,
        len: usize,
        panel: (&[Self::Panel], &[f32; PANEL]),
        tiles: Tiles<'_, Self::Tile>,
        y: &mut [f32],
        add: bool,
    );
}

/// Rows to be packed: `n` values of each of `count` rows, `ld` apart.
#[derive(Clone, Copy)]
pub(super) struct PackRows<'a> {
    pub(super) x: &'a [f32],
    pub(super) ld: usize,
    pub(super) n: usize,
    pub(super) count: usize,
}

/// Tiles of one block, `blocks` blocks from one to the next.
pub(super) struct Tiles<'a, T> {
    pub(super) q: &'a [T],
    pub(super) scale: &'a [f32],
    pub(super) start: &'a [i32],
    pub(super) blocks: usize,
    pub(super) rows: usize,
}

/// A head's keys and values.
struct Head<F: Form> {
    /// Tiles of keys.
    k: Vec<F::Tile>,
    k_scale: Vec<f32>,
    k_start: Vec<i32>,
    /// Tiles of features, blocks of keys.
    v: Vec<F::Tile>,
    v_scale: Vec<f32>,
    /// Weights are packed by the softmax: nothing is to be subtracted.
    v_start: Vec<i32>,
    /// `[head_dim]`
    v_mean: Vec<f32>,
}

pub(super) fn attention<F: Form>(
    k: &Kernels,
    shape: Shape,
    qkv: &[f32],
    out: &SharedBuf<f32>,
) -> Result<(), RuntimeError> {
    let heads: Vec<Head<F>> = (0..shape.heads)
        .into_par_iter()
        .map(|head| Head::new(k, shape, qkv, head))
        .collect::<Result<_, _>>()?;
    let strips = shape.rows.div_ceil(PANEL);
    (0..shape.heads * strips).into_par_iter().for_each_init(
        || Strip::new(shape),
        |strip, item| {
            let (head, first) = (item / strips, item % strips * PANEL);
            strip.run(k, qkv, head, first, &heads[head]);
            strip.store(head, first, &heads[head].v_mean, out);
        },
    );
    Ok(())
}

/// Values of a row as they are packed.
fn padded<F: Form>(head_dim: usize) -> usize {
    head_dim.next_multiple_of(F::TOGETHER)
}

fn blocks(shape: Shape) -> usize {
    shape.rows.div_ceil(KEYS)
}

impl<F: Form> Head<F> {
    fn new(k: &Kernels, shape: Shape, qkv: &[f32], head: usize) -> Result<Self, RuntimeError> {
        let (ld, hd, len) = (3 * shape.hidden(), shape.head_dim, padded::<F>(shape.head_dim));
        let (key_tiles, feature_tiles) = (shape.rows.div_ceil(TILE), hd.div_ceil(TILE));
        let blocks = blocks(shape);
        let part = |i: usize| &qkv[i * shape.hidden() + head * hd..];
        let v_scales = feature_tiles * blocks * TILE;
        let mut this = Head {
            k: reserve(key_tiles * len * TILE)?,
            k_scale: reserve(key_tiles * TILE)?,
            k_start: reserve(key_tiles * TILE)?,
            v: reserve(v_scales * KEYS)?,
            v_scale: reserve(v_scales)?,
            v_start: reserve(v_scales)?,
            v_mean: mean(part(2), ld, shape.rows, hd),
        };
        let k_mean = mean(part(1), ld, shape.rows, hd);
        let mut keys = vec![0.0; TILE * hd];
        for (tile, q) in this.k.chunks_exact_mut(len * TILE).enumerate() {
            let first = tile * TILE;
            let count = TILE.min(shape.rows - first);
            for (r, key) in keys.chunks_exact_mut(hd).enumerate().take(count) {
                let x = &part(1)[(first + r) * ld..][..hd];
                for ((key, x), mean) in key.iter_mut().zip(x).zip(&k_mean) {
                    *key = x - mean;
                }
            }
            let rows = PackRows { x: &keys, ld: hd, n: hd, count };
            let scale = &mut this.k_scale[first..first + TILE];
            F::pack_tile(k, rows, q, scale, &mut this.k_start[first..first + TILE]);
        }
        let (mut columns, mut nothing) = (vec![0.0; hd * KEYS], [0; TILE]);
        for b in 0..blocks {
            let first = b * KEYS;
            let n = KEYS.min(shape.rows - first);
            for i in 0..n {
                let x = &part(2)[(first + i) * ld..][..hd];
                for (d, (v, mean)) in x.iter().zip(&this.v_mean).enumerate() {
                    columns[d * KEYS + i] = v - mean;
                }
            }
            for tile in 0..feature_tiles {
                let (count, at) = (TILE.min(hd - tile * TILE), tile * blocks + b);
                let rows = PackRows { x: &columns[tile * TILE * KEYS..], ld: KEYS, n, count };
                let q = &mut this.v[at * KEYS * TILE..][..KEYS * TILE];
                let scale = &mut this.v_scale[at * TILE..][..TILE];
                F::pack_tile(k, rows, q, scale, &mut nothing);
            }
        }
        Ok(this)
    }
}

/// The mean of `rows` rows of `n` values, `ld` apart.
fn mean(x: &[f32], ld: usize, rows: usize, n: usize) -> Vec<f32> {
    let mut sum = vec![0.0; n];
    for row in 0..rows {
        for (sum, x) in sum.iter_mut().zip(&x[row * ld..][..n]) {
            *sum += x;
        }
    }
    sum.iter_mut().for_each(|s| *s /= rows as f32);
    sum
}

/// A strip of queries, and scratch.
struct Strip<F: Form> {
    shape: Shape,
    q: Aligned<F::Panel>,
    q_scale: [f32; PANEL],
    /// `[KEYS][PANEL]`
    scores: Aligned<f32>,
    weights: Aligned<F::Panel>,
    running: Running,
    /// `[head_dim][PANEL]`: Σ weight · value.
    acc: Aligned<f32>,
}

impl<F: Form> Strip<F> {
    fn new(shape: Shape) -> Self {
        Strip {
            shape,
            q: Aligned::zeros(padded::<F>(shape.head_dim) * PANEL),
            q_scale: [0.0; PANEL],
            scores: Aligned::zeros(KEYS * PANEL),
            weights: Aligned::zeros(KEYS * PANEL),
            running: Running::new(),
            acc: Aligned::zeros(shape.head_dim * PANEL),
        }
    }

    /// Goes over all keys of a head for the queries from `first` on.
    fn run(&mut self, k: &Kernels, qkv: &[f32], head: usize, first: usize, kv: &Head<F>) {
        let Shape { rows, head_dim: hd, .. } = self.shape;
        let (ld, len) = (3 * self.shape.hidden(), padded::<F>(hd));
        let x = &qkv[first * ld + head * hd..];
        let queries = PackRows { x, ld, n: hd, count: PANEL.min(rows - first) };
        F::pack_panel(k, queries, &mut self.q, &mut self.q_scale);
        // The softmax works in powers of 2.
        let scale = std::f32::consts::LOG2_E / (hd as f32).sqrt();
        self.q_scale.iter_mut().for_each(|s| *s *= scale);
        self.running = Running::new();
        self.acc.fill(0.0);
        let blocks = blocks(self.shape);
        for b in 0..blocks {
            let (from, n) = (b * KEYS, KEYS.min(rows - b * KEYS));
            let keys = Tiles {
                q: &kv.k[from * len..],
                scale: &kv.k_scale[from..],
                start: &kv.k_start[from..],
                blocks: 1,
                rows: n,
            };
            F::multiply(k, len, (&self.q, &self.q_scale), keys, &mut self.scores, false);
            self.scores[n * PANEL..].fill(f32::NEG_INFINITY);
            let (mut scale, mut shrink) = ([0.0; PANEL], [0.0; PANEL]);
            let weights = Weights { q: &mut self.weights, scale: &mut scale, shrink: &mut shrink };
            F::softmax(k, &mut self.scores, &mut self.running, weights);
            softmax::rescale(k, &mut self.acc, &shrink);
            let values = Tiles {
                q: &kv.v[b * KEYS * TILE..],
                scale: &kv.v_scale[b * TILE..],
                start: &kv.v_start[b * TILE..],
                blocks,
                rows: hd,
            };
            F::multiply(k, KEYS, (&self.weights, &scale), values, &mut self.acc, true);
        }
    }

    /// Writes the strip's outcome.
    fn store(&self, head: usize, first: usize, mean: &[f32], out: &SharedBuf<f32>) {
        let Shape { rows, head_dim: hd, .. } = self.shape;
        for i in 0..PANEL.min(rows - first) {
            let at = (first + i) * self.shape.hidden() + head * hd;
            // SAFETY: these rows and this head belong to the item that this strip is, and nobody
            // reads `out` before all are done.
            let out = unsafe { out.write(at..at + hd) };
            let inverse = 1.0 / self.running.sum[i];
            for ((out, acc), mean) in out.iter_mut().zip(self.acc.chunks_exact(PANEL)).zip(mean) {
                *out = acc[i] * inverse + mean;
            }
        }
    }
}
