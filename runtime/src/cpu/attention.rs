//! Attention of a few query rows over a range of cached positions, with an online softmax
//! (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022), so that no more scores than one
//! block's are ever held.
//!
//! The rows of one call share a KV head: the query heads of its group, for one token or several. A
//! block of keys and values is widened to f32 once and used by all of them.

use std::ops::Range;

use quant::kernels::Kernels;

use super::ops;
use super::simd::{self, Op, Simd};
use crate::kv_cache::{KvCache, KvType};

mod many;

/// Positions in one block.
const BLOCK: usize = 32;
/// Query rows and positions in a register tile.
const TILE: usize = 4;

/// One call's work.
pub(crate) struct Attention<'a> {
    pub(crate) cache: &'a KvCache,
    pub(crate) layer: usize,
    pub(crate) seq: usize,
    pub(crate) kv_head: usize,
    /// `[rows, head_pad]`: queries, scaled, padded with zeros.
    pub(crate) q: &'a [f32],
    /// What each row may see: positions from..to.
    pub(crate) visible: &'a [Range<usize>],
    /// Positions to go over: a part of the union of what the rows see.
    pub(crate) range: Range<usize>,
    /// Scores become `c · tanh(s / c)`.
    pub(crate) softcap: Option<f32>,
}

/// From this many rows on, rows lie in the lanes of vectors.
const MANY: usize = 16;

/// Running state of each row, and scratch. One a thread.
#[derive(Default)]
pub(crate) struct State {
    /// `[rows rounded up to TILE, head_pad]`: Σ e^(s - max) · v.
    pub(crate) acc: Vec<f32>,
    /// Largest score so far; -∞ when nothing was seen.
    pub(crate) max: Vec<f32>,
    /// Σ e^(s - max).
    pub(crate) sum: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    scores: Vec<f32>,
    many: many::Scratch,
}

impl Attention<'_> {
    /// Goes over `range` and leaves the outcome in `state` (unnormalised).
    pub(crate) fn run(&self, kernels: &Kernels, state: &mut State) {
        let pad = self.cache.head_pad;
        let rows = self.visible.len();
        assert_eq!(self.q.len(), rows * pad);
        if rows >= MANY {
            return many::run(self, kernels, state);
        }
        let tiled = rows.next_multiple_of(TILE);
        state.acc.clear();
        state.acc.resize(tiled * pad, 0.0);
        state.max.clear();
        state.max.resize(tiled, f32::NEG_INFINITY);
        state.sum.clear();
        state.sum.resize(tiled, 0.0);
        state.q.clear();
        state.q.extend_from_slice(self.q);
        state.q.resize(tiled * pad, 0.0);
        state.k.resize(BLOCK * pad, 0.0);
        state.v.resize(BLOCK * pad, 0.0);
        state.scores.resize(tiled * BLOCK, 0.0);
        let mut at = self.range.start;
        while at < self.range.end {
            let n = BLOCK.min(self.range.end - at);
            self.widen(kernels, at, n, pad, [&mut state.k, &mut state.v]);
            for to in [&mut state.k, &mut state.v] {
                to[n * pad..n.next_multiple_of(TILE) * pad].fill(0.0); // tiles read them
            }
            simd::run(kernels, Block { job: self, at, n, state });
            at += n;
        }
    }

    /// Reads keys and values of positions `at .. at + n` as f32, into rows `stride` apart.
    fn widen(
        &self,
        kernels: &Kernels,
        at: usize,
        n: usize,
        stride: usize,
        [k, v]: [&mut [f32]; 2],
    ) {
        let layer = &self.cache.layers[self.layer];
        for (from, to) in [(&layer.k, k), (&layer.v, v)] {
            for (i, out) in to.chunks_exact_mut(stride).enumerate().take(n) {
                let out = &mut out[..self.cache.head_pad];
                let o = self.cache.offset(self.layer, self.seq, self.kv_head, at + i);
                // SAFETY: this batch's keys and values were stored before the last barrier, and
                // nobody stores again before the next.
                let row = unsafe { from.read(o..o + self.cache.row_bytes) };
                match self.cache.kv_type {
                    KvType::F16 => ops::from_f16(kernels, row, out),
                    KvType::Q8_0 => ops::from_q8_0(kernels, row, out),
                    KvType::F32 => out.copy_from_slice(bytemuck::cast_slice(row)),
                }
            }
        }
    }
}

/// One block of positions, widened.
struct Block<'a, 'b> {
    job: &'a Attention<'b>,
    at: usize,
    n: usize,
    state: &'a mut State,
}

