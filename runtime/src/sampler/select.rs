//! Which tokens may be drawn.
//!
//! A vocabulary has 262144 logits and rarely more than 64 candidates, so nothing is sorted whole:
//! logits below the worst candidate so far are skipped in blocks.

use std::cmp::Ordering;

use super::exp::exp;
use super::params::{SamplingError, SamplingParams};

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
}

impl Candidate {
    /// The likeliest first; of equal ones, the lower id.
    fn order(&self, other: &Self) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.id.cmp(&other.id))
    }
}

/// Logits looked at together: enough for the compiler to use wide registers.
const BLOCK: usize = 64;

/// The likeliest token.
pub(super) fn best(logits: &[f32]) -> Result<Candidate, SamplingError> {
    let mut best = Candidate { id: 0, logit: f32::NEG_INFINITY };
    for (block, base) in logits.chunks(BLOCK).zip((0u32..).step_by(BLOCK)) {
        // `max` passes over NaN, so that is counted apart; both loops vectorize.
        let max = block.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
        let bad = block.iter().fold(false, |bad, x| bad | x.is_nan()) || max == f32::INFINITY;
        if bad || max > best.logit {
            for (&logit, id) in block.iter().zip(base..) {
                if logit.is_nan() || logit == f32::INFINITY {
                    return Err(SamplingError::Logit { token: id, value: logit });
                }
                if logit > best.logit {
                    best = Candidate { id, logit };
                }
            }
        }
    }
    if best.logit == f32::NEG_INFINITY {
        return Err(SamplingError::NoToken { logits: logits.len() });
    }
    Ok(best)
}

/// The tokens that top-k, top-p and min-p leave, in an order that depends on nothing else. Never
/// empty: the likeliest token stays whatever the parameters are.
pub(super) fn candidates(
    logits: &[f32],
    best: Candidate,
    params: &SamplingParams,
    out: &mut Vec<Candidate>,
) {
    let weight = |logit: f32| exp(f64::from(logit) - f64::from(best.logit));
    let weigh = |out: &[Candidate]| out.iter().map(|c| weight(c.logit)).sum::<f64>();
    let top_p = f64::from(params.top_p);
    if params.top_k > 0 && params.top_k < logits.len() {
        top(logits, params.top_k, out);
        if params.top_p < 1.0 {
            let enough = top_p * weigh(out);
            nucleus(out, enough, weight);
        }
    } else if params.top_p < 1.0 {
        let enough = top_p * logits.iter().map(|&logit| weight(logit)).sum::<f64>();
        // Few tokens are nearly always enough: take more only as long as they are not.
        let mut k = 256;
        top(logits, k, out);
        while weigh(out) < enough && out.len() == k {
            k *= 8;
            top(logits, k, out);
        }
        nucleus(out, enough, weight);
    } else {
        let all = (0u32..).zip(logits).map(|(id, &logit)| Candidate { id, logit });
        out.clear();
        out.extend(all.filter(|c| c.logit > f32::NEG_INFINITY));
    }
    if params.min_p > 0.0 {
        let least = f64::from(params.min_p);
        out.retain(|c| c.id == best.id || weight(c.logit) >= least);
    }
}

/// Cuts off what comes after the weights add up to `enough`.
fn nucleus(out: &mut Vec<Candidate>, enough: f64, weight: impl Fn(f32) -> f64) {
    let mut reached = 0.0;
    let last = out.iter().position(|c| {
        reached += weight(c.logit);
        reached >= enough
    });
    out.truncate(last.map_or(out.len(), |i| i + 1));
}

/// The `k` likeliest tokens, or as many as there are, the likeliest first.
fn top(logits: &[f32], k: usize, out: &mut Vec<Candidate>) {
    let k = k.min(logits.len());
    out.clear();
    // No logit up to here can be among the best: of equal ones the earlier was met before.
    let mut floor = f32::NEG_INFINITY;
    for (block, base) in logits.chunks(BLOCK).zip((0u32..).step_by(BLOCK)) {
        if !block.iter().fold(false, |any, &logit| any | (logit > floor)) {
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
}
