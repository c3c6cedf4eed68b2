//! Runs a mapped GGUF Gemma model: weights read in place, a KV cache that knows sequences and
//! rings, one forward pass over a backend.

pub mod backend;
pub mod batch;
pub mod config;
pub mod cpu;
mod error;
pub mod forward;
pub mod kv_cache;
pub mod model;
pub mod session;
pub mod tokenizer;
pub mod weights;

pub use batch::{Batch, Row};
pub use error::{ModelError, RuntimeError};
pub use kv_cache::KvType;
pub use model::Model;
pub use session::{Session, SessionOptions};
