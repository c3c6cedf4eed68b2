//! How to sample, and what a file recommends.

use quant::gguf::{Gguf, GgufError};

use crate::grammar::GrammarError;

/// Why no token could be drawn.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum SamplingError {
    #[error("the sampling parameter {name} is {value}; {expected}")]
    Parameter { name: &'static str, value: f32, expected: &'static str },
    #[error(
        "the logit of token {token} is {value}: weights are damaged, or, with an f16 cache, keys or values too large for it (--kv f32 holds them)"
    )]
    Logit { token: u32, value: f32 },
    #[error("there is no token to draw: {logits} logits, all of them -inf")]
    NoToken { logits: usize },
    #[error(transparent)]
    Grammar(#[from] GrammarError),
}

/// How to draw the next token.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits: below 1 the likely gets likelier. 0 takes the likeliest token always.
    pub temperature: f32,
    /// Only this many of the likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability; 1 for all.
    pub top_p: f32,
    /// Only tokens at least this probable, as a share of the likeliest one; 0 for all.
    pub min_p: f32,
    /// Makes tokens seen before less likely; 1 for no penalty.
    pub repeat_penalty: f32,
    /// How many tokens back the penalty looks; `None` for the whole sequence.
    pub repeat_last_n: Option<usize>,
    /// Taken from a token's logit for each time it was drawn since the prompt; 0 for nothing.
    pub frequency_penalty: f32,
    /// Taken from a token's logit once it was drawn since the prompt; 0 for nothing.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens, before all else.
    pub logit_bias: Vec<(u32, f32)>,
    /// Chooses the random numbers.
    pub seed: u64,
}

impl Default for SamplingParams {
    /// What Gemma 3 recommends: temperature 1, top-k 64, top-p 0.95, no penalty.
    fn default() -> Self {
        SamplingParams {
            temperature: 1.0,
            top_k: 64,
            top_p: 0.95,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: Some(64),
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// The likeliest token, always.
    pub fn greedy() -> Self {
        SamplingParams { temperature: 0.0, ..Self::default() }
    }

    /// A seed that nobody chose: the standard library's randomness for hash maps is the system's.
    pub fn fresh_seed() -> u64 {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(0)
    }

    /// What a file recommends, and [`default`](Self::default) where it says nothing.
    ///
    /// The keys are llama.cpp's, `general.sampling.{temp, top_k, top_p, min_p, penalty_repeat,
    /// penalty_last_n}`; the same under `lapidary.sampling` go before them.
    ///
    /// # Errors
    /// [`GgufError::KeyType`] when a key holds something else than a number. Values outside of
    /// their range are left to [`Sampler::new`](super::Sampler::new).
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, GgufError> {
        let number = |name: &str| {
            let ours = gguf.f32(&format!("lapidary.sampling.{name}"))?;
            if ours.is_some() {
                return Ok(ours);
            }
            gguf.f32(&format!("general.sampling.{name}"))
        };
        let mut params = Self::default();
        for (name, field) in [
            ("temp", &mut params.temperature),
            ("top_p", &mut params.top_p),
            ("min_p", &mut params.min_p),
            ("penalty_repeat", &mut params.repeat_penalty),
        ] {
            if let Some(value) = number(name)? {
                *field = value;
            }
        }
        // Conversion saturates: negative numbers mean "all" here.
        if let Some(k) = number("top_k")? {
            params.top_k = k as usize;
        }
        if let Some(n) = number("penalty_last_n")? {
            params.repeat_last_n = (n >= 0.0).then_some(n as usize);
        }
        Ok(params)
    }

    /// Are the likeliest tokens others than those with the highest logits?
    pub(super) fn changes_logits(&self) -> bool {
        self.repeat_penalty != 1.0
            || self.frequency_penalty != 0.0
            || self.presence_penalty != 0.0
            || !self.logit_bias.is_empty()
    }

    /// Are all of them in their ranges?
    ///
    /// # Errors
    /// [`SamplingError::Parameter`] for the first that is not.
    pub fn check(&self) -> Result<(), SamplingError> {
        let penalty = |name, value: f32| (name, value, value.is_finite(), "it must be finite");
        let checks = [
            ("temperature", self.temperature, self.temperature >= 0.0, "it must be 0 or more"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "it must be in (0, 1]"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "it must be in [0, 1]"),
            (
                "repeat_penalty",
                self.repeat_penalty,
                self.repeat_penalty > 0.0 && self.repeat_penalty.is_finite(),
                "it must be positive; 1 is no penalty",
            ),
            penalty("frequency_penalty", self.frequency_penalty),
            penalty("presence_penalty", self.presence_penalty),
        ];
        let biases = self.logit_bias.iter().map(|&(_, bias)| {
            ("logit_bias", bias, bias.is_finite(), "it must be finite; -100 forbids a token")
        });
        match checks.into_iter().chain(biases).find(|&(_, _, ok, _)| !ok) {
            Some((name, value, _, expected)) => {
                Err(SamplingError::Parameter { name, value, expected })
            }
            None => Ok(()),
        }
    }
}
