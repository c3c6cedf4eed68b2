//! Attention of a few query rows: keys and values are widened in registers, where they lie in the
//! cache, and go by once for every [`TILE`] rows.
//!
//! One token reads all of the cache, so what counts is that memory always has something to do. A block
//! is asked for into the second-level cache, line by line, while the one before it is multiplied.

use std::ops::Range;

use quant::kernels::{Kernels, ask_for, ask_for_line};

use super::super::simd::{self, Op, Simd};
use super::{Attention, State};
use crate::kv_cache::{KeyOrValue, KvType};

/// Positions in one block.
pub(super) const BLOCK: usize = 32;
/// Keys in a register tile, and query rows in one at most.
const TILE: usize = 4;

/// How a feature of a key or value is stored.
trait Cell: Copy {
    /// Bytes of it.
    const BYTES: usize;

    /// Reads `LANES` of them and widens them.
    ///
    /// # Safety
    /// `LANES · BYTES` bytes can be read at `p`.
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::V;
}

#[derive(Clone, Copy)]
struct Half;

impl Cell for Half {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::V {
        // SAFETY: the caller's.
        unsafe { s.load_f16(p.cast()) }
    }
}

#[derive(Clone, Copy)]
struct Single;

impl Cell for Single {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::V {
        // SAFETY: the caller's.
        unsafe { s.load(p.cast()) }
    }
}

/// [`Attention::run`] for few rows.
pub(super) fn run(job: &Attention<'_>, kernels: &Kernels, state: &mut State) {
    let (cache, pad) = (job.cache, job.cache.head_pad);
    let rows = job.visible.len();
    // Rows of a tile: no more than there are, so that a group of two heads is not filled up to four.
    let tile = rows.next_power_of_two().min(TILE);
    let tiled = rows.next_multiple_of(tile);
    let State { acc, max, sum, q, k, v, scores, .. } = state;
    acc.clear();
    acc.resize(tiled * pad, 0.0);
    max.clear();
    max.resize(tiled, f32::NEG_INFINITY);
    sum.clear();
    sum.resize(tiled, 0.0);
    q.clear();
    q.extend_from_slice(job.q);
    q.resize(tiled * pad, 0.0);
    scores.resize(tiled * BLOCK, 0.0);
    let start = |of, at| cache.offset(job.layer, of, job.seq, job.kv_head, at);
    let read = |of, block: &Range<usize>| {
        let from = start(of, block.start);
        // SAFETY: this batch's keys and values were stored before the last barrier, and nobody stores
        // again before the next.
        unsafe { cache.memory.read(from..from + block.len() * cache.row_bytes) }
    };
    let mut block = job.block(job.range.start);
    while !block.is_empty() {
        let next = job.block(block.end);
        let mut part = Block {
            job,
            tile,
            at: block.start,
            n: block.len(),
            k: read(KeyOrValue::Key, &block),
            v: read(KeyOrValue::Value, &block),
            ahead: 0,
            q,
            scores,
            acc,
            max,
            sum,
        };
        match cache.kv_type {
            KvType::F16 | KvType::F32 => {
                if !next.is_empty() {
                    let start = |at| start(KeyOrValue::Key, at) as isize;
                    part.ahead = start(next.start) - start(block.start);
                }
                match cache.kv_type {
                    KvType::F16 => simd::run(kernels, Cells { cell: Half, part }),
                    _ => simd::run(kernels, Cells { cell: Single, part }),
                }
            }
            KvType::Q8_0 => {
                if !next.is_empty() {
                    ask_for(read(KeyOrValue::Key, &next));
                    ask_for(read(KeyOrValue::Value, &next));
                }
                k.reserve(BLOCK * pad);
                v.reserve(BLOCK * pad);
                job.widen(kernels, block.start, block.len(), pad, [k, v]);
                part.k = bytemuck::cast_slice(k);
                part.v = bytemuck::cast_slice(v);
                simd::run(kernels, Cells { cell: Single, part });
            }
        }
        block = next;
    }
}

impl Attention<'_> {
    /// The positions from `at` on that make a block: they lie one after the other in the cache.
    fn block(&self, at: usize) -> Range<usize> {
        let n = BLOCK.min(self.range.end.saturating_sub(at)).min(self.cache.run(self.layer, at));
        at..at + n
    }
}

