//! Attention of many query rows in 16-bit fixed point (see [`quant::kernels::fixed`]): twice the
//! multiply-adds of f32.
//!
//! As in [`many`](super::many) the lanes of vectors are rows, 32 of them a panel, of which a block of
//! keys makes scores, [`softmax`] weights, and the block's values a part of the sums. The keys and values
//! of a block are packed once for all panels of a call, a tile of keys, or of features of values, at a
//! time; a panel goes over those tiles of keys that one of its rows sees.
//!
//! What is rounded: a key, a query, a row's weights of a block and a feature's values of a block, each to
//! a unit of about 1/46300 of its own norm. A score is off by some 1e-5 of the product of the two norms,
//! less than what storing the key in f16 does to it. A cache of f32 is attended to in f32.

use quant::kernels::Kernels;
use quant::kernels::fixed::{Blocks, FixedJob, PANEL, TILE};

use super::super::ops;
use super::super::simd::{self, Op, Simd};
use super::softmax::{self, Running, Weights};
use super::{Attention, SKEW, State};
use crate::aligned::Aligned;
use crate::kv_cache::KeyOrValue;

/// Keys of a block: whole tiles.
const KEYS: usize = 12 * TILE;

/// What a call goes over again and again.
#[derive(Default)]
pub(super) struct Scratch {
    panels: Vec<Panel>,
    /// `[panels][head_pad / 2][PANEL][2]`
    q: Aligned<i16>,
    /// `[panels][head_pad][PANEL]`: Σ weight · value.
    acc: Aligned<f32>,
    /// Tiles of keys, `[KEYS / TILE][head_pad / 2][TILE][2]`, and their scales.
    k: Aligned<i16>,
    k_scale: Vec<f32>,
    /// Tiles of features, `[head_pad / TILE][KEYS / 2][TILE][2]`, and their scales.
    v: Aligned<i16>,
    v_scale: Vec<f32>,
    /// `[KEYS][PANEL]`
    scores: Aligned<f32>,
    /// `[KEYS / 2][PANEL][2]`
    weights: Aligned<i16>,
}

/// What is known of `PANEL` rows.
struct Panel {
    scale: [f32; PANEL],
    running: Running,
    /// The first position that each row sees, and the one after the last.
    from: [i32; PANEL],
    to: [i32; PANEL],
    /// Positions outside which no row sees any.
    some: [usize; 2],
    /// Positions that every row sees.
    all: [usize; 2],
}

/// [`Attention::run`] for many rows over a cache whose numbers are rounded already.
pub(super) fn run(job: &Attention<'_>, kernels: &Kernels, state: &mut State) {
    let pad = job.cache.head_pad;
    let panels = job.visible.len().div_ceil(PANEL);
    let own = &mut state.fixed;
    own.q.reserve(panels * pad * PANEL);
    own.acc.reserve(panels * pad * PANEL);
    own.acc[..panels * pad * PANEL].fill(0.0);
    let feature_tiles = pad.div_ceil(TILE);
    own.k.reserve(KEYS * pad);
    own.k_scale.resize(KEYS, 0.0);
    own.v.reserve(feature_tiles * TILE * KEYS);
    own.v_scale.resize(feature_tiles * TILE, 0.0);
    own.scores.reserve(KEYS * PANEL);
    own.weights.reserve(KEYS * PANEL);
    state.k.reserve(TILE * (pad + SKEW));
    state.v.reserve(KEYS * (pad + SKEW));
    own.panels.clear();
    let queries = job.q.chunks(PANEL * pad).zip(own.q.chunks_exact_mut(PANEL * pad));
    for ((q, packed), visible) in queries.zip(job.visible.chunks(PANEL)) {
        let mut panel = Panel::new(visible);
        kernels.pack_fixed(q, pad, pad, visible.len(), PANEL, packed, &mut panel.scale);
        // The softmax works in powers of 2.
        panel.scale.iter_mut().for_each(|s| *s *= std::f32::consts::LOG2_E);
        own.panels.push(panel);
    }
    let cap = job.softcap.map(|c| c * std::f32::consts::LOG2_E);
    let mut at = job.range.start;
    while at < job.range.end {
        let n = KEYS.min(job.range.end - at);
        if own.panels.iter().any(|p| p.some[0] < at + n && p.some[1] > at) {
            pack(job, kernels, at, n, own, [&mut state.k, &mut state.v]);
            for panel in 0..panels {
                own.block(kernels, panel, pad, at, n, cap);
            }
        }
        at += n;
    }
    state.acc.resize(panels * PANEL * pad, 0.0);
    state.max.resize(panels * PANEL, 0.0);
    state.sum.resize(panels * PANEL, 0.0);
    let own = &state.fixed;
    let results = state.acc.chunks_exact_mut(PANEL * pad).zip(own.acc.chunks_exact(PANEL * pad));
    for (to, from) in results {
        kernels.transpose(from, PANEL, to, pad);
    }
    let (max, sum) = (state.max.as_chunks_mut::<PANEL>().0, state.sum.as_chunks_mut::<PANEL>().0);
    for ((max, sum), panel) in max.iter_mut().zip(sum).zip(&own.panels) {
        *max = panel.running.max.map(|m| m * std::f32::consts::LN_2);
        *sum = panel.running.sum;
    }
}

