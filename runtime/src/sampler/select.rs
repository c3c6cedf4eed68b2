//! Which tokens may be drawn.
//!
//! A vocabulary has 262144 logits and rarely more than 64 candidates, so nothing is sorted whole:
//! logits below the worst candidate so far are skipped in blocks.

use std::cmp::Ordering;

use super::exp::exp;
use super::params::{SamplingError, SamplingParams};

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its logit.
    pub logit: f32,
}

impl Candidate {
    /// The likeliest first; of equal ones, the lower id.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.id.cmp(&other.id))
    }
}

/// Logits looked at together.
const BLOCK: usize = 64;
/// Independent maxima inside a block, so that the compiler can use wide registers.
const LANES: usize = 16;

/// The tokens that top-k, top-p and min-p leave, in an order that depends on nothing else. The
/// likeliest token is always among them; it is returned.
pub(super) fn candidates(
    logits: &[f32],
    params: &SamplingParams,
    out: &mut Vec<Candidate>,
) -> Result<Candidate, SamplingError> {
    let top_p = f64::from(params.top_p);
    let best;
    if params.top_k > 0 && params.top_k < logits.len() {
        best = top(logits, params.top_k, out)?;
        narrow(out, best, params);
        return Ok(best);
    } else if params.top_p < 1.0 {
        // Few tokens are nearly always enough: take more only as long as they are not.
        let mut k = 256;
        best = top(logits, k, out)?;
        let enough = top_p * logits.iter().map(|&logit| weight(logit, best)).sum::<f64>();
        while out.len() == k && weigh(out, best) < enough {
            k *= 8;
            top(logits, k, out)?;
        }
        nucleus(out, enough, best);
    } else {
        best = top(logits, 1, out)?;
        let all = (0u32..).zip(logits).map(|(id, &logit)| Candidate { id, logit });
        out.clear();
        out.extend(all.filter(|c| c.logit > f32::NEG_INFINITY));
    }
    without_improbable(out, best, params);
    Ok(best)
}

/// What top-p and min-p leave of the tokens that top-k left.
pub(super) fn narrow(out: &mut Vec<Candidate>, best: Candidate, params: &SamplingParams) {
    if params.top_p < 1.0 {
        let enough = f64::from(params.top_p) * weigh(out, best);
        nucleus(out, enough, best);
    }
    without_improbable(out, best, params);
}

/// What min-p leaves.
fn without_improbable(out: &mut Vec<Candidate>, best: Candidate, params: &SamplingParams) {
    if params.min_p > 0.0 {
        let least = f64::from(params.min_p);
        out.retain(|c| c.id == best.id || weight(c.logit, best) >= least);
    }
}

/// Σ of the candidates' weights.
fn weigh(out: &[Candidate], best: Candidate) -> f64 {
    out.iter().map(|c| weight(c.logit, best)).sum()
}

/// The probability of a logit at temperature 1, as a share of the likeliest one's.
fn weight(logit: f32, best: Candidate) -> f64 {
    exp(f64::from(logit) - f64::from(best.logit))
}

/// Cuts off what comes after the weights add up to `enough`.
fn nucleus(out: &mut Vec<Candidate>, enough: f64, best: Candidate) {
    let mut reached = 0.0;
    let last = out.iter().position(|c| {
        reached += weight(c.logit, best);
        reached >= enough
    });
    out.truncate(last.map_or(out.len(), |i| i + 1));
}

/// Finds the `k` likeliest tokens, or as many as there are, the likeliest first, and returns the
/// first. Looks at every logit.
pub(super) fn top(
    logits: &[f32],
    k: usize,
    out: &mut Vec<Candidate>,
) -> Result<Candidate, SamplingError> {
    let k = k.min(logits.len());
    out.clear();
    // No logit up to here can be among the best: of equal ones the earlier was met before.
    let mut floor = f32::NEG_INFINITY;
    for (block, base) in logits.chunks(BLOCK).zip((0u32..).step_by(BLOCK)) {
        let max = maximum(block);
        if max == f32::INFINITY {
            let bad = (base..).zip(block).find(|(_, x)| x.is_nan() || **x == f32::INFINITY);
            let (token, value) = bad.map_or((base, max), |(token, &value)| (token, value));
            return Err(SamplingError::Logit { token, value });
        }
        if max <= floor {
            continue;
        }
        for (&logit, id) in block.iter().zip(base..) {
            if logit > floor {
                out.push(Candidate { id, logit });
            }
        }
        if out.len() >= 2 * k + BLOCK {
            let (_, worst, _) = out.select_nth_unstable_by(k - 1, Candidate::order);
            floor = worst.logit;
            out.truncate(k);
        }
    }
    if out.len() > k {
        out.select_nth_unstable_by(k - 1, Candidate::order);
        out.truncate(k);
    }
    out.sort_unstable_by(Candidate::order);
    out.first().copied().ok_or(SamplingError::NoToken { logits: logits.len() })
}

/// The greatest of some logits; +∞ when any is NaN.
fn maximum(block: &[f32]) -> f32 {
    let greater = |m: f32, x: f32| if x > m { x } else { m };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut nan = [0; LANES];
    let mut chunks = block.chunks_exact(LANES);
    for chunk in &mut chunks {
        for i in 0..LANES {
            lanes[i] = greater(lanes[i], chunk[i]);
            nan[i] |= u32::from(chunk[i].is_nan());
        }
    }
    let rest = chunks.remainder();
    if nan.iter().any(|&n| n != 0) || rest.iter().any(|x| x.is_nan()) {
        return f32::INFINITY;
    }
    rest.iter().chain(&lanes).copied().fold(f32::NEG_INFINITY, greater)
}
