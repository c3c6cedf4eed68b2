//! One block of an online softmax (Milakov & Gimelshein 2018), queries in lanes: what is done to
//! the scores of some keys and `PANEL` queries between attention's two products. And a whole softmax, of
//! one row.

use quant::kernels::Kernels;
use quant::kernels::fixed::{NORM, PANEL};

use crate::cpu::simd::{self, Op, Simd};

/// Running state of `PANEL` queries.
pub(crate) struct Running {
    /// Largest score so far; -∞ when there was none.
    pub(crate) max: [f32; PANEL],
    /// Σ 2^(s - max).
    pub(crate) sum: [f32; PANEL],
}

impl Running {
    pub(crate) fn new() -> Self {
        Running { max: [f32::NEG_INFINITY; PANEL], sum: [0.0; PANEL] }
    }
}

/// What a block of scores becomes: weights as a panel of the second product.
///
/// Weights are 2^(s - the block's own largest), so that a block that matters little is as exact in
/// itself as one that matters much; its scale carries how much it matters.
pub(crate) struct Weights<'a, W> {
    /// `[keys / 2][PANEL][2]` 16-bit words, or `[keys / 4][PANEL][4]` bytes.
    pub(crate) q: &'a mut [W],
    /// `[PANEL]`
    pub(crate) scale: &'a mut [f32; PANEL],
    /// What was summed so far is to be multiplied with this.
    pub(crate) shrink: &'a mut [f32; PANEL],
}

/// Takes `scores`, `[keys][PANEL]` with an even number of keys and in units of ln 2, into `running` and turns them into
/// `weights` of 16 bits. A key whose scores are -∞ is one that is not there. The scores are overwritten.
pub(crate) fn fixed(
    k: &Kernels,
    scores: &mut [f32],
    running: &mut Running,
    weights: Weights<'_, i16>,
) {
    let keys = scores.len() / PANEL;
    assert!(scores.len() == keys * PANEL && keys.is_multiple_of(2) && keys > 0);
    assert!(weights.q.len() >= scores.len());
    simd::run(k, Fixed { scores, running, weights });
}

/// The same with a multiple of 4 keys, and weights of 8 bits.
pub(crate) fn bytes(
    k: &Kernels,
    scores: &mut [f32],
    running: &mut Running,
    weights: Weights<'_, u8>,
) {
    let keys = scores.len() / PANEL;
    assert!(scores.len() == keys * PANEL && keys.is_multiple_of(4) && keys > 0);
    assert!(weights.q.len() >= scores.len());
    simd::run(k, Bytes { scores, running, weights });
}

struct Fixed<'a, 'b> {
    scores: &'a mut [f32],
    running: &'a mut Running,
    weights: Weights<'b, i16>,
}

impl Op for Fixed<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let keys = self.scores.len() / PANEL;
        for lane in (0..PANEL).step_by(S::LANES) {
            // SAFETY: `keys` rows of PANEL scores and, in turns, of words, and PANEL values of the
            // state, of which LANES begin at `lane`.
            unsafe {
                let scores = self.scores.as_mut_ptr().add(lane);
                let mut top = [s.splat(f32::NEG_INFINITY); 2];
                for key in (0..keys).step_by(2) {
                    top[0] = s.max(s.load(scores.add(key * PANEL)), top[0]);
                    top[1] = s.max(s.load(scores.add((key + 1) * PANEL)), top[1]);
                }
                let top = s.max(top[0], top[1]);
                let (mut sum, mut squares) = ([s.zero(); 2], [s.zero(); 2]);
                for key in (0..keys).step_by(2) {
                    let at = scores.add(key * PANEL);
                    let a = s.exp2_negative(s.sub(s.load(at), top));
                    let b = s.exp2_negative(s.sub(s.load(at.add(PANEL)), top));
                    sum = [s.add(sum[0], a), s.add(sum[1], b)];
                    squares = [s.fma(a, a, squares[0]), s.fma(b, b, squares[1])];
                    s.store(at, a);
                    s.store(at.add(PANEL), b);
                }
                // The finest unit that keeps the block's norm: for a peak as fine as 16 bits are.
                let squares = s.add(squares[0], squares[1]);
                let unit = units(s, squares);
                for key in (0..keys).step_by(2) {
                    let at = scores.add(key * PANEL);
                    let (a, b) = (s.load(at), s.load(at.add(PANEL)));
                    let out = self.weights.q.as_mut_ptr().add(key * PANEL + 2 * lane);
                    s.store_i16_pairs(out, s.mul(a, unit), s.mul(b, unit));
                }
                let sum = s.add(sum[0], sum[1]);
                let (weight, shrink) = advance(s, self.running, lane, top, sum);
                s.store(self.weights.shrink.as_mut_ptr().add(lane), shrink);
                s.store(self.weights.scale.as_mut_ptr().add(lane), s.div(weight, unit));
            }
        }
    }
}

/// What a weight of 1 is in fixed point: `NORM / √squares`, at most 32767.
#[inline(always)]
fn units<S: Simd>(s: S, squares: S::V) -> S::V {
    let mut lanes = [0.0f32; 16];
    // SAFETY: no vector is longer.
    unsafe {
        s.store(lanes.as_mut_ptr(), squares);
        for v in &mut lanes[..S::LANES] {
            *v = (NORM / v.sqrt()).min(32_767.0);
        }
        s.load(lanes.as_ptr())
    }
}

