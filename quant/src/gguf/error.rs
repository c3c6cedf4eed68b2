//! What can be wrong with a GGUF file, with the names and numbers that say where.

/// A GGUF file refused. Every message names the key or tensor and the numbers at odds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum GgufError {
    #[error("not a GGUF file: it starts with {found:02x?}, not with \"GGUF\"")]
    Magic { found: Vec<u8> },
    #[error("GGUF version {version} is not supported (2 and 3 are){}", if *.big_endian { "; the file looks big-endian" } else { "" })]
    Version { version: u32, big_endian: bool },
    #[error("the file ends inside {what}: {need} bytes needed at offset {offset}, {have} left")]
    Truncated { what: String, offset: u64, need: u64, have: u64 },
    #[error("the header announces {count} {what}, more than a file of {file_len} bytes can hold")]
    Count { what: &'static str, count: u64, file_len: u64 },
    #[error("{what} is {len} bytes long, where at most {max} are allowed")]
    NameLength { what: String, len: u64, max: u64 },
    #[error("{what} is not valid UTF-8 at offset {offset}")]
    Utf8 { what: String, offset: u64 },
    #[error("{what} has the unknown value type {id}")]
    ValueType { what: String, id: u32 },
    #[error("{what} is an array nested more than {max} deep")]
    Nesting { what: String, max: u32 },
    #[error("{what} holds the byte {byte} where a bool is 0 or 1")]
    Bool { what: String, byte: u8 },
    #[error("the key {key:?} appears twice")]
    DuplicateKey { key: String },
    #[error("the tensor {name:?} appears twice")]
    DuplicateTensor { name: String },
    #[error("general.alignment is {found}; a multiple of 8 that is a power of two is needed")]
    Alignment { found: String },
    #[error("tensor {name:?} has {dims} dimensions; 1 to 4 are allowed")]
    Dims { name: String, dims: u32 },
    #[error(
        "tensor {name:?} has the element type {}, which Lapidary does not read; it reads {}",
        crate::dtype::unread(*id), read_types()
    )]
    TensorType { name: String, id: u32 },
    #[error(
        "tensor {name:?} has shape {shape:?} of {dtype}, which is empty, too large, or not whole blocks"
    )]
    TensorShape { name: String, shape: Vec<u64>, dtype: crate::DType },
    #[error("tensor {name:?} starts at offset {offset}, which is not a multiple of {alignment}")]
    TensorOffset { name: String, offset: u64, alignment: u64 },
    #[error(
        "tensor {name:?} needs bytes {start}..{end} of the file, which has {file_len}: the file is truncated"
    )]
    TensorBounds { name: String, start: u64, end: u64, file_len: u64 },
    #[error("tensors {first:?} and {second:?} overlap at data offset {offset}")]
    Overlap { first: String, second: String, offset: u64 },
    #[error(
        "it is part {part} of {parts} of a model in several files; join them with llama-gguf-split --merge"
    )]
    Part { part: u64, parts: u64 },
    #[error("the key {key:?} is missing")]
    MissingKey { key: String },
    #[error("the key {key:?} is {found}, not {expected}")]
    KeyType { key: String, expected: &'static str, found: String },
    #[error("the tensor {name:?} is missing")]
    MissingTensor { name: String },
    #[error("tensor {name:?} is {found:?}, not {expected:?} (fastest dimension first)")]
    TensorDims { name: String, expected: Vec<u64>, found: Vec<u64> },
}

/// The types that are read, as other programs write them: in capitals.
fn read_types() -> String {
    crate::DType::ALL.map(|d| d.name().to_uppercase()).join(", ")
}
