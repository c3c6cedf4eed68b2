//! The GGUF container, versions 2 and 3 read, version 3 written.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Everything is
//! little-endian: magic, version, tensor count, key count, key-value pairs, tensor descriptors,
//! padding to `general.alignment`, tensor data at aligned offsets.

mod error;
mod read;
mod value;
mod write;

pub use error::GgufError;
pub use read::{Gguf, Tensor};
pub use value::{Array, Value, ValueType};
pub use write::{Layout, MetaValue, TensorSpec};

/// `GGUF` as a little-endian number.
const MAGIC: [u8; 4] = *b"GGUF";
/// The version written.
const VERSION: u32 = 3;
/// Alignment of tensor data where a file does not say otherwise.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// ggml's bound on dimensions of a tensor.
const MAX_DIMS: usize = 4;
/// Longest key of the specification, in bytes.
const MAX_KEY: u64 = 65535;
/// Longest tensor name of the specification, in bytes.
const MAX_NAME: u64 = 64;
