//! Hugging Face safetensors checkpoints to GGUF files.
