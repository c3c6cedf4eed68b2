//! Attention of query rows over a range of cached positions, with an online softmax
//! (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022), so that no more scores than one
//! block's are ever held. [`few`] rows and [`many`] in f32, [`fixed`] many in 16 bits.
//!
//! The rows of one call share a KV head: the query heads of its group, for one token or several.

use std::ops::Range;

use quant::kernels::Kernels;

use super::ops::{FromF16, FromQ8};
use super::simd::{self, Op, Simd};
use crate::aligned::Aligned;
use crate::kv_cache::{KeyOrValue, KvCache, KvType};

mod few;
mod fixed;
mod many;
pub(crate) mod softmax;

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
/// From this many rows on, where the cache is rounded anyway, so is what attention multiplies: with fewer,
/// packing keys and values takes what the faster products save.
const MANY_FIXED: usize = 33;
/// Floats between two widened rows, beyond their own: rows of 1024 bytes would share four sets of the
/// first-level cache.
const SKEW: usize = 16;

/// Running state of each row, and scratch. One a thread.
#[derive(Default)]
pub(crate) struct State {
    /// `[rows or some more, head_pad]`: Σ e^(s - max) · v.
    pub(crate) acc: Vec<f32>,
    /// Largest score so far; -∞ when nothing was seen.
    pub(crate) max: Vec<f32>,
    /// Σ e^(s - max).
    pub(crate) sum: Vec<f32>,
    q: Vec<f32>,
    k: Aligned<f32>,
    v: Aligned<f32>,
    scores: Vec<f32>,
    many: many::Scratch,
    fixed: fixed::Scratch,
}

impl Attention<'_> {
    /// Goes over `range` and leaves the outcome in `state` (unnormalised).
    pub(crate) fn run(&self, kernels: &Kernels, state: &mut State) {
        let pad = self.cache.head_pad;
        let rows = self.visible.len();
        assert_eq!(self.q.len(), rows * pad);
        if self.in_fixed(kernels) {
            fixed::run(self, kernels, state);
        } else if rows >= MANY {
            many::run(self, kernels, state);
        } else {
            few::run(self, kernels, state);
        }
    }

    /// Is it multiplied in 16 bits? Not over a cache of f32, which is there to be exact.
    fn in_fixed(&self, kernels: &Kernels) -> bool {
        self.visible.len() >= MANY_FIXED
            && self.cache.kv_type != KvType::F32
            && kernels.has_fast_fixed()
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
        self.widen_one(kernels, KeyOrValue::Key, at, n, stride, k);
        self.widen_one(kernels, KeyOrValue::Value, at, n, stride, v);
    }

    /// The same of the keys or the values alone.
    fn widen_one(
        &self,
        kernels: &Kernels,
        of: KeyOrValue,
        at: usize,
        n: usize,
        stride: usize,
        to: &mut [f32],
    ) {
        let cache = self.cache;
        let mut done = 0;
        while done < n {
            let rows = (n - done).min(cache.run(self.layer, at + done));
            let o = cache.offset(self.layer, of, self.seq, self.kv_head, at + done);
            // SAFETY: this batch's keys and values were stored before the last barrier, and
            // nobody stores again before the next.
            let from = unsafe { cache.memory.read(o..o + rows * cache.row_bytes) };
            simd::run(kernels, Widen { cache, from, stride, to: &mut to[done * stride..] });
            done += rows;
        }
    }
}

/// Rows of a cache as f32.
struct Widen<'a> {
    cache: &'a KvCache,
    from: &'a [u8],
    stride: usize,
    to: &'a mut [f32],
}

