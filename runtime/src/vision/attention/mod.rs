//! Attention of every patch to every patch, without ever holding more scores than one block's
//! (FlashAttention, Dao et al. 2022).
//!
//! Queries lie in lanes: a strip of `PANEL` of them is the panel of both products. The first
//! multiplies it with keys, [`softmax`](super::softmax) turns the scores into a panel of weights
//! in place, and the second multiplies that with the features of the values. Maxima and sums are
//! then taken lane by lane, and nothing is transposed on the way.

use quant::kernels::Kernels;
use quant::kernels::fixed::{Blocks, FixedJob, PANEL, TILE};
use rayon::prelude::*;

use super::memory::reserve;
use super::softmax::{Running, Weights, softmax};
use crate::cpu::shared::SharedBuf;
use crate::error::RuntimeError;

/// Keys in a block: whole tiles, and an even number.
const KEYS: usize = 12 * TILE;

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

    /// One block is a head's features.
    fn key_blocks(self) -> Blocks {
        Blocks::of(self.head_dim, self.head_dim)
    }

    fn value_blocks(self) -> Blocks {
        Blocks { len: KEYS, count: self.rows.div_ceil(KEYS) }
    }
}

/// A head's keys and values in fixed point.
struct Head {
    /// Tiles of keys.
    k: Vec<i16>,
    k_scale: Vec<f32>,
    /// Tiles of features, blocks of keys.
    v: Vec<i16>,
    v_scale: Vec<f32>,
}

/// out = softmax(q · kᵀ / √head_dim) · v for each head. `qkv` is `[rows, 3 · hidden]`, q, k and v side
/// by side, `out` `[rows, hidden]`.
pub(super) fn attention(
    k: &Kernels,
    shape: Shape,
    qkv: &[f32],
    out: &SharedBuf<f32>,
) -> Result<(), RuntimeError> {
    let heads: Vec<Head> = (0..shape.heads)
        .into_par_iter()
        .map(|head| Head::new(k, shape, qkv, head))
        .collect::<Result<_, _>>()?;
    let strips = shape.rows.div_ceil(PANEL);
    (0..shape.heads * strips).into_par_iter().for_each_init(
        || Strip::new(shape),
        |strip, item| {
            let (head, first) = (item / strips, item % strips * PANEL);
            strip.run(k, qkv, head, first, &heads[head]);
            strip.store(head, first, out);
        },
    );
    Ok(())
}

impl Head {
    fn new(k: &Kernels, shape: Shape, qkv: &[f32], head: usize) -> Result<Self, RuntimeError> {
        let (ld, hd) = (3 * shape.hidden(), shape.head_dim);
        let (kb, vb) = (shape.key_blocks(), shape.value_blocks());
        let (key_tiles, feature_tiles) = (shape.rows.div_ceil(TILE), hd.div_ceil(TILE));
        let mut this = Head {
            k: reserve(key_tiles * kb.words(TILE))?,
            k_scale: reserve(key_tiles * TILE)?,
            v: reserve(feature_tiles * vb.words(TILE))?,
            v_scale: reserve(feature_tiles * vb.scales(TILE))?,
        };
        let tiles = this.k.chunks_exact_mut(kb.words(TILE)).zip(this.k_scale.chunks_mut(TILE));
        for (tile, (q, scale)) in tiles.enumerate() {
            let first = tile * TILE;
            let x = &qkv[first * ld + shape.hidden() + head * hd..];
            k.pack_fixed(x, ld, hd, TILE.min(shape.rows - first), TILE, q, scale);
        }
        let mut columns = vec![0.0; hd * KEYS];
        for b in 0..vb.count {
            let first = b * KEYS;
            let n = KEYS.min(shape.rows - first);
            for i in 0..n {
                let from = (first + i) * ld + 2 * shape.hidden() + head * hd;
                for (d, v) in qkv[from..from + hd].iter().enumerate() {
                    columns[d * KEYS + i] = *v;
                }
            }
            for tile in 0..feature_tiles {
                let (rows, at) = (TILE.min(hd - tile * TILE), tile * vb.count + b);
                let q = &mut this.v[at * KEYS * TILE..][..KEYS * TILE];
                let scale = &mut this.v_scale[at * TILE..][..TILE];
                k.pack_fixed(&columns[tile * TILE * KEYS..], KEYS, n, rows, TILE, q, scale);
            }
        }
        Ok(this)
    }
}

