//! Runs a mapped GGUF Gemma model.

pub mod tokenizer;
