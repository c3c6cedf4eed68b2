//! One thread's part of a forward pass.
//!
//! Every thread runs the same operations in the same order. Matmuls split their output features:
//! threads claim chunks of rows from a counter, so that a faster core takes more of them. Row
//! operations (norms, quantization) are either computed by every thread for itself (small batches)
//! or split by rows (large ones); [`Worker::my_rows`] and [`Worker::sync_rows`] are that difference.
//!
//! SAFETY, for every access to a [`SharedBuf`] below. Between two barriers a shared buffer is
//! either only read, or written in ranges that belong to one thread: rows of `my_rows` when rows
//! are split, columns of a claimed chunk (claims are handed out once), items of a static split.
//! Each block says which. Private row buffers belong to their thread alone.

use std::ops::Range;

use quant::codec::{QK, decode_row};
use quant::kernels::{Input, Packing, Scratch, tiles};

use super::ahead::Between;
use super::attention::State;
use super::buffers::{RowBufs, packed_rows};
use super::claims::share;
use super::multiply::{CLAIM, WRITE_AHEAD};
use super::{Before, Cpu, SMALL, ops};
use crate::backend::Backend;
use crate::batch::Batch;
use crate::config::GemmaConfig;
use crate::kv_cache::KvCache;
use crate::weights::{Layer, WeightMatrix, Weights};

/// What a thread keeps from token to token.
pub(crate) struct ThreadState {
    /// Its own row buffers, for small batches.
    pub(crate) rows: RowBufs,
    pub(crate) scratch: Scratch,
    pub(crate) tile: Vec<f32>,
    pub(crate) tile2: Vec<f32>,
    pub(crate) attention: State,
    pub(crate) queries: Vec<f32>,
    pub(crate) visible: Vec<Range<usize>>,
}

/// What all threads of one pass look at.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    /// Counts up: no two passes of a backend have the same.
    pub(crate) number: u64,
    pub(crate) file: &'a [u8],
    pub(crate) config: &'a GemmaConfig,
    pub(crate) weights: &'a Weights,
    pub(crate) batch: &'a Batch,
    pub(crate) cache: &'a KvCache,
    /// `0..n`, the rows before `keep_wanted`.
    pub(crate) all_rows: &'a [usize],
    pub(crate) before: Before<'a>,
}

/// One thread in one pass.
pub(crate) struct Worker<'a> {
    pub(super) cpu: &'a Cpu,
    pub(super) pass: Pass<'a>,
    pub(super) index: usize,
    /// Are row operations split between the threads?
    pub(super) split: bool,
    pub(super) rows: &'a RowBufs,
    /// This thread's own, whatever `rows` are.
    own: &'a RowBufs,
    pub(super) scratch: &'a mut Scratch,
    /// How h, or a, was laid out for the tiles, if it was.
    pub(super) packing: Option<Packing>,
    /// The same of g.
    g_packing: Option<Packing>,
    pub(super) tile: &'a mut Vec<f32>,
    tile2: &'a mut Vec<f32>,
    pub(super) attention: &'a mut State,
    pub(super) queries: &'a mut Vec<f32>,
    pub(super) visible: &'a mut Vec<Range<usize>>,
    /// Which rows of the batch the buffers' rows stand for.
    pub(super) active: &'a [usize],
    /// Operations done that hand out claims: the index of the next counter.
    pub(super) claims: usize,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(
        cpu: &'a Cpu,
        pass: Pass<'a>,
        index: usize,
        state: &'a mut ThreadState,
    ) -> Self {
        let split = pass.batch.rows.len() > SMALL;
        Worker {
            cpu,
            pass,
            index,
            split,
            rows: if split { &cpu.batch_rows } else { &state.rows },
            own: &state.rows,
            scratch: &mut state.scratch,
            packing: None,
            g_packing: None,
            tile: &mut state.tile,
            tile2: &mut state.tile2,
            attention: &mut state.attention,
            queries: &mut state.queries,
            visible: &mut state.visible,
            active: pass.all_rows,
            claims: 0,
        }
    }

    /// The rows whose row operations this thread computes.
    pub(super) fn my_rows(&self) -> Range<usize> {
        let n = self.active.len();
        if !self.split {
            return 0..n;
        }
        let tiles = tiles(n, self.row_tile());
        let mine = self.share(tiles.len());
        let first = |i| tiles.clone().nth(i).map_or(n, |tile| tile.start);
        first(mine.start)..first(mine.end)
    }

    /// Rows that are not divided where rows are split: those of a tile, if there are enough of them for all
    /// threads.
    pub(super) fn row_tile(&self) -> usize {
        let tile = self.cpu.kernels.tile();
        if self.active.len().div_ceil(tile) < 2 * self.cpu.threads { 1 } else { tile }
    }

    /// The rows of `my_rows`, where rows are split: tile by tile, as matmuls of many rows have them.
    fn my_tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let tiles = tiles(self.active.len(), self.row_tile());
        let mine = self.share(tiles.len());
        tiles.skip(mine.start).take(mine.len())
    }

    /// This thread's share of `n` items.
    pub(super) fn share(&self, n: usize) -> Range<usize> {
        share(n, self.index, self.cpu.threads)
    }

    /// Waits until all rows of `my_rows` of all threads are there; needless where each thread
    /// computed all of them.
    fn sync_rows(&self) {
        if self.split {
            self.cpu.barrier.wait();
        }
    }

    /// What a residual and the norm after it read: the row, and these norms' weights.
    fn before_norms(&self, norms: &[&[f32]; 2]) -> Between {
        let x = self.rows.x.place(0..self.pass.config.hidden);
        Between::default().with(x).with(norms[0]).with(norms[1])
    }
}

