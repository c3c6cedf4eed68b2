//! Attention of many query rows: the lanes of a vector are rows.
//!
//! Queries are turned once, `[feature][row]`, and so are scores and sums. Then a product broadcasts one
//! number of a key or value and multiplies it with many rows: nothing is ever added up across lanes,
//! a softmax is vertical, and a tile of sums stays in registers as in any matrix product.
//!
//! Rows come in panels, whose queries, or sums, lie together and stay in the first-level cache while the
//! keys, or values, of a block go by.

use quant::kernels::Kernels;

use super::super::simd::{self, Op, Simd};
use super::{Attention, SKEW, State};
use crate::aligned::Aligned;

/// Positions in one block.
const BLOCK: usize = 64;
/// Keys, or features of values, in a register tile at most.
const TILE: usize = 8;
/// Row vectors in a register tile.
const VECTORS: usize = 2;
/// Rows of a panel: two vectors of the widest instruction set.
const PANEL: usize = 32;

/// Queries, sums and scores with rows in the lanes.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[panels, head_pad, PANEL]`
    q: Aligned<f32>,
    /// `[panels, head_pad, PANEL]`: Σ e^(s - max) · v.
    acc: Aligned<f32>,
    /// `[BLOCK, PANEL]`: a panel's scores, then their weights.
    scores: Aligned<f32>,
    /// `[panels, 2, PANEL]`: the first position that each row sees, and the one after the last.
    sees: Vec<f32>,
}

/// [`Attention::run`] for many rows.
pub(super) fn run(job: &Attention<'_>, kernels: &Kernels, state: &mut State) {
    let pad = job.cache.head_pad;
    let panels = job.visible.len().div_ceil(PANEL);
    let stride = pad + SKEW;
    state.max.clear();
    state.max.resize(panels * PANEL, f32::NEG_INFINITY);
    state.sum.clear();
    state.sum.resize(panels * PANEL, 0.0);
    state.k.reserve(BLOCK * stride);
    state.v.reserve(BLOCK * stride);
    let many = &mut state.many;
    many.scores.reserve(BLOCK * PANEL);
    many.q.reserve(panels * pad * PANEL);
    many.acc.reserve(panels * pad * PANEL);
    many.acc[..panels * pad * PANEL].fill(0.0);
    for (from, to) in job.q.chunks(pad * PANEL).zip(many.q.chunks_exact_mut(pad * PANEL)) {
        if from.len() < to.len() {
            to.fill(0.0);
        }
        kernels.transpose(from, pad, to, PANEL);
    }
    many.sees.clear();
    many.sees.resize(panels * 2 * PANEL, 0.0);
    for (visible, sees) in job.visible.chunks(PANEL).zip(many.sees.chunks_exact_mut(2 * PANEL)) {
        for (i, visible) in visible.iter().enumerate() {
            sees[i] = visible.start as f32;
            sees[PANEL + i] = visible.end as f32;
        }
    }
    let first = job.visible.iter().map(|v| v.start).max().unwrap_or(0);
    let last = job.visible.iter().map(|v| v.end).min().unwrap_or(0);
    let mut at = job.range.start;
    while at < job.range.end {
        let n = BLOCK.min(job.range.end - at);
        job.widen(kernels, at, n, stride, [&mut state.k, &mut state.v]);
        for to in [&mut state.k, &mut state.v] {
            to[n * stride..n.next_multiple_of(TILE) * stride].fill(0.0); // tiles read them
        }
        let masked = at < first || at + n > last;
        simd::run(kernels, Block { softcap: job.softcap, pad, panels, at, n, masked, state });
        at += n;
    }
    state.acc.resize(panels * PANEL * pad, 0.0);
    let rows = state.acc.chunks_exact_mut(PANEL * pad);
    for (from, to) in state.many.acc.chunks_exact(pad * PANEL).zip(rows) {
        kernels.transpose(from, PANEL, to, pad);
    }
}

/// One block of positions, widened.
struct Block<'a> {
    softcap: Option<f32>,
    pad: usize,
    panels: usize,
    at: usize,
    n: usize,
    /// Is there a row that does not see all of it?
    masked: bool,
    state: &'a mut State,
}

impl Op for Block<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (pad, panels, stride) = (self.pad, self.panels, self.pad + SKEW);
        let keys = self.n.next_multiple_of(TILE);
        let State { k, v, many, max, sum, .. } = self.state;
        let lanes = VECTORS * S::LANES;
        assert!(keys <= BLOCK && pad.is_multiple_of(TILE) && PANEL.is_multiple_of(lanes));
        assert!(k.len() >= keys * stride && v.len() >= keys * stride);
        assert!(many.q.len() >= panels * pad * PANEL && many.acc.len() >= panels * pad * PANEL);
        assert!(many.scores.len() >= BLOCK * PANEL && many.sees.len() == panels * 2 * PANEL);
        assert!(max.len() == panels * PANEL && sum.len() == panels * PANEL);
        // Keys past the last, which fill up the tile, are seen by nobody.
        let masked = self.masked || keys != self.n;
        for r in (0..panels * PANEL).step_by(lanes) {
            let (panel, lane) = (r / PANEL, r % PANEL);
            // SAFETY: by the lengths asserted, `lanes` rows from `lane` on of this panel of each array,
            // `keys` rows of `stride` floats of keys and values, the first `pad` of which are read.
            unsafe {
                let scores = many.scores.as_mut_ptr().add(lane);
                let q = many.q.as_ptr().add(panel * pad * PANEL + lane);
                for key in (0..keys).step_by(TILE) {
                    let (k, out) = (k.as_ptr().add(key * stride), scores.add(key * PANEL));
                    if S::WIDE {
                        products::<S, TILE, false>(s, k, stride, 1, q, pad, out);
                    } else {
                        let half = TILE / 2;
                        products::<S, { TILE / 2 }, false>(s, k, stride, 1, q, pad, out);
                        let (k, out) = (k.add(half * stride), out.add(half * PANEL));
                        products::<S, { TILE / 2 }, false>(s, k, stride, 1, q, pad, out);
                    }
                }
                if let Some(cap) = self.softcap {
                    softcap(s, scores, keys, cap);
                }
                if masked {
                    let sees = many.sees.as_ptr().add(panel * 2 * PANEL + lane);
                    mask(s, scores, keys, sees, self.at, self.n);
                }
                let acc = many.acc.as_mut_ptr().add(panel * pad * PANEL + lane);
                let (max, sum) = (max.as_mut_ptr().add(r), sum.as_mut_ptr().add(r));
                for half in 0..VECTORS {
                    let h = half * S::LANES;
                    softmax(s, scores.add(h), keys, max.add(h), sum.add(h), acc.add(h), pad);
                }
                for d in (0..pad).step_by(TILE) {
                    let (v, acc) = (v.as_ptr().add(d), acc.add(d * PANEL));
                    if S::WIDE {
                        products::<S, TILE, true>(s, v, 1, stride, scores, keys, acc);
                    } else {
                        let half = TILE / 2;
                        products::<S, { TILE / 2 }, true>(s, v, 1, stride, scores, keys, acc);
                        let (v, acc) = (v.add(half), acc.add(half * PANEL));
                        products::<S, { TILE / 2 }, true>(s, v, 1, stride, scores, keys, acc);
                    }
                }
            }
        }
    }
}