impl Op for Block<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let pad = self.job.cache.head_pad;
        let state = self.state;
        let tiled = state.max.len();
        let keys = self.n.next_multiple_of(TILE);
        assert!(keys <= BLOCK && pad.is_multiple_of(16));
        assert!(state.q.len() == tiled * pad && state.acc.len() == tiled * pad);
        assert!(state.k.len() == BLOCK * pad && state.v.len() == BLOCK * pad);
        assert!(state.scores.len() == tiled * BLOCK);

        for key in (0..keys).step_by(TILE) {
            for row in (0..tiled).step_by(TILE) {
                let tile = &mut state.scores[row * BLOCK + key..];
                // SAFETY: TILE rows of `pad` floats from both pointers, and TILE rows of scores
                // `BLOCK` apart with TILE left in each, by the lengths asserted.
                unsafe {
                    let (q, k) = (state.q.as_ptr().add(row * pad), state.k.as_ptr().add(key * pad));
                    if S::WIDE {
                        dots::<S, 4>(s, q, k, tile.as_mut_ptr(), pad);
                    } else {
                        dots::<S, 2>(s, q, k, tile.as_mut_ptr(), pad);
                        dots::<S, 2>(s, q.add(2 * pad), k, tile.as_mut_ptr().add(2 * BLOCK), pad);
                    }
                }
            }
        }
        for (row, visible) in self.job.visible.iter().enumerate() {
            let scores = &mut state.scores[row * BLOCK..][..BLOCK];
            if let Some(cap) = self.job.softcap {
                let c = s.splat(cap);
                for chunk in scores[..keys.next_multiple_of(S::LANES)].chunks_exact_mut(S::LANES) {
                    // SAFETY: the chunk holds LANES floats.
                    unsafe {
                        let v = s.div(s.load(chunk.as_ptr()), c);
                        s.store(chunk.as_mut_ptr(), s.mul(c, s.tanh(v)));
                    }
                }
            }
            let from = visible.start.saturating_sub(self.at).min(BLOCK);
            let to = visible.end.saturating_sub(self.at).min(self.n).max(from);
            scores[..from].fill(f32::NEG_INFINITY);
            scores[to..].fill(f32::NEG_INFINITY);
            if from == to {
                scores.fill(0.0); // weights of zero
                continue;
            }
            let acc = &mut state.acc[row * pad..][..pad];
            softmax(s, scores, acc, &mut state.max[row], &mut state.sum[row]);
        }
        for row in (0..tiled).step_by(TILE) {
            let step = if S::WIDE { 4 } else { 2 };
            for d in (0..pad).step_by(step * S::LANES) {
                let width = (pad - d).min(step * S::LANES) / S::LANES;
                let (p, v) = (&state.scores[row * BLOCK..], &state.v[d..]);
                let acc = &mut state.acc[row * pad + d..];
                // SAFETY: TILE rows of scores `BLOCK` apart, `keys` rows of values and TILE rows of
                // sums `pad` apart, each with `width` vectors left, by the lengths asserted.
                unsafe {
                    let (p, v, a) = (p.as_ptr(), v.as_ptr(), acc.as_mut_ptr());
                    match width {
                        4 => weigh::<S, 4>(s, p, v, a, keys, pad),
                        3 => weigh::<S, 3>(s, p, v, a, keys, pad),
                        2 => weigh::<S, 2>(s, p, v, a, keys, pad),
                        _ => weigh::<S, 1>(s, p, v, a, keys, pad),
                    }
                }
            }
        }
    }
}

