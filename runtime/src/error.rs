//! What can go wrong between a file and its logits.

use std::path::PathBuf;

use quant::gguf::GgufError;

use crate::sampler::SamplingError;
use crate::tokenizer::TokenizerError;

/// A model that can't be opened, or a request that it can't serve.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum RuntimeError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Gguf { path: PathBuf, source: GgufError },
    #[error("{}: {source}", path.display())]
    Model { path: PathBuf, source: ModelError },
    #[error(
        "the context is full: {needed} tokens needed, {capacity} fit; start with a larger --ctx"
    )]
    ContextFull { needed: usize, capacity: usize },
    #[error("token id {id} is outside the vocabulary of {vocab}")]
    Token { id: u32, vocab: usize },
    #[error("sequence {seq} does not exist: the cache holds {seqs}")]
    Sequence { seq: usize, seqs: usize },
    #[error(
        "position {found} follows position {len} of sequence {seq}: positions must be consecutive"
    )]
    Position { seq: usize, len: usize, found: usize },
    #[error(
        "{images} images take {rows} positions, and the prompt has {places} (token {soft}); each image needs its own run of them"
    )]
    ImagePlaces { soft: u32, places: usize, images: usize, rows: usize },
    #[error(
        "an image of {rows} positions does not fit a batch of {batch}; use a larger batch or context"
    )]
    ImageTooLong { rows: usize, batch: usize },
    #[error(
        "an image's rows have {width} features, and the model's have {hidden}: its tower is for another model"
    )]
    ImageWidth { width: usize, hidden: usize },
    #[error("{found} numbers are no image for this tower: it takes 3 x {size} x {size} pixels")]
    Pixels { found: usize, size: usize },
    #[error(
        "a q8_0 KV cache needs a head_dim that is a multiple of 32, and this model's is {head_dim}; use f16 or f32"
    )]
    KvType { head_dim: usize },
    #[error("not enough memory for {what} of {bytes} bytes; choose a smaller context")]
    Memory { what: &'static str, bytes: usize },
    #[error("could not start {threads} threads: {why}")]
    Threads { threads: usize, why: String },
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Gpu(#[from] crate::gpu::GpuError),
    #[error("stopped")]
    Cancelled,
}

/// Why a GGUF file, although well-formed, is not a Gemma model that Lapidary can run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ModelError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("the architecture is {found:?}; Lapidary runs gemma3 and gemma2")]
    Architecture { found: String },
    #[error(
        "it holds no Gemma 3 vision tower: {key} is {found:?}; an mmproj file made for Gemma 3 is needed"
    )]
    Projector { key: &'static str, found: String },
    #[error("{key} is {value}: {why}")]
    Config { key: String, value: String, why: &'static str },
    #[error(
        "tensor {name:?} is not part of a {arch} model with {layers} layers; the file is for another architecture or version"
    )]
    UnknownTensor { name: String, arch: &'static str, layers: usize },
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