/// One block of positions.
struct Block<'a, 'b> {
    job: &'a Attention<'b>,
    /// Rows in a tile: 1, 2 or 4.
    tile: usize,
    at: usize,
    n: usize,
    /// `n` keys, and values, one after the other.
    k: &'a [u8],
    v: &'a [u8],
    /// Bytes from here to the next block.
    ahead: isize,
    q: &'a [f32],
    scores: &'a mut [f32],
    acc: &'a mut [f32],
    max: &'a mut [f32],
    sum: &'a mut [f32],
}

/// A block and how its numbers are stored.
struct Cells<'a, 'b, C> {
    cell: C,
    part: Block<'a, 'b>,
}

impl<C: Cell> Op for Cells<'_, '_, C> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.part.tile {
            1 => self.part.run::<S, C, 1>(s, self.cell),
            2 => self.part.run::<S, C, 2>(s, self.cell),
            _ => self.part.run::<S, C, TILE>(s, self.cell),
        }
    }
}

impl Block<'_, '_> {
    #[inline(always)]
    fn run<S: Simd, C: Cell, const N: usize>(self, s: S, _: C) {
        let Block { job, n, ahead, .. } = self;
        let pad = job.cache.head_pad;
        let (tiled, stride) = (self.max.len(), pad * C::BYTES);
        assert!(n > 0 && n <= BLOCK && pad.is_multiple_of(16) && tiled.is_multiple_of(N));
        assert!(self.q.len() == tiled * pad && self.acc.len() == tiled * pad);
        assert!(self.k.len() >= n * stride && self.v.len() >= n * stride);
        assert!(self.scores.len() >= tiled * BLOCK && self.sum.len() == tiled);
        for key in (0..n).step_by(TILE) {
            // What fills up the last tile is the last key again; nobody sees its scores.
            let mut k = [self.k.as_ptr(); TILE];
            for (i, k) in k.iter_mut().enumerate() {
                *k = k.wrapping_add((key + i).min(n - 1) * stride);
            }
            for row in (0..tiled).step_by(N) {
                let ahead = if row == 0 { ahead } else { 0 };
                // SAFETY: N rows of `pad` floats at `q`, `pad` cells at each key, and N rows of scores
                // `BLOCK` apart with TILE left in each, by the lengths asserted.
                unsafe {
                    let q = self.q.as_ptr().add(row * pad);
                    let to = self.scores.as_mut_ptr().add(row * BLOCK + key);
                    if S::WIDE || N <= 2 {
                        dots::<S, C, N>(s, q, k, to, pad, ahead);
                    } else {
                        dots::<S, C, 2>(s, q, k, to, pad, ahead);
                        dots::<S, C, 2>(s, q.add(2 * pad), k, to.add(2 * BLOCK), pad, 0);
                    }
                }
            }
        }
        for (row, visible) in job.visible.iter().enumerate() {
            let scores = &mut self.scores[row * BLOCK..][..BLOCK];
            if let Some(cap) = job.softcap {
                let c = s.splat(cap);
                for chunk in scores[..n.next_multiple_of(S::LANES)].chunks_exact_mut(S::LANES) {
                    // SAFETY: the chunk holds LANES floats.
                    unsafe {
                        let v = s.div(s.load(chunk.as_ptr()), c);
                        s.store(chunk.as_mut_ptr(), s.mul(c, s.tanh(v)));
                    }
                }
            }
            let from = visible.start.saturating_sub(self.at).min(n);
            let to = visible.end.saturating_sub(self.at).min(n).max(from);
            scores[..from].fill(f32::NEG_INFINITY);
            scores[to..].fill(f32::NEG_INFINITY);
            if from == to {
                scores.fill(0.0); // weights of zero
                continue;
            }
            let acc = &mut self.acc[row * pad..][..pad];
            softmax(s, scores, acc, &mut self.max[row], &mut self.sum[row]);
        }
        for row in (0..tiled).step_by(N) {
            let step = if S::WIDE { 4 } else { 2 };
            let ahead = if row == 0 { ahead } else { 0 };
            for d in (0..pad).step_by(step * S::LANES) {
                let width = (pad - d).min(step * S::LANES) / S::LANES;
                // SAFETY: N rows of scores `BLOCK` apart, `n` values and N rows of sums, each with
                // `width` vectors left, by the lengths asserted.
                unsafe {
                    let p = self.scores.as_ptr().add(row * BLOCK);
                    let v = self.v.as_ptr().add(d * C::BYTES);
                    let a = self.acc.as_mut_ptr().add(row * pad + d);
                    match width {
                        4 => weigh::<S, C, N, 4>(s, p, v, a, n, pad, ahead),
                        3 => weigh::<S, C, N, 3>(s, p, v, a, n, pad, ahead),
                        2 => weigh::<S, C, N, 2>(s, p, v, a, n, pad, ahead),
                        _ => weigh::<S, C, N, 1>(s, p, v, a, n, pad, ahead),
                    }
                }
            }
        }
    }
}

