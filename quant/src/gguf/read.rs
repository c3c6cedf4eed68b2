//! Reading a GGUF file that may be hostile: every count, length and offset is checked before it is
//! used, and nothing is allocated that the file is not long enough to justify.

use std::collections::HashMap;

use super::value::type_name;
use super::{
    Array, DEFAULT_ALIGNMENT, GgufError, MAGIC, MAX_DIMS, MAX_KEY, MAX_NAME, Value, ValueType,
};
use crate::{DType, Matrix};

/// A position in the file's bytes.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    pub(super) fn offset(&self) -> usize {
        self.at
    }

    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// Bytes still to come.
    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// Fails unless `n` more bytes are there.
    pub(super) fn need(&self, n: u64, what: &str) -> Result<(), GgufError> {
        let have = self.left();
        if n <= have {
            return Ok(());
        }
        Err(GgufError::Truncated { what: what.into(), offset: self.at as u64, need: n, have })
    }

    pub(super) fn take(&mut self, n: u64, what: &str) -> Result<&'a [u8], GgufError> {
        self.need(n, what)?;
        let taken = &self.bytes[self.at..][..n as usize];
        self.at += n as usize;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let taken = self.take(N as u64, what)?;
        Ok(taken.try_into().expect("take returns the length asked for"))
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    pub(super) fn string(&mut self, what: &str) -> Result<&'a str, GgufError> {
        let len = self.u64(what)?;
        let offset = self.at as u64;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::Utf8 { what: what.into(), offset })
    }

    /// The name of a key or tensor, at most `max` bytes long.
    fn name(&mut self, max: u64, what: &str) -> Result<&'a str, GgufError> {
        let start = self.at;
        let len = self.u64(what)?;
        if len > max {
            return Err(GgufError::NameLength { what: what.into(), len, max });
        }
        self.at = start;
        self.string(what)
    }
}

/// One tensor of the file: its name, shape and bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'a> {
    /// Name, unique in the file.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, fastest first: a matrix of `rows` × `cols` is `[cols, rows]`.
    pub dims: Vec<u64>,
    /// Where its bytes start, from the beginning of the file.
    pub offset: u64,
    /// Its bytes, exactly as many as shape and type need.
    pub data: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// Number of weights.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product() // checked when the file was parsed
    }

    /// The tensor as a matrix whose rows run along the fastest dimension; the other dimensions
    /// are flattened into rows.
    pub fn matrix(&self) -> Matrix<'a> {
        let cols = self.dims[0] as usize;
        let rows = self.dims[1..].iter().product::<u64>() as usize;
        Matrix::new(self.dtype, rows, cols, self.data).expect("checked when the file was parsed")
    }
}

/// A parsed GGUF file, borrowing from its bytes (usually a memory mapping).
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    version: u32,
    alignment: u64,
    metadata: Vec<(&'a str, Value<'a>)>,
    keys: HashMap<&'a str, usize>,
    tensors: Vec<Tensor<'a>>,
    names: HashMap<&'a str, usize>,
}

