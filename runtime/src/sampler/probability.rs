//! How likely tokens were.

use super::exp::exp;
use super::params::SamplingError;
use super::select;

/// Natural logarithms of probabilities after one position: the model's own, at temperature 1, before
/// penalties and before anything is cut off.
#[derive(Clone, Debug, PartialEq)]
pub struct LogProbs {
    /// Of the token that was asked for.
    pub token: f32,
    /// The likeliest tokens and theirs, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

impl LogProbs {
    /// Of `token`, and of the `top` likeliest, by these logits, one per token of the vocabulary.
    ///
    /// # Errors
    /// [`SamplingError`] when a logit is NaN or +∞, or all are -∞.
    ///
    /// # Panics
    /// When `token` is none of the vocabulary's.
    pub fn new(logits: &[f32], token: u32, top: usize) -> Result<Self, SamplingError> {
        let mut likeliest = Vec::new();
        let best = select::top(logits, top.max(1), &mut likeliest)?;
        let most = f64::from(best.logit);
        // Most of a vocabulary adds nothing to the sum, not even together.
        let sum: f64 = logits.iter().map(|&logit| exp(f64::from(logit) - most)).sum();
        let all = most + sum.ln();
        let of = |logit: f32| (f64::from(logit) - all) as f32;
        likeliest.truncate(top);
        let top = likeliest.iter().map(|c| (c.id, of(c.logit))).collect();
        Ok(LogProbs { token: of(logits[token as usize]), top })
    }
}