/// Scores of N queries with TILE keys; asks for the keys `ahead` bytes further on.
///
/// # Safety
/// `N · pad` floats can be read at `q`, `pad` cells at each of `k`; N rows of TILE floats, BLOCK apart,
/// can be written at `scores`.
#[inline(always)]
unsafe fn dots<S: Simd, C: Cell, const N: usize>(
    s: S,
    q: *const f32,
    k: [*const u8; TILE],
    scores: *mut f32,
    pad: usize,
    ahead: isize,
) {
    let mut acc = [[s.zero(); TILE]; N];
    for d in (0..pad).step_by(S::LANES) {
        let at = d * C::BYTES;
        if ahead != 0 && at.is_multiple_of(64) {
            for k in k {
                ask_for_line(k.wrapping_add(at).wrapping_offset(ahead));
            }
        }
        // SAFETY: the caller's; LANES divides `pad`.
        unsafe {
            let mut keys = [s.zero(); TILE];
            for (i, key) in keys.iter_mut().enumerate() {
                *key = C::load(s, k[i].add(at));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let q = s.load(q.add(i * pad + d));
                for (acc, key) in acc.iter_mut().zip(keys) {
                    *acc = s.fma(q, key, *acc);
                }
            }
        }
    }
    for (i, acc) in acc.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { scores.add(i * BLOCK).cast::<[f32; TILE]>().write(s.sum4(acc)) };
    }
}

/// Turns a row's scores into weights e^(s - max), rescaling what was summed so far when the
/// maximum rises. Masked scores are -∞ and come out as (nearly) zero: e^-87, far below rounding.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32], acc: &mut [f32], max: &mut f32, sum: &mut f32) {
    let mut top = s.splat(f32::NEG_INFINITY);
    for c in scores.chunks_exact(S::LANES) {
        // SAFETY: the chunk holds LANES floats; so below.
        top = s.max(unsafe { s.load(c.as_ptr()) }, top);
    }
    let top = s.max_lane(top).max(*max);
    if top > *max {
        if *max > f32::NEG_INFINITY {
            let shrink = (*max - top).exp();
            *sum *= shrink;
            let v = s.splat(shrink);
            for c in acc.chunks_exact_mut(S::LANES) {
                // SAFETY: as above.
                unsafe { s.store(c.as_mut_ptr(), s.mul(s.load(c.as_ptr()), v)) };
            }
        }
        *max = top;
    }
    let top = s.splat(top);
    let mut total = s.zero();
    for c in scores.chunks_exact_mut(S::LANES) {
        // SAFETY: as above.
        unsafe {
            let p = s.exp(s.sub(s.load(c.as_ptr()), top));
            s.store(c.as_mut_ptr(), p);
            total = s.add(total, p);
        }
    }
    *sum += s.sum(total);
}

/// acc[i] += Σ_key p[i][key] · v[key], for N rows and `W` vectors of features; asks for the values
/// `ahead` bytes further on.
///
/// # Safety
/// N rows of scores, BLOCK apart, with `keys` in each; `keys` rows of `pad` cells from `v` on and N rows
/// of `acc`, `pad` apart, with W vectors in each.
#[inline(always)]
unsafe fn weigh<S: Simd, C: Cell, const N: usize, const W: usize>(
    s: S,
    p: *const f32,
    v: *const u8,
    acc: *mut f32,
    keys: usize,
    pad: usize,
    ahead: isize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[s.zero(); W]; N];
        for (i, sums) in sums.iter_mut().enumerate() {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = s.load(acc.add(i * pad + j * S::LANES));
            }
        }
        for key in 0..keys {
            let v = v.add(key * pad * C::BYTES);
            if ahead != 0 {
                for line in 0..(W * S::LANES * C::BYTES).div_ceil(64) {
                    ask_for_line(v.wrapping_add(64 * line).wrapping_offset(ahead));
                }
            }
            let mut value = [s.zero(); W];
            for (j, value) in value.iter_mut().enumerate() {
                *value = C::load(s, v.add(j * S::LANES * C::BYTES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let p = s.splat(*p.add(i * BLOCK + key));
                for (sum, value) in sums.iter_mut().zip(value) {
                    *sum = s.fma(p, value, *sum);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                s.store(acc.add(i * pad + j * S::LANES), sum);
            }
        }
    }
}