/// Packs the keys and values of positions `at .. at + n`.
fn pack(
    job: &Attention<'_>,
    kernels: &Kernels,
    at: usize,
    n: usize,
    own: &mut Scratch,
    [keys, values]: [&mut [f32]; 2],
) {
    let (pad, stride) = (job.cache.head_pad, job.cache.head_pad + SKEW);
    let tiles = own.k.chunks_exact_mut(pad * TILE).zip(own.k_scale.chunks_exact_mut(TILE));
    for (tile, (q, scale)) in tiles.enumerate().take(n.div_ceil(TILE)) {
        let count = TILE.min(n - tile * TILE);
        job.widen_one(kernels, KeyOrValue::Key, at + tile * TILE, count, stride, keys);
        kernels.pack_fixed(keys, stride, pad, count, TILE, q, scale);
    }
    job.widen_one(kernels, KeyOrValue::Value, at, n, stride, values);
    let words = own.v_scale.len() * KEYS;
    let (v, scale) = (&mut own.v[..words], &mut own.v_scale);
    kernels.pack_fixed_columns(values, stride, n, pad, KEYS, v, scale);
}

impl Panel {
    fn new(visible: &[std::ops::Range<usize>]) -> Self {
        // Lanes without a row do as the last one does.
        let last = visible.len() - 1;
        let sees: [_; PANEL] = std::array::from_fn(|i| visible[i.min(last)].clone());
        let starts = sees.each_ref().map(|s| s.start);
        let ends = sees.each_ref().map(|s| s.end);
        let least = |v: [usize; PANEL]| v.into_iter().fold(usize::MAX, usize::min);
        let most = |v: [usize; PANEL]| v.into_iter().fold(0, usize::max);
        Panel {
            scale: [0.0; PANEL],
            running: Running::new(),
            from: starts.map(|p| p as i32),
            to: ends.map(|p| p as i32),
            some: [least(starts), most(ends)],
            all: [most(starts), least(ends)],
        }
    }
}

impl Scratch {
    /// Takes the packed positions `at .. at + n` in, as far as a row of the panel sees them.
    fn block(
        &mut self,
        kernels: &Kernels,
        panel: usize,
        pad: usize,
        at: usize,
        n: usize,
        cap: Option<f32>,
    ) {
        let (q, acc) = (panel * pad * PANEL, panel * pad * PANEL);
        let panel = &mut self.panels[panel];
        let first = panel.some[0].saturating_sub(at) / TILE * TILE;
        let end = panel.some[1].saturating_sub(at).min(n);
        if first >= end {
            return;
        }
        let keys = end - first;
        // Pairs of keys: where there is one too many, nobody sees it.
        let even = keys.next_multiple_of(2);
        let scores = &mut self.scores[..even * PANEL];
        let job = FixedJob {
            blocks: Blocks { len: pad, count: 1 },
            panel: &self.q[q..][..pad * PANEL],
            panel_scale: &panel.scale,
            tiles: &self.k[first * pad..],
            tile_scale: &self.k_scale[first..],
            tile_words: pad * TILE,
            tile_scales: TILE,
            rows: keys,
        };
        kernels.multiply_fixed(&job, scores, PANEL, false);
        if let Some(cap) = cap {
            ops::softcap(kernels, &mut scores[..keys * PANEL], cap);
        }
        scores[keys * PANEL..].fill(f32::NEG_INFINITY);
        let from = at + first;
        let before = panel.all[0].clamp(from, at + end) - from;
        let after = panel.all[1].clamp(from, at + end) - from;
        for keys in [0..before, after.max(before)..keys] {
            if !keys.is_empty() {
                let scores = &mut scores[keys.start * PANEL..keys.end * PANEL];
                simd::run(kernels, Mask { scores, at: (from + keys.start) as i32, panel });
            }
        }
        let (mut scale, mut shrink) = ([0.0; PANEL], [0.0; PANEL]);
        let weights = Weights { q: &mut self.weights, scale: &mut scale, shrink: &mut shrink };
        softmax::fixed(kernels, scores, &mut panel.running, weights);
        let acc = &mut self.acc[acc..][..pad * PANEL];
        softmax::rescale(kernels, acc, &shrink);
        let job = FixedJob {
            blocks: Blocks { len: even, count: 1 },
            panel: &self.weights,
            panel_scale: &scale,
            tiles: &self.v[first * TILE..],
            tile_scale: &self.v_scale,
            tile_words: KEYS * TILE,
            tile_scales: TILE,
            rows: pad,
        };
        kernels.multiply_fixed(&job, acc, PANEL, true);
    }
}

/// Scores of what a row does not see become -∞.
struct Mask<'a> {
    /// `[keys][PANEL]`
    scores: &'a mut [f32],
    /// The position of the first key.
    at: i32,
    panel: &'a Panel,
}

impl Op for Mask<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (from, to) = (&self.panel.from, &self.panel.to);
        for (key, scores) in self.scores.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
            let here = self.at + key as i32;
            for i in 0..PANEL {
                let sees = (from[i] <= here) & (here < to[i]);
                scores[i] = if sees { scores[i] } else { f32::NEG_INFINITY };
            }
        }
    }
}
