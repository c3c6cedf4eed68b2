//! `POST /v1/completions`: a text is continued as it is.

use serde::Deserialize;

use super::{ApiError, Common, Whole};
use crate::api::chat::MOST_LOGPROBS;

/// The request.
#[derive(Debug, Deserialize)]
pub(crate) struct CompletionRequest {
    pub(crate) prompt: Prompts,
    #[serde(flatten)]
    pub(crate) common: Common,
    logprobs: Option<Whole>,
    echo: Option<bool>,
    // What changes answers and isn't done here.
    suffix: Option<String>,
    best_of: Option<Whole>,
}

/// One prompt or many.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "prompt is a text, token ids, or a list of these")]
pub(crate) enum Prompts {
    One(RawPrompt),
    More(Vec<RawPrompt>),
}

/// A text, or ids of tokens.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum RawPrompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// Prompts that one request can have.
const MOST_PROMPTS: usize = 64;

impl Prompts {
    /// One after the other.
    ///
    /// # Errors
    /// When they are none, or too many.
    pub(crate) fn take(self) -> Result<Vec<RawPrompt>, ApiError> {
        let prompts = match self {
            Prompts::One(prompt) => vec![prompt],
            Prompts::More(prompts) => prompts,
        };
        match prompts.len() {
            1..=MOST_PROMPTS => Ok(prompts),
            n => Err(ApiError::field(
                "prompt",
                format!("{n} prompts; 1 to {MOST_PROMPTS} are possible"),
            )),
        }
    }
}

impl CompletionRequest {
    /// Is nothing asked for that isn't done here?
    ///
    /// # Errors
    /// Names the field.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let not = |field| Err(ApiError::field(field, format!("{field} is not done here")));
        if self.suffix.as_ref().is_some_and(|s| !s.is_empty()) {
            return not("suffix");
        }
        let best_of = self.best_of.map_or(Ok(0), |n| n.count("best_of"))?;
        if best_of > self.common.choices()? {
            return not("best_of");
        }
        Ok(())
    }

    /// Is the prompt a part of the answer?
    pub(crate) fn echoes(&self) -> bool {
        self.echo.unwrap_or(false)
    }

    /// Of how many tokens the probabilities are wanted, if at all.
    ///
    /// # Errors
    /// When they are too many.
    pub(crate) fn log_probs(&self) -> Result<Option<usize>, ApiError> {
        match self.logprobs.map(|n| n.count("logprobs")).transpose()? {
            Some(n) if n > MOST_LOGPROBS => {
                let message = format!("logprobs is {n}; at most {MOST_LOGPROBS}");
                Err(ApiError::field("logprobs", message))
            }
            n => Ok(n),
        }
    }
}