impl<'a> Gguf<'a> {
    /// Parses and checks a whole file. Metadata and tensors are borrowed from `bytes`.
    ///
    /// # Errors
    /// Any [`GgufError`]: the file is refused if anything in it does not add up.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, GgufError> {
        let file_len = bytes.len() as u64;
        let mut cur = Cursor::new(bytes);
        if !bytes.starts_with(&MAGIC) {
            return Err(GgufError::Magic { found: bytes[..bytes.len().min(4)].to_vec() });
        }
        cur.take(4, "the magic")?;
        let version = cur.u32("the version")?;
        if !(2..=3).contains(&version) {
            let big_endian = (2..=3).contains(&version.swap_bytes());
            return Err(GgufError::Version { version, big_endian });
        }
        let tensor_count = cur.u64("the tensor count")?;
        let key_count = cur.u64("the key count")?;
        // Room is made for no more entries than the bytes still to come can hold. The least that a
        // key takes is a length, a type and a value of one byte; a tensor takes a length, a number
        // of dimensions, one dimension, a type and an offset.
        let announced = |what, count: u64, least, cur: &Cursor<'_>| {
            if count.saturating_mul(least) > cur.left() {
                return Err(GgufError::Count { what, count, file_len });
            }
            Ok(count as usize)
        };

        let key_room = announced("keys", key_count, 13, &cur)?;
        let mut metadata = Vec::with_capacity(key_room);
        let mut keys = HashMap::with_capacity(key_room);
        for i in 0..key_count {
            let key = cur.name(MAX_KEY, &format!("the name of key {i}"))?;
            let id = cur.u32(key)?;
            let ty = ValueType::from_id(id)
                .ok_or_else(|| GgufError::ValueType { what: key.into(), id })?;
            let value = cur.value(ty, 0, key)?;
            if keys.insert(key, metadata.len()).is_some() {
                return Err(GgufError::DuplicateKey { key: key.into() });
            }
            metadata.push((key, value));
        }
        let alignment = match keys.get("general.alignment").map(|&i| &metadata[i].1) {
            None => DEFAULT_ALIGNMENT,
            Some(Value::U32(a)) if *a >= 8 && a.is_power_of_two() => u64::from(*a),
            Some(v) => return Err(GgufError::Alignment { found: type_name(v) }),
        };

        let mut described = Vec::with_capacity(announced("tensors", tensor_count, 32, &cur)?);
        for i in 0..tensor_count {
            described.push(Described::read(&mut cur, i, alignment)?);
        }
        let data_start = (cur.offset() as u64).next_multiple_of(alignment);
        let mut tensors = Vec::with_capacity(described.len());
        let mut names = HashMap::with_capacity(described.len());
        for d in described {
            if names.insert(d.name, tensors.len()).is_some() {
                return Err(GgufError::DuplicateTensor { name: d.name.into() });
            }
            tensors.push(d.locate(bytes, data_start)?);
        }
        refuse_overlap(&tensors, data_start)?;
        Ok(Gguf { version, alignment, metadata, keys, tensors, names })
    }

    /// The file's GGUF version (2 or 3).
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of tensor data in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// All metadata, in file order.
    pub fn metadata(&self) -> &[(&'a str, Value<'a>)] {
        &self.metadata
    }

    /// All tensors, in file order.
    pub fn tensors(&self) -> &[Tensor<'a>] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor<'a>> {
        self.names.get(name).map(|&i| &self.tensors[i])
    }

    /// The tensor of this name, which must be there and have these dimensions (fastest first).
    ///
    /// # Errors
    /// [`GgufError::MissingTensor`] and [`GgufError::TensorDims`].
    pub fn tensor_shaped(&self, name: &str, dims: &[u64]) -> Result<&Tensor<'a>, GgufError> {
        let tensor =
            self.tensor(name).ok_or_else(|| GgufError::MissingTensor { name: name.into() })?;
        if tensor.dims != dims {
            let (expected, found) = (dims.to_vec(), tensor.dims.clone());
            return Err(GgufError::TensorDims { name: name.into(), expected, found });
        }
        Ok(tensor)
    }

    /// Refuses a part of a model that llama.cpp's gguf-split has cut in several files.
    ///
    /// # Errors
    /// [`GgufError::Part`], counting from one; [`GgufError::KeyType`].
    pub fn whole(&self) -> Result<(), GgufError> {
        match self.u64("split.count")? {
            Some(parts) if parts > 1 => {
                let part = self.u64("split.no")?.unwrap_or(0).saturating_add(1);
                Err(GgufError::Part { part, parts })
            }
            _ => Ok(()),
        }
    }

    /// What a key that must be there holds: `Gguf::required(key, file.u64(key)?)`.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`].
    pub fn required<T>(key: &str, value: Option<T>) -> Result<T, GgufError> {
        value.ok_or_else(|| GgufError::MissingKey { key: key.into() })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.keys.get(key).map(|&i| self.metadata[i].1)
    }

    /// The value of a key through `read`, or `None` when the key is absent.
    fn get_as<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(v) = self.get(key) else { return Ok(None) };
        match read(&v) {
            Some(t) => Ok(Some(t)),
            None => Err(GgufError::KeyType { key: key.into(), expected, found: type_name(&v) }),
        }
    }

    /// An unsigned integer, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::KeyType`] when the key holds something else; likewise the methods below.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.get_as(key, "an unsigned integer", Value::as_u64)
    }

    /// A number as f32, if the key is there.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.get_as(key, "a number", Value::as_f32)
    }

    /// A bool, if the key is there.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.get_as(key, "a bool", Value::as_bool)
    }

    /// A string, if the key is there.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.get_as(key, "a string", Value::as_str)
    }

    /// An array, if the key is there.
    pub fn array(&self, key: &str) -> Result<Option<Array<'a>>, GgufError> {
        self.get_as(key, "an array", Value::as_array)
    }
}

