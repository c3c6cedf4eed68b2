//! Runs a mapped GGUF Gemma model: weights read in place, a KV cache that knows sequences and
//! rings, one forward pass over a backend.

mod aligned;
pub mod backend;
pub mod batch;
pub mod chat;
pub mod config;
pub mod cpu;
mod error;
pub mod forward;
pub mod generate;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod grammar;
pub mod kv_cache;
pub mod lookup;
pub mod mapping;
pub mod model;
mod prompt;
pub mod sampler;
pub mod session;
pub mod synthetic;
pub mod tokenizer;
pub mod vision;
pub mod weights;

pub use batch::{Batch, Row};
pub use error::{ModelError, RuntimeError};
pub use kv_cache::KvType;
pub use model::Model;
pub use prompt::{Prompt, PromptSlice};
pub use session::{Session, SessionOptions};
