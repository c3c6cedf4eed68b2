//! Numbers on disk: the GGUF container, ggml's block formats, and the kernels that read blocks in
//! place.
//!
//! Knows nothing of models. [`gguf`] reads and writes the container, [`codec`] is the scalar
//! definition of every format (the oracle), [`kernels`] multiplies with it, fast.

pub mod codec;
mod dtype;
pub mod gguf;
pub mod kernels;
mod matrix;

pub use dtype::DType;
pub use matrix::{Matrix, ShapeError};