impl Op for Widen<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (pad, bytes) = (self.cache.head_pad, self.cache.row_bytes);
        for i in 0..self.from.len() / bytes {
            let x = &self.from[i * bytes..][..bytes];
            let out = &mut self.to[i * self.stride..][..pad];
            match self.cache.kv_type {
                KvType::F16 => FromF16 { x, out }.run(s),
                KvType::Q8_0 => FromQ8 { x, out }.run(s),
                KvType::F32 => out.copy_from_slice(bytemuck::cast_slice(x)),
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

    /// Stores a key or value; returns it as it was stored, padded.
    fn store(cache: &KvCache, of: KeyOrValue, pos: usize, row: &[f32]) -> Vec<f32> {
        let dtype = match cache.kv_type {
            KvType::F32 => DType::F32,
            KvType::F16 => DType::F16,
            KvType::Q8_0 => DType::Q8_0,
        };
        let mut row = row.to_vec();
        row.resize(cache.head_pad, 0.0);
        let at = cache.offset(0, of, 0, 0, pos);
        // SAFETY: one thread.
        let out = unsafe { cache.memory.write(at..at + cache.row_bytes) };
        encode_row(dtype, &row, out);
        let mut stored = vec![0.0; row.len()];
        decode_row(dtype, out, &mut stored);
        stored
    }

    /// Fills a cache; returns keys and values as they were stored, `[positions][head_pad]` each.
    fn fill(cache: &KvCache, head_dim: usize, positions: usize) -> [Vec<Vec<f32>>; 2] {
        [(KeyOrValue::Key, 1), (KeyOrValue::Value, 2)].map(|(of, seed)| {
            (0..positions)
                .map(|pos| store(cache, of, pos, &noise(pos * 2 + seed, head_dim)))
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

    fn job_of<'a>(
        cache: &'a KvCache,
        q: &'a [f32],
        visible: &'a [Range<usize>],
        range: Range<usize>,
        softcap: Option<f32>,
    ) -> Attention<'a> {
        Attention { cache, layer: 0, seq: 0, kv_head: 0, q, visible, range, softcap }
    }

    fn norm(x: &[f32]) -> f64 {
        x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
    }

    /// What 16 bits may cost, where values are below 1. Quants are off by 0.29 (their deviation), of
    /// blocks whose norm is 46300: a score by √2 · 0.29 / 46300 = 9e-6 of the product of the norms, and
    /// so is the share of its value, which others balance: twice that is allowed. Rounded weights and
    /// values are off by as much of themselves as they are many, `√n · 0.29 / 46300`.
    fn rounding(q: &[f32], [k, _]: &[Vec<Vec<f32>>; 2], sees: Range<usize>) -> f64 {
        let longest = sees.map(|p| norm(&k[p])).fold(0.0, f64::max);
        0.7 * (2.0 * 9e-6 * norm(q) * longest + 8e-5)
    }

    /// Every instruction set, cache type and awkward shape, rows that see different things (some
    /// nothing of a block), a ring that has wrapped.
    #[test]
    fn matches_plain_softmax() {
        for isa in Isa::available() {
            let kernels = Kernels::for_isa(isa).unwrap();
            // One for all: what a call leaves must not be seen by the next.
            let mut state = State::default();
            for (head_dim, kv_type) in [
                (16, KvType::F32),
                (24, KvType::F16),
                (48, KvType::F32),
                (64, KvType::Q8_0),
                (256, KvType::F16),
                (80, KvType::F16),
            ] {
                for (positions, window, cap) in [
                    (1, None, None),
                    (33, None, Some(50.0)),
                    (100, None, None),
                    (150, Some(40), None),
                    (330, None, None),
                    (400, Some(200), None),
                ] {
                    let config = config(head_dim, window);
                    let cache = KvCache::new(&config, kv_type, 1, 400, 8).unwrap();
                    let stored = fill(&cache, head_dim, positions);
                    for rows in [1, 2, 3, 4, 5, 9, 16, 33, 70] {
                        if positions > 150 && rows < 33 {
                            continue;
                        }
                        let q = noise(rows * 31, rows * cache.head_pad);
                        let visible: Vec<Range<usize>> = (0..rows)
                            .map(|r| {
                                let end = positions.saturating_sub(r % 5).max(1);
                                window.map_or(0, |w: usize| end.saturating_sub(w))..end
                            })
                            .collect();
                        let from = visible.iter().map(|v| v.start).min().unwrap();
                        let job = job_of(&cache, &q, &visible, from..positions, cap);
                        job.run(&kernels, &mut state);
                        for (r, sees) in visible.iter().enumerate() {
                            let q = &q[r * cache.head_pad..][..cache.head_pad];
                            let want = naive(q, &stored, sees.clone(), cap);
                            // f32 sums over head_dim and positions of values below 1.
                            let mut bound = 2e-5;
                            if job.in_fixed(&kernels) {
                                bound += rounding(q, &stored, sees.clone());
                            }
                            for (d, want) in want.iter().enumerate() {
                                let got = state.acc[r * cache.head_pad + d] / state.sum[r];
                                let err = (f64::from(got) - want).abs();
                                assert!(
                                    err < bound,
                                    "{isa} {head_dim} {kv_type:?} {positions} {rows}/{r}: {err}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    /// Keys of which one feature is a hundred times the others, and scores of ±200 and more: 16 bits add
    /// less to the error than keys and values stored in f16 do.
    #[test]
    fn rounds_less_than_the_cache() {
        let (head_dim, positions, rows) = (128, 300, 40);
        let config = config(head_dim, None);
        let mut state = State::default();
        for isa in Isa::available() {
            let kernels = Kernels::for_isa(isa).unwrap();
            if !kernels.has_fast_fixed() {
                continue;
            }
            for (outlier, size) in [(1.0, 1.0), (100.0, 1.0), (1.0, 40.0), (100.0, 10.0)] {
                let cache = KvCache::new(&config, KvType::F16, 1, 400, 8).unwrap();
                let exact = KvCache::new(&config, KvType::F32, 1, 400, 8).unwrap();
                let mut stored = [&cache, &exact].map(|c| fill(c, head_dim, positions));
                for (cache, [keys, _]) in [&cache, &exact].into_iter().zip(&mut stored) {
                    for (pos, key) in keys.iter_mut().enumerate() {
                        let mut row = noise(pos * 2 + 1, head_dim);
                        row[5] *= outlier;
                        *key = store(cache, KeyOrValue::Key, pos, &row);
                    }
                }
                let q: Vec<f32> = noise(77, rows * head_dim).iter().map(|v| v * size).collect();
                let visible = vec![0..positions; rows];
                let job = job_of(&cache, &q, &visible, 0..positions, None);
                assert!(job.in_fixed(&kernels));
                job.run(&kernels, &mut state);
                let (mut ours, mut caches, mut largest) = (0.0f64, 0.0f64, 0.0f64);
                for (r, q) in q.chunks_exact(head_dim).enumerate() {
                    let [half, single] = [0, 1].map(|c| naive(q, &stored[c], 0..positions, None));
                    for (d, (half, single)) in half.iter().zip(&single).enumerate() {
                        let got = f64::from(state.acc[r * head_dim + d] / state.sum[r]);
                        ours += (got - half).powi(2);
                        caches += (half - single).powi(2);
                    }
                    for key in &stored[0][0] {
                        let score: f32 = q.iter().zip(key).map(|(q, k)| q * k).sum();
                        largest = largest.max(f64::from(score.abs()));
                    }
                }
                let n = (rows * head_dim) as f64;
                let (ours, caches) = ((ours / n).sqrt(), (caches / n).sqrt());
                assert!(
                    ours < caches,
                    "{isa} {outlier} {size}: {ours:.1e}, the cache {caches:.1e}, scores {largest:.0}"
                );
            }
        }
    }

    /// What a row does not see has no weight at all: in 16 bits not a bit of the outcome depends on it.
    #[test]
    fn unseen_keys_do_not_matter() {
        let head_dim = 48;
        let config = config(head_dim, None);
        let cache = KvCache::new(&config, KvType::F16, 1, 400, 8).unwrap();
        let q = noise(9, 70 * head_dim);
        let visible: Vec<_> = (0..70).map(|r| r / 2..160 + r).collect();
        for isa in Isa::available() {
            let kernels = Kernels::for_isa(isa).unwrap();
            fill(&cache, head_dim, 300);
            let job = job_of(&cache, &q, &visible, 0..300, None);
            let mut states = [State::default(), State::default()];
            job.run(&kernels, &mut states[0]);
            let own = 10;
            for pos in (0..300).filter(|p| !visible[own].contains(p)) {
                let key: Vec<f32> = noise(pos, head_dim).iter().map(|v| v * 50.0).collect();
                store(&cache, KeyOrValue::Key, pos, &key);
            }
            job.run(&kernels, &mut states[1]);
            if job.in_fixed(&kernels) {
                let [a, b] = states.each_ref().map(|s| &s.acc[own * head_dim..][..head_dim]);
                assert_eq!((a, states[0].sum[own]), (b, states[1].sum[own]), "{isa}");
                assert_ne!(states[0].acc[..head_dim], states[1].acc[..head_dim], "{isa}");
            }
        }
    }

    /// Where a part of the cache has nothing for a row, nothing comes of it: no NaN, and no weight.
    #[test]
    fn rows_that_see_nothing() {
        let head_dim = 32;
        let config = config(head_dim, None);
        let cache = KvCache::new(&config, KvType::F16, 1, 400, 8).unwrap();
        let stored = fill(&cache, head_dim, 400);
        let q = noise(3, 64 * head_dim);
        let visible: Vec<_> = (0..64).map(|r| if r % 3 == 0 { 350..360 } else { 0..r }).collect();
        let mut state = State::default();
        for isa in Isa::available() {
            let kernels = Kernels::for_isa(isa).unwrap();
            for range in [0..150, 0..400] {
                let job = job_of(&cache, &q, &visible, range.clone(), None);
                job.run(&kernels, &mut state);
                for (r, sees) in visible.iter().enumerate() {
                    let acc = &state.acc[r * head_dim..][..head_dim];
                    let sees = sees.start.min(range.end)..sees.end.min(range.end);
                    if sees.is_empty() {
                        // In f32 there are weights, of a maximum that no sum is taken with.
                        assert!(state.max[r] < -1e20 && state.sum[r].is_finite(), "{isa} {r}");
                        if job.in_fixed(&kernels) {
                            assert!(acc.iter().chain([&state.sum[r]]).all(|v| *v == 0.0));
                        }
                        continue;
                    }
                    let q = &q[r * head_dim..][..head_dim];
                    let bound = 2e-5 + rounding(q, &stored, sees.clone());
                    for (got, want) in acc.iter().zip(naive(q, &stored, sees, None)) {
                        let error = (f64::from(got / state.sum[r]) - want).abs();
                        assert!(error < bound, "{isa} {range:?} {r}: {error}");
                    }
                }
            }
        }
    }
}
