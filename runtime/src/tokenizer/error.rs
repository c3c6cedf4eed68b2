//! What can be wrong with the vocabulary in a file.

use quant::gguf::GgufError;

/// A vocabulary refused. Every message names the key and the value at odds, and what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum TokenizerError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(
        "tokenizer.ggml.model is {found:?}; only \"llama\" (SentencePiece, as Gemma has it) is supported: convert the model again"
    )]
    Model { found: String },
    #[error("the key {key:?} is missing: the file holds no vocabulary; convert the model again")]
    Missing { key: &'static str },
    #[error("{key} is an array of {found}, not of {expected}; convert the model again")]
    ItemType { key: &'static str, expected: &'static str, found: &'static str },
    #[error("{key} has {found} entries for {tokens} tokens; convert the model again")]
    Count { key: &'static str, found: usize, tokens: usize },
    #[error("tokenizer.ggml.tokens is too large: {tokens} tokens, {bytes} bytes of text")]
    TooLarge { tokens: usize, bytes: u64 },
    #[error("token {id} of tokenizer.ggml.tokens is {bytes} bytes long; at most {max} are allowed")]
    TooLong { id: usize, bytes: usize, max: usize },
    #[error("tokenizer.ggml.scores is NaN for token {id} ({text:?}); convert the model again")]
    Score { id: u32, text: String },
    #[error("tokenizer.ggml.token_type is {value} for token {id} ({text:?}); 1 to 6 are known")]
    Type { id: u32, text: String, value: i64 },
    #[error("{key} is {id}, but the vocabulary has {tokens} tokens")]
    TokenId { key: &'static str, id: i64, tokens: usize },
    #[error(
        "the vocabulary lacks the byte token {missing} and has no tokenizer.ggml.unknown_token_id: some text would have no ids"
    )]
    NoFallback { missing: String },
}