/// A strip of queries, and scratch.
struct Strip {
    shape: Shape,
    q: Vec<i16>,
    q_scale: [f32; PANEL],
    /// `[KEYS][PANEL]`
    scores: Vec<f32>,
    weights: Vec<i16>,
    running: Running,
    /// `[head_dim][PANEL]`: Σ weight · value.
    acc: Vec<f32>,
}

impl Strip {
    fn new(shape: Shape) -> Self {
        Strip {
            shape,
            q: vec![0; shape.key_blocks().words(PANEL)],
            q_scale: [0.0; PANEL],
            scores: vec![0.0; KEYS * PANEL],
            weights: vec![0; KEYS * PANEL],
            running: Running::new(),
            acc: vec![0.0; shape.head_dim * PANEL],
        }
    }

    /// Goes over all keys of a head for the queries from `first` on.
    fn run(&mut self, k: &Kernels, qkv: &[f32], head: usize, first: usize, kv: &Head) {
        let Shape { rows, head_dim: hd, .. } = self.shape;
        let (ld, kb, vb) =
            (3 * self.shape.hidden(), self.shape.key_blocks(), self.shape.value_blocks());
        let x = &qkv[first * ld + head * hd..];
        let queries = PANEL.min(rows - first);
        k.pack_fixed(x, ld, hd, queries, PANEL, &mut self.q, &mut self.q_scale);
        // The softmax works in powers of 2.
        let scale = std::f32::consts::LOG2_E / (hd as f32).sqrt();
        self.q_scale.iter_mut().for_each(|s| *s *= scale);
        self.running = Running::new();
        self.acc.fill(0.0);
        for b in 0..vb.count {
            let (from, n) = (b * KEYS, KEYS.min(rows - b * KEYS));
            let keys = FixedJob {
                blocks: kb,
                panel: &self.q,
                panel_scale: &self.q_scale,
                tiles: &kv.k[from / TILE * kb.words(TILE)..],
                tile_scale: &kv.k_scale[from..],
                tile_blocks: 1,
                rows: n,
            };
            k.multiply_fixed(&keys, &mut self.scores, PANEL, false);
            self.scores[n * PANEL..].fill(f32::NEG_INFINITY);
            let (mut scale, mut shrink) = ([0.0; PANEL], [0.0; PANEL]);
            let weights = Weights { q: &mut self.weights, scale: &mut scale, shrink: &mut shrink };
            softmax(k, &mut self.scores, &mut self.running, weights);
            if shrink != [1.0; PANEL] {
                for acc in self.acc.as_chunks_mut::<PANEL>().0 {
                    for (acc, shrink) in acc.iter_mut().zip(&shrink) {
                        *acc *= shrink;
                    }
                }
            }
            let values = FixedJob {
                blocks: Blocks { len: KEYS, count: 1 },
                panel: &self.weights,
                panel_scale: &scale,
                tiles: &kv.v[b * KEYS * TILE..],
                tile_scale: &kv.v_scale[b * TILE..],
                tile_blocks: vb.count,
                rows: hd,
            };
            k.multiply_fixed(&values, &mut self.acc, PANEL, true);
        }
    }

    /// Writes the strip's outcome.
    fn store(&self, head: usize, first: usize, out: &SharedBuf<f32>) {
        let Shape { rows, head_dim: hd, .. } = self.shape;
        for i in 0..PANEL.min(rows - first) {
            let at = (first + i) * self.shape.hidden() + head * hd;
            // SAFETY: these rows and this head belong to the item that this strip is, and nobody
            // reads `out` before all are done.
            let out = unsafe { out.write(at..at + hd) };
            let inverse = 1.0 / self.running.sum[i];
            for (out, acc) in out.iter_mut().zip(self.acc.chunks_exact(PANEL)) {
                *out = acc[i] * inverse;
            }
        }
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
                    let qkv: Vec<f32> =
                        (0..rows * ld).map(|i| noise(i * i % 7001) * size).collect();
                    let mut out = SharedBuf::zeroed(rows * shape.hidden()).unwrap();
                    attention(&k, shape, &qkv, &out).unwrap();
                    let want = naive(shape, &qkv);
                    let got = out.get();
                    // Scores are off by 2e-4 of their size, which is size² √head_dim / 3 at most
                    // some standard deviations out; values and weights by 1e-4.
                    let bound = f64::from(size) * (1e-3 + 3e-4 * f64::from(size * size));
                    for (got, want) in got.iter().zip(&want) {
                        let error = (f64::from(*got) - want).abs();
                        assert!(error < bound, "{isa} {rows} {head_dim} {size}: {error}");
                    }
                }
            }
        }
    }
}
