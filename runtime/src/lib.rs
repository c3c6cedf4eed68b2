//! Runs a mapped GGUF Gemma model.

pub mod chat;
pub mod sampler;
pub mod tokenizer;
