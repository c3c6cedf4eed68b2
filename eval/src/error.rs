//! What can go wrong in a measurement.

use std::path::PathBuf;

use runtime::RuntimeError;

/// A measurement that cannot be made as asked for.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum EvalError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "the text is too short: {tokens} tokens, and a window has {ctx}; give a longer text or a smaller --ctx"
    )]
    TextTooShort { tokens: usize, ctx: usize },
    #[error("a window of {ctx} tokens scores nothing; --ctx must be at least 4")]
    WindowTooSmall { ctx: usize },
    #[error(
        "--stride {stride} leaves no context in windows of {ctx}; it must be from 1 to {}", ctx.saturating_sub(1)
    )]
    Stride { stride: usize, ctx: usize },
    #[error(
        "{model} and {reference} turn the text to different tokens; divergence needs the same tokenizer (perplexity alone does not: leave out the reference)"
    )]
    OtherTokens { model: String, reference: String },
    #[error(
        "{model} has a vocabulary of {found}, {reference} of {expected}; they cannot be compared"
    )]
    OtherVocabulary { model: String, reference: String, found: usize, expected: usize },
    #[error("{model}: logits at position {position} are not finite; the file is damaged")]
    NotFinite { model: String, position: usize },
    #[error("{}: {why}; save the logits again with --save-logits", path.display())]
    Saved { path: PathBuf, why: String },
    #[error("{}, line {line}: {why}", path.display())]
    Choices { path: PathBuf, line: usize, why: String },
    #[error(
        "the tensor {name:?} is in {there} and not in {missing}; only files of one model can be compared"
    )]
    OtherTensors { name: String, there: String, missing: String },
    #[error(
        "the tensor {name:?} is {a:?} in the one file and {b:?} in the other (fastest dimension first)"
    )]
    OtherShape { name: String, a: Vec<u64>, b: Vec<u64> },
    #[error(
        "{model} has {found} layers of {found_hidden} features, {reference} {expected} of {expected_hidden}; their residual streams cannot be compared"
    )]
    OtherArchitecture {
        model: String,
        reference: String,
        found: usize,
        found_hidden: usize,
        expected: usize,
        expected_hidden: usize,
    },
    #[error("stopped")]
    Cancelled,
}

impl EvalError {
    /// For `map_err` on I/O: what was being done, and to which file.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> EvalError {
        let path = path.into();
        move |source| EvalError::Io { doing, path, source }
    }
}
