//! Attention of a few query rows over a range of cached positions, with an online softmax
//! (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022), so that no more scores than one
//! block's are ever held.
//!
//! The rows of one call share a KV head: the query heads of its group, for one token or several.

use std::ops::Range;

use quant::kernels::Kernels;

use super::ops;
use crate::aligned::Aligned;
use crate::kv_cache::{KvCache, KvType};

mod few;
mod many;

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
        few::run(self, kernels, state);
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
            // One for all: what a call leaves must not be seen by the next.
            let mut state = State::default();
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
