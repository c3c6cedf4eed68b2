//! One block of an online softmax (Milakov & Gimelshein 2018), queries in lanes: what is done to
//! the scores of some keys and `PANEL` queries between attention's two products.

use quant::kernels::Kernels;
use quant::kernels::fixed::{NORM, PANEL};

use crate::cpu::simd::{self, Op, Simd};

/// Running state of `PANEL` queries.
pub(super) struct Running {
    /// Largest score so far; -∞ when there was none.
    pub(super) max: [f32; PANEL],
    /// Σ 2^(s - max).
    pub(super) sum: [f32; PANEL],
}

impl Running {
    pub(super) fn new() -> Self {
        Running { max: [f32::NEG_INFINITY; PANEL], sum: [0.0; PANEL] }
    }
}

/// What a block of scores becomes: weights as a panel of the second product, in fixed point.
///
/// Weights are 2^(s - the block's own largest), so that a block that matters little is as exact in
/// itself as one that matters much; its scale carries how much it matters.
pub(super) struct Weights<'a> {
    /// `[keys / 2][PANEL][2]`
    pub(super) q: &'a mut [i16],
    /// `[PANEL]`
    pub(super) scale: &'a mut [f32; PANEL],
    /// What was summed so far is to be multiplied with this.
    pub(super) shrink: &'a mut [f32; PANEL],
}

/// Takes `scores`, `[keys][PANEL]` with an even number of keys and in units of ln 2, into `running` and turns them into
/// `weights`. A key whose scores are -∞ is one that is not there. The scores are overwritten.
pub(super) fn softmax(
    k: &Kernels,
    scores: &mut [f32],
    running: &mut Running,
    weights: Weights<'_>,
) {
    let keys = scores.len() / PANEL;
    assert!(scores.len() == keys * PANEL && keys.is_multiple_of(2) && keys > 0);
    assert!(weights.q.len() >= scores.len());
    simd::run(k, Block { scores, running, weights });
}

struct Block<'a, 'b> {
    scores: &'a mut [f32],
    running: &'a mut Running,
    weights: Weights<'b>,
}

impl Op for Block<'_, '_> {
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
                let (max, total) = (&mut self.running.max, &mut self.running.sum);
                let before = s.load(max.as_ptr().add(lane));
                let now = s.max(before, top);
                let (shrink, weight) =
                    (s.exp2_negative(s.sub(before, now)), s.exp2_negative(s.sub(top, now)));
                let so_far = s.mul(s.load(total.as_ptr().add(lane)), shrink);
                let so_far = s.fma(s.add(sum[0], sum[1]), weight, so_far);
                s.store(total.as_mut_ptr().add(lane), so_far);
                s.store(max.as_mut_ptr().add(lane), now);
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
