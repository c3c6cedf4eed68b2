//! From logits to the next token.
//!
//! Applied in llama.cpp's order: a grammar, biases, penalties, top-k, top-p, min-p, temperature, then one
//! draw. Top-p and min-p therefore see the distribution at temperature 1.
//!
//! The same logits, parameters and seed give the same tokens on every platform: the generator is
//! the crate's own, exponentials are computed from additions and multiplications alone, and equal
//! logits are ordered by token id.

mod exp;
mod params;
mod penalties;
mod probability;
mod rng;
mod select;

use crate::grammar::{Grammar, GrammarError};
pub use params::{SamplingError, SamplingParams};
use penalties::Penalties;
pub use probability::LogProbs;
use rng::Rng;
pub use select::Candidate;

/// Draws tokens; one for each sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    rng: Rng,
    penalties: Penalties,
    grammar: Option<Grammar>,
    /// What went wrong with it, to be said when the next token is to be drawn.
    broken: Option<GrammarError>,
    /// The logits with grammar, biases and penalties.
    changed: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler at the beginning of a sequence.
    ///
    /// # Errors
    /// [`SamplingError::Parameter`] for a parameter outside of its range.
    pub fn new(params: SamplingParams) -> Result<Self, SamplingError> {
        params.check()?;
        Ok(Sampler {
            rng: Rng::new(params.seed),
            params,
            penalties: Penalties::default(),
            grammar: None,
            broken: None,
            changed: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// Draws only what the grammar goes on with.
    pub fn with_grammar(mut self, grammar: Grammar) -> Self {
        self.grammar = Some(grammar);
        self
    }

    /// Are the likeliest tokens others than those with the highest logits?
    fn changes_logits(&self) -> bool {
        self.grammar.is_some() || self.params.changes_logits()
    }

    /// The parameters it was made with.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Does it take the likeliest token, whatever came before?
    pub fn is_greedy(&self) -> bool {
        let first = self.params.temperature <= 0.0 || self.params.top_k == 1;
        first && !self.changes_logits()
    }

    /// The next token for these logits, one per token of the vocabulary. Tokens at -∞ are never
    /// drawn. Does not [`accept`](Self::accept) it.
    ///
    /// # Errors
    /// [`SamplingError`] when a logit is NaN or +∞, or none is left to draw.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        let logits = if self.changes_logits() {
            self.changed.clear();
            self.changed.extend_from_slice(logits);
            if let Some(grammar) = &mut self.grammar {
                match self.broken.take() {
                    Some(e) => return Err(e.into()),
                    None => grammar.mask(&mut self.changed)?,
                }
            }
            self.penalties.apply(&self.params, &mut self.changed);
            &self.changed
        } else {
            logits
        };
        let candidates = &mut self.candidates;
        if self.params.temperature <= 0.0 || self.params.top_k == 1 {
            return Ok(select::top(logits, 1, candidates)?.id);
        }
        let best = select::candidates(logits, &self.params, candidates)?;
        Ok(draw(candidates, best.logit, self.params.temperature, self.rng.unit()))
    }

    /// The k likeliest tokens are all that a draw depends on, where they are: that k. (`None`
    /// without top-k, and where a grammar, bias or penalty changes which are the likeliest.) `vocab` is the number
    /// of tokens.
    pub fn top_k(&self, vocab: usize) -> Option<usize> {
        let k = if self.params.temperature <= 0.0 { 1 } else { self.params.top_k };
        (!self.changes_logits() && 0 < k && k < vocab).then_some(k)
    }

    /// As [`Sampler::sample`], given only the [`Sampler::top_k`] likeliest tokens, in any order
    /// (of equal ones those with the lower ids): the same token for the same logits.
    ///
    /// # Errors
    /// As [`Sampler::sample`]; a logit that is NaN must be among those given to be noticed.
    pub fn sample_top(&mut self, top: &[Candidate]) -> Result<u32, SamplingError> {
        if let Some(bad) = top.iter().find(|c| c.logit.is_nan() || c.logit == f32::INFINITY) {
            return Err(SamplingError::Logit { token: bad.id, value: bad.logit });
        }
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(top.iter().filter(|c| c.logit > f32::NEG_INFINITY));
        candidates.sort_unstable_by(Candidate::order);
        let Some(&best) = candidates.first() else {
            return Err(SamplingError::NoToken { logits: top.len() });
        };
        if self.params.temperature <= 0.0 || self.params.top_k == 1 {
            return Ok(best.id);
        }
        select::narrow(candidates, best, &self.params);
        Ok(draw(candidates, best.logit, self.params.temperature, self.rng.unit()))
    }

    /// Begins a sequence: what was taken note of is forgotten, and `prompt` taken note of; a grammar begins
    /// after it. The random numbers go on.
    pub fn begin(&mut self, prompt: &[u32]) {
        self.penalties = Penalties::default();
        self.broken = None;
        if let Some(grammar) = &mut self.grammar {
            grammar.restart();
        }
        prompt.iter().for_each(|&token| self.penalties.given(&self.params, token));
    }

    /// Takes note of a token that was drawn, for penalties and grammar.
    pub fn accept(&mut self, token: u32) {
        if let Some(grammar) = &mut self.grammar {
            self.broken = grammar.accept(token).err();
        }
        self.penalties.drawn(&self.params, token);
    }
}

/// The candidate in which `unit`, from [0, 1), falls when each takes a share of that interval
/// proportional to exp(logit / temperature).
fn draw(candidates: &[Candidate], best: f32, temperature: f32, unit: f64) -> u32 {
    let weight =
        |c: &Candidate| exp::exp((f64::from(c.logit) - f64::from(best)) / f64::from(temperature));
    let mut left = unit * candidates.iter().map(weight).sum::<f64>();
    for c in candidates {
        left -= weight(c);
        if left < 0.0 {
            return c.id;
        }
    }
    // Rounding may leave a little over after the last one.
    candidates.last().map_or(0, |c| c.id)
}

#[cfg(test)]
mod tests;