/// A tensor descriptor before its data is located.
struct Described<'a> {
    name: &'a str,
    dims: Vec<u64>,
    dtype: DType,
    offset: u64,
    bytes: u64,
}

impl<'a> Described<'a> {
    fn read(cur: &mut Cursor<'a>, index: u64, alignment: u64) -> Result<Self, GgufError> {
        let name = cur.name(MAX_NAME, &format!("the name of tensor {index}"))?;
        let n_dims = cur.u32(name)?;
        if n_dims == 0 || n_dims as usize > MAX_DIMS {
            return Err(GgufError::Dims { name: name.into(), dims: n_dims });
        }
        let dims = (0..n_dims).map(|_| cur.u64(name)).collect::<Result<Vec<_>, _>>()?;
        let id = cur.u32(name)?;
        let dtype =
            DType::from_ggml(id).ok_or_else(|| GgufError::TensorType { name: name.into(), id })?;
        let offset = cur.u64(name)?;
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::TensorOffset { name: name.into(), offset, alignment });
        }
        let bytes = tensor_bytes(dtype, &dims).ok_or_else(|| GgufError::TensorShape {
            name: name.into(),
            shape: dims.clone(),
            dtype,
        })?;
        Ok(Described { name, dims, dtype, offset, bytes })
    }

    fn locate(self, file: &'a [u8], data_start: u64) -> Result<Tensor<'a>, GgufError> {
        let start = data_start.saturating_add(self.offset);
        let end = start.saturating_add(self.bytes);
        let file_len = file.len() as u64;
        if end > file_len {
            return Err(GgufError::TensorBounds { name: self.name.into(), start, end, file_len });
        }
        Ok(Tensor {
            name: self.name,
            dtype: self.dtype,
            dims: self.dims,
            offset: start,
            data: &file[start as usize..end as usize],
        })
    }
}

/// Bytes of a tensor; `None` when empty, not whole blocks, or not addressable.
pub(super) fn tensor_bytes(dtype: DType, dims: &[u64]) -> Option<u64> {
    let (&cols, outer) = dims.split_first()?;
    let row = dtype.row_bytes(cols.try_into().ok()?)? as u64;
    let bytes = outer.iter().try_fold(row, |n, &d| n.checked_mul(d))?;
    // Weights are counted too: `Tensor::elements` and row counts must fit.
    outer.iter().try_fold(cols, |n, &d| n.checked_mul(d))?;
    (bytes > 0 && bytes <= isize::MAX as u64).then_some(bytes)
}

fn refuse_overlap(tensors: &[Tensor<'_>], data_start: u64) -> Result<(), GgufError> {
    let mut order: Vec<&Tensor<'_>> = tensors.iter().collect();
    order.sort_by_key(|t| t.offset);
    for pair in order.windows(2) {
        if pair[0].offset + pair[0].data.len() as u64 > pair[1].offset {
            return Err(GgufError::Overlap {
                first: pair[0].name.into(),
                second: pair[1].name.into(),
                offset: pair[1].offset - data_start,
            });
        }
    }
    Ok(())
}
