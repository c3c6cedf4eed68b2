//! Runs a mapped GGUF Gemma model.