/// Scores of N queries with TILE keys.
///
/// # Safety
/// `N · pad` floats can be read at `q`, `TILE · pad` at `k`; N rows of TILE floats, BLOCK apart, can
/// be written at `scores`.
#[inline(always)]
unsafe fn dots<S: Simd, const N: usize>(
    s: S,
    q: *const f32,
    k: *const f32,
    scores: *mut f32,
    pad: usize,
) {
    let mut acc = [[s.zero(); TILE]; N];
    for d in (0..pad).step_by(S::LANES) {
        // SAFETY: the caller's; LANES divides `pad`.
        unsafe {
            let mut keys = [s.zero(); TILE];
            for (j, key) in keys.iter_mut().enumerate() {
                *key = s.load(k.add(j * pad + d));
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

/// acc[i] += Σ_key p[i][key] · v[key], for TILE rows and `N` vectors of features.
///
/// # Safety
/// TILE rows of scores, BLOCK apart, with `keys` in each; `keys` rows of `v` and TILE rows of `acc`,
/// `pad` apart, with N vectors in each.
#[inline(always)]
unsafe fn weigh<S: Simd, const N: usize>(
    s: S,
    p: *const f32,
    v: *const f32,
    acc: *mut f32,
    keys: usize,
    pad: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[s.zero(); N]; TILE];
        for (i, sums) in sums.iter_mut().enumerate() {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = s.load(acc.add(i * pad + j * S::LANES));
            }
        }
        for key in 0..keys {
            let mut value = [s.zero(); N];
            for (j, value) in value.iter_mut().enumerate() {
                *value = s.load(v.add(key * pad + j * S::LANES));
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

#[cfg(test)]
mod tests {
    use quant::DType;
    use quant::codec::{decode_row, encode_row};
    use quant::kernels::Isa;

    use super::*;
    use crate::config::{Arch, GemmaConfig, LayerConfig, Rope};

    fn config(head_dim: usize, window: Option<usize>) -> GemmaConfig {
        GemmaConfig {
            arch: Arch::Gemma3,
            hidden: 32,
            ffn: 32,
            heads: 1,
            kv_heads: 1,
            head_dim,
            context_length: 200,
            rms_eps: 1e-6,
            embed_scale: 1.0,
            query_scale: 1.0,
            attn_softcap: None,
            final_softcap: None,
            qk_norm: true,
            layers: vec![LayerConfig { window, rope: Rope { base: 1e4, scale: 1.0 } }],
        }
    }

    fn noise(seed: usize, n: usize) -> Vec<f32> {
        (0..n).map(|i| (((seed * 7919 + i * 104_729) % 2003) as f32 / 1001.5 - 1.0) * 0.7).collect()
    }

    /// Fills a cache; returns keys and values as they were stored, `[positions][head_pad]` each.
    fn fill(cache: &KvCache, head_dim: usize, positions: usize) -> [Vec<Vec<f32>>; 2] {
        [0, 1].map(|which| {
            (0..positions)
                .map(|pos| {
                    let mut row = noise(pos * 2 + which + 1, head_dim);
                    row.resize(cache.head_pad, 0.0);
                    let dtype = match cache.kv_type {
                        KvType::F32 => DType::F32,
                        KvType::F16 => DType::F16,
                        KvType::Q8_0 => DType::Q8_0,
                    };
                    let layer = &cache.layers[0];
                    let to = if which == 0 { &layer.k } else { &layer.v };
                    let at = cache.offset(0, 0, 0, pos);
                    // SAFETY: one thread.
                    let out = unsafe { to.write(at..at + cache.row_bytes) };
                    encode_row(dtype, &row, out);
                    let mut stored = vec![0.0; row.len()];
                    decode_row(dtype, out, &mut stored);
                    stored
                })
                .collect()
        })
    }

    /// Softmax attention in f64, all at once.
    fn naive(
        q: &[f32],
        [k, v]: &[Vec<Vec<f32>>; 2],
        sees: Range<usize>,
        cap: Option<f32>,
    ) -> Vec<f64> {
        let scores: Vec<f64> = sees
            .clone()
            .map(|p| {
                let s: f64 = q.iter().zip(&k[p]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                cap.map_or(s, |c| f64::from(c) * (s / f64::from(c)).tanh())
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        (0..q.len())
            .map(|d| {
                let weigh = |(s, p): (&f64, usize)| (s - max).exp() * f64::from(v[p][d]);
                scores.iter().zip(sees.clone()).map(weigh).sum::<f64>() / total
            })
            .collect()
    }

    /// Every instruction set, cache type and awkward shape, rows that see different things (some
    /// nothing of a block), a ring that has wrapped.
    #[test]
    fn matches_plain_softmax() {
        for isa in Isa::available() {
            let kernels = Kernels::for_isa(isa).unwrap();
            for (head_dim, kv_type) in [
                (16, KvType::F32),
                (24, KvType::F16),
                (48, KvType::F32),
                (64, KvType::Q8_0),
                (256, KvType::F16),
            ] {
                for (positions, window, cap) in [
                    (1, None, None),
                    (33, None, Some(50.0)),
                    (100, None, None),
                    (150, Some(40), None),
                ] {
                    let config = config(head_dim, window);
                    let cache = KvCache::new(&config, kv_type, 1, 200, 8).unwrap();
                    let stored = fill(&cache, head_dim, positions);
                    for rows in [1, 2, 3, 4, 5, 9, 16, 33, 70] {
                        let q = noise(rows * 31, rows * cache.head_pad);
                        let visible: Vec<Range<usize>> = (0..rows)
                            .map(|r| {
                                let end = positions.saturating_sub(r % 5).max(1);
                                window.map_or(0, |w: usize| end.saturating_sub(w))..end
                            })
                            .collect();
                        let from = visible.iter().map(|v| v.start).min().unwrap();
                        let job = Attention {
                            cache: &cache,
                            layer: 0,
                            seq: 0,
                            kv_head: 0,
                            q: &q,
                            visible: &visible,
                            range: from..positions,
                            softcap: cap,
                        };
                        let mut state = State::default();
                        job.run(&kernels, &mut state);
                        for (r, sees) in visible.iter().enumerate() {
                            let q = &q[r * cache.head_pad..][..cache.head_pad];
                            let want = naive(q, &stored, sees.clone(), cap);
                            for (d, want) in want.iter().enumerate() {
                                let got = state.acc[r * cache.head_pad + d] / state.sum[r];
                                // f32 sums over head_dim and positions of values below 1.
                                let err = (f64::from(got) - want).abs();
                                assert!(
                                    err < 2e-5,
                                    "{isa} {head_dim} {kv_type:?} {positions} {rows}/{r}: {err}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}
