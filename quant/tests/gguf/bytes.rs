//! Files put together byte by byte, so that each can be wrong in one place.

use lapidary_quant::DType;
use lapidary_quant::gguf::ValueType;

/// Bytes to which little-endian numbers and strings are appended.
#[derive(Clone, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    /// `GGUF`, version 3, and the two counts.
    pub(crate) fn header(tensors: u64, keys: u64) -> Bytes {
        Bytes::default().raw(b"GGUF").u32(3).u64(tensors).u64(keys)
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn u32(self, v: u32) -> Self {
        self.raw(&v.to_le_bytes())
    }

    pub(crate) fn u64(self, v: u64) -> Self {
        self.raw(&v.to_le_bytes())
    }

    pub(crate) fn str(self, s: impl AsRef<[u8]>) -> Self {
        self.u64(s.as_ref().len() as u64).raw(s.as_ref())
    }

    /// A key and the type of its value, which is to follow.
    pub(crate) fn key(self, name: &str, ty: ValueType) -> Self {
        self.str(name).u32(ty.id())
    }

    /// The item type and length of an array, whose items are to follow.
    pub(crate) fn array(self, item: ValueType, len: u64) -> Self {
        self.u32(item.id()).u64(len)
    }

    /// A tensor's descriptor.
    pub(crate) fn tensor(self, name: &str, dims: &[u64], dtype: DType, offset: u64) -> Self {
        let head = self.str(name).u32(dims.len() as u32);
        dims.iter().fold(head, |b, &d| b.u64(d)).u32(dtype.ggml()).u64(offset)
    }

    /// Zeros up to a multiple of 32, then `n` more.
    pub(crate) fn data(mut self, n: usize) -> Self {
        let end = self.0.len().next_multiple_of(32) + n;
        self.0.resize(end, 0);
        self
    }
}