struct Bytes<'a, 'b> {
    scores: &'a mut [f32],
    running: &'a mut Running,
    weights: Weights<'b, u8>,
}

impl Op for Bytes<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let keys = self.scores.len() / PANEL;
        let unit = s.splat(255.0);
        for lane in (0..PANEL).step_by(S::LANES) {
            // SAFETY: `keys` rows of PANEL scores and, in fours, of bytes, and PANEL values of the
            // state, of which LANES begin at `lane`.
            unsafe {
                let scores = self.scores.as_ptr().add(lane);
                let mut top = [s.splat(f32::NEG_INFINITY); 4];
                for key in (0..keys).step_by(4) {
                    for (i, top) in top.iter_mut().enumerate() {
                        *top = s.max(s.load(scores.add((key + i) * PANEL)), *top);
                    }
                }
                let top = s.max(s.max(top[0], top[1]), s.max(top[2], top[3]));
                // Weights are summed up as they are rounded: what is divided by their sum is then a mean
                // of the values.
                let mut sum = [s.zero(); 4];
                for key in (0..keys).step_by(4) {
                    let mut quants = [s.zero(); 4];
                    for i in 0..4 {
                        let score = s.load(scores.add((key + i) * PANEL));
                        let weight = s.exp2_coarse(s.sub(score, top));
                        quants[i] = s.round(s.mul(weight, unit));
                        sum[i] = s.add(sum[i], quants[i]);
                    }
                    let out = self.weights.q.as_mut_ptr().add(key * PANEL + 4 * lane);
                    s.store_u8_fours(out, quants);
                }
                let sum = s.div(s.add(s.add(sum[0], sum[1]), s.add(sum[2], sum[3])), unit);
                let (weight, shrink) = advance(s, self.running, lane, top, sum);
                s.store(self.weights.shrink.as_mut_ptr().add(lane), shrink);
                s.store(self.weights.scale.as_mut_ptr().add(lane), s.div(weight, unit));
            }
        }
    }
}

/// Takes a block with the largest scores `top` and sums of weights `sum` into the state of the lanes
/// from `lane` on. Returns what the block's weights, and what was summed so far, are to be multiplied
/// with.
///
/// # Safety
/// LANES queries begin at `lane`.
#[inline(always)]
unsafe fn advance<S: Simd>(
    s: S,
    running: &mut Running,
    lane: usize,
    top: S::V,
    sum: S::V,
) -> (S::V, S::V) {
    // SAFETY: the caller says that the lanes are there.
    unsafe {
        let (max, total) = (running.max.as_mut_ptr().add(lane), running.sum.as_mut_ptr().add(lane));
        let before = s.load(max);
        let now = s.max(before, top);
        let shrink = s.exp2_negative(s.sub(before, now));
        let weight = s.exp2_negative(s.sub(top, now));
        s.store(total, s.fma(sum, weight, s.mul(s.load(total), shrink)));
        s.store(max, now);
        (weight, shrink)
    }
}

/// Multiplies what was summed so far, `[features][PANEL]`, with what a block told it to shrink by.
pub(crate) fn rescale(k: &Kernels, acc: &mut [f32], shrink: &[f32; PANEL]) {
    if *shrink != [1.0; PANEL] {
        simd::run(k, Rescale { acc, shrink });
    }
}

struct Rescale<'a> {
    acc: &'a mut [f32],
    shrink: &'a [f32; PANEL],
}

impl Op for Rescale<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let acc = self.acc.as_chunks_mut::<PANEL>().0;
        for lane in (0..PANEL).step_by(S::LANES) {
            // SAFETY: LANES of PANEL floats begin at `lane`.
            unsafe {
                let shrink = s.load(self.shrink.as_ptr().add(lane));
                for acc in acc.iter_mut() {
                    let p = acc.as_mut_ptr().add(lane);
                    s.store(p, s.mul(s.load(p), shrink));
                }
            }
        }
    }
}

/// Turns a row of scores into weights of which the largest is 1; returns their sum.
pub(crate) fn softmax_row(k: &Kernels, row: &mut [f32]) -> f32 {
    simd::run(k, Row { row })
}

struct Row<'a> {
    row: &'a mut [f32],
}

impl Op for Row<'_> {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let body = self.row.len() / S::LANES * S::LANES;
        let mut top = f32::NEG_INFINITY;
        for v in self.row.iter() {
            top = top.max(*v);
        }
        let (row, tops) = (self.row.as_mut_ptr(), s.splat(top));
        let mut sum = s.zero();
        for i in (0..body).step_by(S::LANES) {
            // SAFETY: i + LANES ≤ body ≤ the row's length.
            unsafe {
                let weight = s.exp(s.sub(s.load(row.add(i)), tops));
                s.store(row.add(i), weight);
                sum = s.add(sum, weight);
            }
        }
        let mut sum = s.sum(sum);
        for v in &mut self.row[body..] {
            *v = s.max_lane(s.exp(s.splat(*v - top)));
            sum += *v;
        }
        sum
    }
}