fn wants_q8(readers: &[&WeightMatrix]) -> bool {
    readers.iter().any(|w| Input::of(w.dtype) == Input::Q8)
}

impl Backend for Worker<'_> {
    fn embed(&mut self) {
        let (c, w) = (self.pass.config, &self.pass.weights.embed);
        let tables = self.cpu.ropes.len();
        for item in self.share(self.active.len() * tables) {
            let (row, rope) = (item / tables, self.cpu.ropes[item % tables]);
            let at = (row * 2 + item % tables) * c.head_dim;
            // SAFETY: this row's table is this thread's item.
            let angles = unsafe { self.cpu.shared.angles.write(at..at + c.head_dim) };
            rope.angles(self.pass.batch.rows[row].pos, angles);
        }
        for t in self.my_rows() {
            // SAFETY: row t is this thread's.
            let x = unsafe { self.rows.x.write(t * c.hidden..(t + 1) * c.hidden) };
            if self.pass.before.layers > 0 {
                x.copy_from_slice(&self.pass.before.x[t * c.hidden..(t + 1) * c.hidden]);
                continue;
            }
            if let Some(features) = self.pass.batch.features(t) {
                x.copy_from_slice(features);
                continue;
            }
            let token = self.pass.batch.rows[t].token as usize;
            decode_row(w.dtype, self.view(w).row(token), x);
            x.iter_mut().for_each(|v| *v *= c.embed_scale);
        }
    }

    fn norm(&mut self, weight: &[f32], readers: &[&WeightMatrix]) {
        let d = self.pass.config.hidden;
        let quantize = wants_q8(readers);
        self.packing = self.packing(readers, d);
        if let Some(packing) = self.packing {
            for tile in self.my_tiles() {
                let place = packing.place(&tile, 0..d);
                // SAFETY: rows of the tile are this thread's, in x as below and in what is packed; the
                // first row of its own h is its own.
                let (h, out) =
                    unsafe { (self.own.h.write(0..d), self.cpu.shared.packed.write(place)) };
                let kernels = &self.cpu.kernels;
                for (i, &row) in self.active[tile.clone()].iter().enumerate() {
                    // SAFETY: see above.
                    let x = unsafe { self.rows.x.read(row * d..(row + 1) * d) };
                    ops::rms_norm(kernels, x, weight, self.pass.config.rms_eps, h);
                    kernels.quantize_packed(h, &packing, (i, tile.len()), out);
                }
            }
            self.sync_rows();
            return;
        }
        for t in self.my_rows() {
            let row = self.active[t];
            // SAFETY: rows t of h and `row` of x are this thread's: `active` is ascending and the
            // split by t is the same for x as long as nothing is dropped; once rows are dropped,
            // x is only read here and written by `residual` with the same split.
            let (x, h) = unsafe {
                (self.rows.x.read(row * d..(row + 1) * d), self.rows.h.write(t * d..(t + 1) * d))
            };
            ops::rms_norm(&self.cpu.kernels, x, weight, self.pass.config.rms_eps, h);
            if quantize {
                // SAFETY: row t is this thread's.
                let (q, scale, sum) = unsafe { self.rows.h_q.row(t) };
                self.cpu.kernels.quantize(h, q, scale, sum);
            }
        }
        self.sync_rows();
    }

    fn qkv(&mut self, layer: &Layer) {
        let c = self.pass.config;
        // SAFETY: h was written before `sync_rows`, and is next written after another barrier.
        let h = unsafe { self.input(&self.rows.h_q, &self.rows.h) };
        let matrices = [(&layer.q, 0), (&layer.k, c.q_dim()), (&layer.v, c.q_dim() + c.kv_dim())];
        let ld = c.q_dim() + 2 * c.kv_dim();
        let between = self.before_attention(layer);
        self.matmul(&matrices, h, &self.cpu.shared.qkv, ld, between, |_| {});
        self.wait_and_ask(&[&layer.o], false);
    }

    fn rope_store(&mut self, layer: &Layer) {
        if self.pass.batch.rows.len() == 1 {
            self.rope_store_alone(layer);
        } else {
            self.rope_store_shared(layer);
        }
    }

    fn keep_wanted(&mut self) {
        self.active = &self.pass.batch.wanted;
    }

    fn attend(&mut self, layer: &Layer) {
        if self.active.len() <= SMALL {
            self.attend_split(layer);
        } else {
            self.attend_blocks(layer);
        }
        let q_dim = self.pass.config.q_dim();
        self.packing = self.packing(&[&layer.o], q_dim);
        if let Some(packing) = self.packing {
            for tile in self.my_tiles() {
                let place = packing.place(&tile, 0..q_dim);
                // SAFETY: a was written before a barrier, and the tile is this thread's.
                let (a, out) = unsafe {
                    let a = self.rows.a.read(tile.start * q_dim..tile.end * q_dim);
                    (a, self.cpu.shared.packed.write(place))
                };
                for (i, a) in a.chunks_exact(q_dim).enumerate() {
                    self.cpu.kernels.quantize_packed(a, &packing, (i, tile.len()), out);
                }
            }
        } else if wants_q8(&[&layer.o]) {
            for t in self.my_rows() {
                // SAFETY: a was written by this thread (small batches) or before a barrier, and
                // row t of a_q is this thread's.
                let (a, (q, scale, sum)) =
                    unsafe { (self.rows.a.read(t * q_dim..(t + 1) * q_dim), self.rows.a_q.row(t)) };
                self.cpu.kernels.quantize(a, q, scale, sum);
            }
        }
        self.sync_rows();
    }

    fn attn_out(&mut self, layer: &Layer) {
        // SAFETY: a was written before the last barrier, or by this thread.
        let a = unsafe { self.input(&self.rows.a_q, &self.rows.a) };
        let hidden = self.pass.config.hidden;
        let between = self.before_norms(&[&layer.post_attn_norm, &layer.ffn_norm]);
        self.matmul(&[(&layer.o, 0)], a, &self.cpu.shared.o, hidden, between, |_| {});
        self.wait_and_ask(&[&layer.gate, &layer.up], true);
    }

    fn residual(&mut self, post: &[f32]) {
        let d = self.pass.config.hidden;
        for t in self.my_rows() {
            let row = self.active[t];
            // SAFETY: o was written before the last barrier; `row` of x is this thread's.
            let (o, x) = unsafe {
                (
                    self.cpu.shared.o.read(t * d..(t + 1) * d),
                    self.rows.x.write(row * d..(row + 1) * d),
                )
            };
            ops::add_rms_norm(&self.cpu.kernels, o, post, self.pass.config.rms_eps, x);
        }
    }

    fn gate_up(&mut self, layer: &Layer) {
        let (n, ffn) = (self.active.len(), self.pass.config.ffn);
        // SAFETY: h was written before `sync_rows`, or by this thread.
        let h = unsafe { self.input(&self.rows.h_q, &self.rows.h) };
        let (gate, up) = (self.view(&layer.gate), self.view(&layer.up));
        let quantize = wants_q8(&[&layer.down]);
        self.g_packing = self.packing(&[&layer.down], ffn);
        let mut claims = self.claim(ffn.div_ceil(QK), CLAIM / QK);
        while let Some(claim) = claims.next() {
            self.scratch.set_coming(claims.after(&claim) * QK);
            let rows = claim.start * QK..(claim.end * QK).min(ffn);
            let len = rows.len();
            self.tile.resize(self.tile.len().max(n * len), 0.0);
            self.tile2.resize(self.tile2.len().max(n * len), 0.0);
            self.cpu.kernels.matmul(gate, rows.clone(), h, self.tile, len, self.scratch);
            self.cpu.kernels.matmul(up, rows.clone(), h, self.tile2, len, self.scratch);
            let kernels = &self.cpu.kernels;
            // In the form that the next matmul wants, while it is at hand.
            if let Some(packing) = self.g_packing {
                let mut of = tiles(n, kernels.tile()).peekable();
                while let Some(tile) = of.next() {
                    if let Some(next) = of.peek() {
                        self.cpu.shared.g_packed.ask_to_write(packing.place(next, rows.clone()));
                    }
                    let these = tile.start * len..tile.end * len;
                    let (from, up) = (&mut self.tile[these.clone()], &self.tile2[these]);
                    ops::gelu_mul(kernels, from, up);
                    // SAFETY: these columns belong to the claim; parts are whole blocks.
                    let out = unsafe {
                        self.cpu.shared.g_packed.write(packing.place(&tile, rows.clone()))
                    };
                    for (i, from) in from.chunks_exact(len).enumerate() {
                        kernels.quantize_packed(from, &packing, (i, tile.len()), out);
                    }
                }
                continue;
            }
            let rows_of = self.tile.chunks_exact_mut(len).zip(self.tile2.chunks_exact(len));
            for (t, (from, up)) in rows_of.take(n).enumerate() {
                ops::gelu_mul(kernels, from, up);
                if quantize {
                    self.cpu.shared.g_q.ask_to_write(t + WRITE_AHEAD, rows.clone());
                    // SAFETY: these columns belong to the claim; parts are whole blocks.
                    let (q, scale, sum) = unsafe { self.cpu.shared.g_q.part(t, rows.clone()) };
                    kernels.quantize(from, q, scale, sum);
                } else {
                    let at = t * ffn + rows.start;
                    // SAFETY: these columns belong to the claim.
                    unsafe { self.cpu.shared.g.write(at..at + len) }.copy_from_slice(from);
                }
            }
        }
        self.wait_and_ask(&[&layer.down], false);
    }

    fn down(&mut self, layer: &Layer) {
        // SAFETY: g or g_q was written before the last barrier.
        let g = unsafe {
            match self.g_packing {
                Some(packing) => packed_rows(&self.cpu.shared.g_packed, packing),
                None => self.cpu.shared.g_q.rows(&self.cpu.shared.g, self.active.len()),
            }
        };
        let hidden = self.pass.config.hidden;
        let weights = self.pass.weights;
        let next = weights.layers.get(layer.index + 1);
        let norm = next.map_or(&weights.output_norm, |next| &next.attn_norm);
        let between = self.before_norms(&[&layer.post_ffn_norm, norm]);
        self.matmul(&[(&layer.down, 0)], g, &self.cpu.shared.o, hidden, between, |_| {});
        match next {
            Some(next) => self.wait_and_ask(&[&next.q, &next.k, &next.v], false),
            None => self.wait_and_ask(&[&weights.output], false),
        }
    }

    fn tap(&mut self, depth: usize) {
        let Some(copies) = &self.cpu.tap else { return };
        // Where rows are not split, every thread holds all of them: one copies.
        if !self.split && self.index != 0 {
            return;
        }
        let (d, rows) = (self.pass.config.hidden, self.pass.batch.rows.len());
        for t in self.my_rows() {
            let (from, to) = (self.active[t] * d, (depth * rows + self.active[t]) * d);
            // SAFETY: rows of `my_rows` of x and of the copies are this thread's, and x was last
            // written by this thread with the same split.
            let (x, copy) = unsafe { (self.rows.x.read(from..from + d), copies.write(to..to + d)) };
            copy.copy_from_slice(x);
        }
    }

    fn head(&mut self, norm: &[f32]) {
        if self.active.is_empty() {
            return;
        }
        let w = &self.pass.weights.output;
        self.norm(norm, &[w]);
        // SAFETY: h was written before `sync_rows`, or by this thread.
        let h = unsafe { self.input(&self.rows.h_q, &self.rows.h) };
        let (cap, kernels) = (self.pass.config.final_softcap, self.cpu.kernels);
        let nothing = Between::default();
        self.matmul(&[(w, 0)], h, &self.cpu.shared.logits, w.rows, nothing, |y| {
            if let Some(cap) = cap {
                ops::softcap(&kernels, y, cap);
            }
        });
    }
}
