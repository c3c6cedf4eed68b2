//! What makes tokens less likely, or more: where they were before, and wishes.

use std::collections::{BTreeMap, VecDeque};

use super::params::SamplingParams;

/// What a sequence has had, as far as penalties ask for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Penalties {
    /// The tokens that the repetition penalty looks back at.
    latest: VecDeque<u32>,
    /// How often tokens were drawn, prompts left out.
    drawn: BTreeMap<u32, u32>,
}

impl Penalties {
    /// A token of the prompt.
    pub(super) fn given(&mut self, params: &SamplingParams, token: u32) {
        if params.repeat_penalty == 1.0 || params.repeat_last_n == Some(0) {
            return;
        }
        if params.repeat_last_n.is_some_and(|n| self.latest.len() >= n) {
            self.latest.pop_front();
        }
        self.latest.push_back(token);
    }

    /// A token that was drawn.
    pub(super) fn drawn(&mut self, params: &SamplingParams, token: u32) {
        self.given(params, token);
        if params.frequency_penalty != 0.0 || params.presence_penalty != 0.0 {
            *self.drawn.entry(token).or_default() += 1;
        }
    }

    /// Biases are added; then the repetition penalty divides positive logits of tokens seen before and
    /// multiplies negative ones, once for each token (Keskar et al. 2019, CTRL); then what OpenAI's
    /// interface calls frequency and presence penalty are subtracted. What is not in the vocabulary is
    /// passed over.
    pub(super) fn apply(&self, params: &SamplingParams, logits: &mut [f32]) {
        for &(token, bias) in &params.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        let mut seen: Vec<u32> = self.latest.iter().copied().collect();
        seen.sort_unstable();
        seen.dedup();
        let penalty = params.repeat_penalty;
        for token in seen {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        for (&token, &times) in &self.drawn {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= times as f32 * params.frequency_penalty + params.presence_penalty;
            }
        }
    }
}
