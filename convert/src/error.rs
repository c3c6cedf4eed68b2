//! Everything that can go wrong, each message naming the file, the tensor or the value, and what
//! to do about it where something can be done.

use std::fmt;
use std::io;
use std::path::PathBuf;

use quant::DType;
use quant::gguf::GgufError;

/// Why a conversion was refused or broke off. No partial output is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum ConvertError {
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} is neither a checkpoint folder nor a .gguf file; give the folder that holds config.json", path.display()
    )]
    NotAModel { path: PathBuf },
    #[error(
        "{} holds no *.safetensors file{}", path.display(),
        if *.pickled { "; pytorch_model.bin is not read: save the model again with safe_serialization=True" }
        else { "; is the download complete?" }
    )]
    NoWeights { path: PathBuf, pickled: bool },
    #[error("{}: not valid JSON: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: {message}", path.display())]
    Config { path: PathBuf, message: String },
    #[error("{}: {key} is {value}; {expected}", path.display())]
    ConfigValue { path: PathBuf, key: String, value: String, expected: String },
    #[error(
        "{}: the architecture {found:?} is not supported; Gemma 2 and Gemma 3 are{}", path.display(),
        if is_embedding(found) { ", but embedding models (EmbeddingGemma) are not" } else { "" }
    )]
    Architecture { path: PathBuf, found: String },
    #[error("{}: {message}", path.display())]
    Tokenizer { path: PathBuf, message: String },
    #[error("{} holds neither tokenizer.json nor tokenizer.model; copy one from the original model", path.display())]
    NoTokenizer { path: PathBuf },
    #[error("{}: not a safetensors file that can be trusted: {source}", path.display())]
    Safetensors { path: PathBuf, source: safetensors::SafeTensorError },
    #[error("{} is a git-lfs pointer, not the file itself; `git lfs pull` in its folder fetches it", path.display())]
    LfsPointer { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Gguf { path: PathBuf, source: GgufError },
    #[error("the new file cannot be laid out: {0}")]
    Layout(GgufError),
    #[error("{}: the index names {file:?}, which is not a plain file name", path.display())]
    ShardName { path: PathBuf, file: String },
    #[error("{}: the index promises the tensor {tensor:?} in {shard}, which does not hold it", path.display())]
    ShardTensor { path: PathBuf, tensor: String, shard: String },
    #[error(
        "the tensor {tensor:?} has no place in {arch}; nothing is dropped silently, so the checkpoint is refused"
    )]
    UnknownTensor { tensor: String, arch: String },
    #[error("the tensor {tensor:?} is missing from the checkpoint (it becomes {target:?})")]
    MissingTensor { tensor: String, target: String },
    #[error("the tensors {first:?} and {second:?} are both {target:?}")]
    DuplicateTensor { first: String, second: String, target: String },
    #[error(
        "the tensor {tensor:?} has shape {found:?}, but the model's configuration makes it {expected:?} (slowest dimension first)"
    )]
    TensorShape { tensor: String, found: Vec<u64>, expected: Vec<u64> },
    #[error("the tensor {tensor:?} holds {found}; bf16, f16 and f32 weights are read")]
    TensorType { tensor: String, found: String },
    #[error("the tensor {tensor:?} holds {value} at {position}; the checkpoint is damaged")]
    NotFinite { tensor: String, value: f32, position: Position },
    #[error(
        "the tensor {tensor:?} holds {value} at {position}, more than {dtype} can hold; convert with --type bf16 or f32"
    )]
    Overflow { tensor: String, value: f32, position: Position, dtype: DType },
    #[error("a model cannot be written as {dtype}; f32, f16, bf16, q8_0 and q4_0 can be")]
    Unwritable { dtype: DType },
    #[error("{} exists; pass --force to replace it", path.display())]
    Exists { path: PathBuf },
    #[error("{} is not a file that can be replaced", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is part of the checkpoint that is read; choose another name with -o", path.display())]
    WouldReplaceSource { path: PathBuf },
    #[error("cancelled; nothing was written")]
    Cancelled,
}

/// Is this what EmbeddingGemma is called, in config.json or a GGUF file?
fn is_embedding(architecture: &str) -> bool {
    ["Gemma3TextModel", "gemma-embedding"].contains(&architecture)
}

impl ConvertError {
    /// For `map_err` on I/O: what was being done, and to which file.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> ConvertError {
        let path = path.into();
        move |source| ConvertError::Io { doing, path, source }
    }
}

/// Where in a tensor a weight lies: the tensor seen as rows along its fastest dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Row, from 0.
    pub row: u64,
    /// Column, from 0.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}, column {}", self.row, self.column)
    }
}