/// out[i][lanes] (+)= Σ_j a[i · across + j · along] · b[j · PANEL][lanes], for `T` values of i and `len`
/// of j; `ADD` adds to what is there.
///
/// # Safety
/// All those of `a` can be read, `VECTORS` vectors at each `b + j · PANEL`, and as many can be read and
/// written at each `out + i · PANEL`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn products<S: Simd, const T: usize, const ADD: bool>(
    s: S,
    a: *const f32,
    across: usize,
    along: usize,
    b: *const f32,
    len: usize,
    out: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[s.zero(); VECTORS]; T];
        if ADD {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = s.load(out.add(i * PANEL + j * S::LANES));
                }
            }
        }
        for j in 0..len {
            let b = b.add(j * PANEL);
            let b = [s.load(b), s.load(b.add(S::LANES))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = s.splat(*a.add(i * across + j * along));
                sums[0] = s.fma(a, b[0], sums[0]);
                sums[1] = s.fma(a, b[1], sums[1]);
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            s.store(out.add(i * PANEL), sums[0]);
            s.store(out.add(i * PANEL + S::LANES), sums[1]);
        }
    }
}

/// Scores become `cap · tanh(s / cap)`.
///
/// # Safety
/// `VECTORS` vectors at `scores + key · PANEL` for each of `keys`.
#[inline(always)]
unsafe fn softcap<S: Simd>(s: S, scores: *mut f32, keys: usize, cap: f32) {
    let c = s.splat(cap);
    for key in 0..keys {
        for half in 0..VECTORS {
            // SAFETY: the caller's.
            unsafe {
                let p = scores.add(key * PANEL + half * S::LANES);
                s.store(p, s.mul(c, s.tanh(s.div(s.load(p), c))));
            }
        }
    }
}

/// Scores of what a row does not see become so low that their weights vanish (at most e^-87, far below
/// rounding, as soon as the row has seen anything), without a comparison: a distance that is negative
/// outside is multiplied by a huge number, and the smaller of the two is taken.
///
/// # Safety
/// As for [`softcap`], and `[2, PANEL]` at `sees`.
#[inline(always)]
unsafe fn mask<S: Simd>(
    s: S,
    scores: *mut f32,
    keys: usize,
    sees: *const f32,
    at: usize,
    n: usize,
) {
    let huge = s.splat(1e30);
    for key in 0..keys {
        let here = if key < n { (at + key) as f32 + 0.5 } else { f32::MAX };
        let here = s.splat(here);
        for half in 0..VECTORS {
            // SAFETY: the caller's.
            unsafe {
                let (p, sees) =
                    (scores.add(key * PANEL + half * S::LANES), sees.add(half * S::LANES));
                let after = s.sub(here, s.load(sees));
                let before = s.sub(s.load(sees.add(PANEL)), here);
                let limit = s.mul(s.min(after, before), huge);
                s.store(p, s.min(limit, s.load(p)));
            }
        }
    }
}

/// Turns the scores of one vector of rows into weights e^(s - max), rescaling what was summed so far
/// where a maximum rises.
///
/// # Safety
/// A vector at `scores + key · PANEL` for each of `keys`, at `max`, at `sum`, and at `acc + d · PANEL` for
/// each d below `pad`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn softmax<S: Simd>(
    s: S,
    scores: *mut f32,
    keys: usize,
    max: *mut f32,
    sum: *mut f32,
    acc: *mut f32,
    pad: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let old = s.load(max);
        let mut top = old;
        for key in 0..keys {
            top = s.max(s.load(scores.add(key * PANEL)), top);
        }
        let mut total = s.load(sum);
        if s.max_lane(s.sub(top, old)) > 0.0 {
            let shrink = s.exp(s.sub(old, top));
            total = s.mul(total, shrink);
            for d in 0..pad {
                let p = acc.add(d * PANEL);
                s.store(p, s.mul(s.load(p), shrink));
            }
            s.store(max, top);
        }
        for key in 0..keys {
            let p = scores.add(key * PANEL);
            let weight = s.exp(s.sub(s.load(p), top));
            s.store(p, weight);
            total = s.add(total, weight);
        }
        s.store(sum, total);
    }
}
