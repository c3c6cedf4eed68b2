//! Matmuls over all patches of an image.

use quant::Matrix;
use quant::codec::FastCodec;
use quant::kernels::Kernels;
use quant::kernels::fixed::{Blocks, FixedJob, PANEL, TILE};
use rayon::prelude::*;

use super::memory::reserve;
use crate::aligned::Aligned;
use crate::cpu::ops;
use crate::cpu::shared::SharedBuf;
use crate::error::RuntimeError;

/// Values of a row that share a scale, at most: few enough that rounding is 1e-4 of their size.
const BLOCK: usize = 192;
/// Rows multiplied with a strip of weights before what is done with the results: as many as leave
/// these in the first-level cache.
const CHUNK: usize = 8 * TILE;

/// Rows of activations as the matmuls read them: tiles of 16-bit fixed point.
pub(super) struct Packed {
    rows: usize,
    depth: usize,
    blocks: Blocks,
    q: Vec<i16>,
    scale: Vec<f32>,
}

impl Packed {
    /// Room for rows of `depth` features.
    pub(super) fn new(rows: usize, depth: usize) -> Result<Self, RuntimeError> {
        let blocks = Blocks::of(depth, BLOCK);
        let tiles = rows.div_ceil(TILE);
        let q = reserve(tiles.saturating_mul(blocks.words(TILE)))?;
        Ok(Packed { rows, depth, blocks, q, scale: reserve(tiles * blocks.scales(TILE))? })
    }

    /// Fills in all rows; `row(r, out)` says what row `r` is.
    pub(super) fn fill(&mut self, k: &Kernels, row: impl Fn(usize, &mut [f32]) + Sync) {
        let Packed { rows, depth, blocks, .. } = *self;
        let tiles = self.q.par_chunks_mut(blocks.words(TILE));
        tiles.zip(self.scale.par_chunks_mut(blocks.scales(TILE))).enumerate().for_each_init(
            || vec![0.0; TILE * depth],
            |x, (tile, (q, scale))| {
                let first = tile * TILE;
                let n = TILE.min(rows - first);
                for (r, x) in x.chunks_exact_mut(depth).enumerate().take(n) {
                    row(first + r, x);
                }
                pack(k, x, depth, n, TILE, blocks, q, scale);
            },
        );
    }
}

/// Packs all blocks of a group of rows.
#[allow(clippy::too_many_arguments)]
fn pack(
    k: &Kernels,
    x: &[f32],
    depth: usize,
    rows: usize,
    group: usize,
    blocks: Blocks,
    q: &mut [i16],
    scale: &mut [f32],
) {
    let parts = q.chunks_exact_mut(blocks.len * group).zip(scale.chunks_exact_mut(group));
    for (b, (q, scale)) in parts.enumerate() {
        let at = (b * blocks.len).min(depth);
        k.pack_fixed(&x[at..], depth, blocks.len.min(depth - at), rows, group, q, scale);
    }
}

/// What becomes of a product.
#[derive(Clone, Copy)]
pub(super) enum Finish {
    /// out = y + bias
    Set,
    /// out = GELU(y + bias)
    Gelu,
    /// out += y + bias
    Add,
}

/// A matrix to multiply with, its bias, and the column of the output where its features begin.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) w: Matrix<'a>,
    pub(super) bias: &'a [f32],
    pub(super) column: usize,
}

/// Scratch of one thread.
struct Scratch {
    decoded: Vec<f32>,
    q: Aligned<i16>,
    scale: Vec<f32>,
    y: Aligned<f32>,
    codec: FastCodec,
}

/// out[t][column + r] = finish(x[t] · w[r] + bias[r]) for every matrix. Rows of `out` are `ld` long.
///
/// Threads take strips of weight rows: decoded and packed once, then multiplied with all rows of `x`.
pub(super) fn matmul(
    k: &Kernels,
    matrices: &[Product<'_>],
    x: &Packed,
    out: &SharedBuf<f32>,
    ld: usize,
    finish: Finish,
) {
    let strips: Vec<(Product<'_>, usize)> = matrices
        .iter()
        .flat_map(|&m| (0..m.w.rows()).step_by(PANEL).map(move |first| (m, first)))
        .collect();
    assert!(matrices.iter().all(|m| m.column + m.w.rows() <= ld && m.w.cols() == x.depth));
    let scratch = || Scratch {
        decoded: vec![0.0; PANEL * x.depth],
        q: Aligned::zeros(x.blocks.words(PANEL)),
        scale: vec![0.0; x.blocks.scales(PANEL)],
        y: Aligned::zeros(CHUNK * PANEL),
        codec: FastCodec::detect(),
    };
    strips.into_par_iter().for_each_init(scratch, |s, (m, first)| {
        let n = PANEL.min(m.w.rows() - first);
        let rows = m.w.slice_rows(first, n);
        s.codec.decode(m.w.dtype(), rows.data(), &mut s.decoded[..n * x.depth]);
        pack(k, &s.decoded, x.depth, n, PANEL, x.blocks, &mut s.q, &mut s.scale);
        let bias = &m.bias[first..first + n];
        for t in (0..x.rows).step_by(CHUNK) {
            let count = CHUNK.min(x.rows - t);
            let job = FixedJob {
                blocks: x.blocks,
                panel: &s.q,
                panel_scale: &s.scale,
                tiles: &x.q[t / TILE * x.blocks.words(TILE)..],
                tile_scale: &x.scale[t / TILE * x.blocks.scales(TILE)..],
                tile_words: x.blocks.words(TILE),
                tile_scales: x.blocks.scales(TILE),
                rows: count,
            };
            k.multiply_fixed(&job, &mut s.y, PANEL, false);
            for (i, y) in s.y.chunks_exact_mut(PANEL).enumerate().take(count) {
                let at = (t + i) * ld + m.column + first;
                // SAFETY: these columns belong to this strip, and each strip to one thread; nobody
                // reads `out` before all are done.
                let out = unsafe { out.write(at..at + n) };
                store(k, &mut y[..n], bias, out, finish);
            }
        }
    });
}

/// Puts a finished row of a product where it belongs.
pub(super) fn store(k: &Kernels, y: &mut [f32], bias: &[f32], out: &mut [f32], finish: Finish) {
    match finish {
        Finish::Set => {
            for ((o, y), b) in out.iter_mut().zip(y).zip(bias) {
                *o = *y + b;
            }
        }
        Finish::Add => {
            for ((o, y), b) in out.iter_mut().zip(y).zip(bias) {
                *o += *y + b;
            }
        }
        Finish::Gelu => {
            ops::add_gelu(k, y, bias);
            out.copy_from_slice(y);
        }
    }
}
