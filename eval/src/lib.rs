//! What quantization costs a model, measured: perplexity and Kullback-Leibler divergence from a
//! reference, multiple choice, weights and residual streams side by side, and a page that shows it.
//!
//! Definitions are those of llama.cpp's `llama-perplexity` wherever it has one, so that figures can
//! be laid beside published ones; where they differ, the item's documentation says how.

pub mod choices;
pub mod drift;
mod error;
pub mod hash;
pub mod lineup;
pub mod report;
pub mod saved;
pub mod scores;
pub mod softmax;
pub mod stats;
pub mod tensors;
pub mod text;

pub use error::EvalError;
pub use lineup::Lineup;
pub use scores::Scores;
pub use text::{Scheme, Text, Window};
