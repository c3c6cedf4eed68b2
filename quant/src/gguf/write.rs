//! Laying out a GGUF v3 file: header bytes and the offset of every tensor, before any weight is
//! touched, so that tensor data can be streamed (or written in parallel at known offsets).

use super::read::tensor_bytes;
use super::{
    DEFAULT_ALIGNMENT, GgufError, MAGIC, MAX_DIMS, MAX_KEY, MAX_NAME, VERSION, Value, ValueType,
};
use crate::DType;

/// A metadata value to be written.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum MetaValue {
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    U32s(Vec<u32>),
    Bools(Vec<bool>),
    /// A value passed on as another file held it: its type, then the bytes after the type.
    Raw(ValueType, Vec<u8>),
}

impl From<Value<'_>> for MetaValue {
    fn from(v: Value<'_>) -> Self {
        let ty = v.value_type();
        let bytes = match v {
            Value::U8(v) => v.to_le_bytes().to_vec(),
            Value::I8(v) => v.to_le_bytes().to_vec(),
            Value::U16(v) => v.to_le_bytes().to_vec(),
            Value::I16(v) => v.to_le_bytes().to_vec(),
            Value::I64(v) => v.to_le_bytes().to_vec(),
            Value::F64(v) => v.to_le_bytes().to_vec(),
            Value::U32(v) => return MetaValue::U32(v),
            Value::I32(v) => return MetaValue::I32(v),
            Value::U64(v) => return MetaValue::U64(v),
            Value::F32(v) => return MetaValue::F32(v),
            Value::Bool(v) => return MetaValue::Bool(v),
            Value::String(v) => return MetaValue::String(v.into()),
            Value::Array(a) => {
                let mut b = a.item_type().id().to_le_bytes().to_vec();
                b.extend((a.len() as u64).to_le_bytes());
                b.extend(a.bytes());
                b
            }
        };
        MetaValue::Raw(ty, bytes)
    }
}

impl MetaValue {
    fn write(&self, out: &mut Vec<u8>) {
        fn scalar(out: &mut Vec<u8>, ty: ValueType, bytes: &[u8]) {
            out.extend(ty.id().to_le_bytes());
            out.extend(bytes);
        }
        fn array<T>(out: &mut Vec<u8>, ty: ValueType, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
            out.extend(ValueType::Array.id().to_le_bytes());
            out.extend(ty.id().to_le_bytes());
            out.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|i| put(out, i));
        }
        match self {
            MetaValue::U32(v) => scalar(out, ValueType::U32, &v.to_le_bytes()),
            MetaValue::I32(v) => scalar(out, ValueType::I32, &v.to_le_bytes()),
            MetaValue::U64(v) => scalar(out, ValueType::U64, &v.to_le_bytes()),
            MetaValue::F32(v) => scalar(out, ValueType::F32, &v.to_le_bytes()),
            MetaValue::Bool(v) => scalar(out, ValueType::Bool, &[u8::from(*v)]),
            MetaValue::String(v) => {
                out.extend(ValueType::String.id().to_le_bytes());
                string(out, v);
            }
            MetaValue::Strings(v) => array(out, ValueType::String, v, |o, s| string(o, s)),
            MetaValue::F32s(v) => array(out, ValueType::F32, v, |o, x| o.extend(x.to_le_bytes())),
            MetaValue::I32s(v) => array(out, ValueType::I32, v, |o, x| o.extend(x.to_le_bytes())),
            MetaValue::U32s(v) => array(out, ValueType::U32, v, |o, x| o.extend(x.to_le_bytes())),
            MetaValue::Bools(v) => array(out, ValueType::Bool, v, |o, x| o.push(u8::from(*x))),
            MetaValue::Raw(ty, bytes) => scalar(out, *ty, bytes),
        }
    }
}

fn check_length(what: &str, name: &str, max: u64) -> Result<(), GgufError> {
    let len = name.len() as u64;
    if len <= max { Ok(()) } else { Err(GgufError::NameLength { what: what.into(), len, max }) }
}

fn string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name, unique in the file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, fastest first.
    pub dims: Vec<u64>,
}

impl TensorSpec {
    /// Bytes of its data; `None` when the shape is empty, too large or not whole blocks.
    pub fn bytes(&self) -> Option<u64> {
        tensor_bytes(self.dtype, &self.dims)
    }
}

/// Where everything goes in a file to be written.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Everything before the tensor data, padded to the alignment.
    pub header: Vec<u8>,
    /// Offset of each tensor's data from the beginning of the file, in the order given. The gap
    /// after each tensor's data, up to the next offset or to `file_len`, is zeros.
    pub offsets: Vec<u64>,
    /// Length of the finished file.
    pub file_len: u64,
}

impl Layout {
    /// Lays out a file with these keys and tensors, alignment 32.
    ///
    /// # Errors
    /// What a reader would refuse: [`GgufError::TensorShape`], [`GgufError::Dims`],
    /// [`GgufError::NameLength`], [`GgufError::DuplicateTensor`], [`GgufError::DuplicateKey`], and
    /// [`GgufError::Alignment`] for a `general.alignment` that is not this file's.
    pub fn new(
        metadata: &[(String, MetaValue)],
        tensors: &[TensorSpec],
    ) -> Result<Self, GgufError> {
        let mut keys = std::collections::HashSet::new();
        for (key, value) in metadata {
            check_length("a key", key, MAX_KEY)?;
            if key == "general.alignment" && *value != MetaValue::U32(DEFAULT_ALIGNMENT as u32) {
                return Err(GgufError::Alignment { found: "not the 32 that is written".into() });
            }
            if !keys.insert(key.as_str()) {
                return Err(GgufError::DuplicateKey { key: key.clone() });
            }
        }
        let mut names = std::collections::HashSet::new();
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            string(&mut header, key);
            value.write(&mut header);
        }
        let mut relative = 0u64;
        let mut offsets = Vec::with_capacity(tensors.len());
        for t in tensors {
            if !names.insert(t.name.as_str()) {
                return Err(GgufError::DuplicateTensor { name: t.name.clone() });
            }
            // ggml keeps names in 64 bytes with a zero at the end.
            check_length("a tensor's name", &t.name, MAX_NAME - 1)?;
            if t.dims.len() > MAX_DIMS {
                let dims = t.dims.len() as u32;
                return Err(GgufError::Dims { name: t.name.clone(), dims });
            }
            let too_large = || GgufError::TensorShape {
                name: t.name.clone(),
                shape: t.dims.clone(),
                dtype: t.dtype,
            };
            let bytes = t.bytes().ok_or_else(too_large)?;
            string(&mut header, &t.name);
            header.extend((t.dims.len() as u32).to_le_bytes());
            t.dims.iter().for_each(|d| header.extend(d.to_le_bytes()));
            header.extend(t.dtype.ggml().to_le_bytes());
            header.extend(relative.to_le_bytes());
            offsets.push(relative);
            relative = relative
                .checked_add(bytes.next_multiple_of(DEFAULT_ALIGNMENT))
                .filter(|&end| end <= isize::MAX as u64)
                .ok_or_else(too_large)?;
        }
        header.resize((header.len() as u64).next_multiple_of(DEFAULT_ALIGNMENT) as usize, 0);
        let start = header.len() as u64;
        offsets.iter_mut().for_each(|o| *o += start);
        Ok(Layout { header, offsets, file_len: start + relative })
    }
}
