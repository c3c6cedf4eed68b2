//! The line of figures about an answer.

use std::fmt;
use std::time::Duration;

use crate::format::rate;

/// How an answer came about.
pub(crate) struct Figures {
    /// Tokens of the prompt that were computed.
    pub(crate) prompt: usize,
    /// Those that the cache held.
    pub(crate) reused: usize,
    /// Tokens of the answer.
    pub(crate) tokens: usize,
    /// Tokens drawn after the first one, which came with the prompt.
    pub(crate) decoded: usize,
    /// What the prompt took, up to the first token.
    pub(crate) prompt_time: Duration,
    /// What came after it.
    pub(crate) decode_time: Duration,
    /// What whoever asked waited for the first token.
    pub(crate) first: Duration,
    /// Why it ended, where that is worth saying.
    pub(crate) why: &'static str,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reused = match self.reused {
            0 => String::new(),
            n => format!(" (+{n} remembered)"),
        };
        let why = if self.why.is_empty() { String::new() } else { format!(" · {}", self.why) };
        write!(
            f,
            "[prompt {} tokens{reused}, {} tokens/s · generated {} tokens, {} tokens/s · first token after {:.2} s{why}]",
            self.prompt,
            rate(self.prompt, self.prompt_time.as_secs_f64()),
            self.tokens,
            rate(self.decoded, self.decode_time.as_secs_f64()),
            self.first.as_secs_f64(),
        )
    }
}
