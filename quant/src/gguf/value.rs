//! Metadata values, borrowed from the file.

use super::GgufError;
use super::read::Cursor;

/// The value types of GGUF metadata, by their number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(u32)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [ValueType; 13] = {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
    };

    /// The type with this number in the file.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).copied()
    }

    /// The number that stands for it in the file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Least number of bytes a value takes (its size, for all but strings and arrays).
    pub(super) fn min_bytes(self) -> u64 {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => 1,
            U16 | I16 => 2,
            U32 | I32 | F32 => 4,
            U64 | I64 | F64 | String => 8,
            Array => 12,
        }
    }

    /// Lower-case name for messages and `inspect`.
    pub fn name(self) -> &'static str {
        use ValueType::*;
        match self {
            U8 => "u8",
            I8 => "i8",
            U16 => "u16",
            I16 => "i16",
            U32 => "u32",
            I32 => "i32",
            F32 => "f32",
            Bool => "bool",
            String => "string",
            Array => "array",
            U64 => "u64",
            I64 => "i64",
            F64 => "f64",
        }
    }
}

/// One metadata value; strings and arrays are borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
}

impl<'a> Value<'a> {
    /// Its type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F32(_) => ValueType::F32,
            Value::F64(_) => ValueType::F64,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
        }
    }

    /// Any integer type that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => v.try_into().ok(),
            Value::I16(v) => v.try_into().ok(),
            Value::I32(v) => v.try_into().ok(),
            Value::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// Any integer type that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Value::I8(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::I64(v) => Some(v),
            _ => self.as_u64()?.try_into().ok(),
        }
    }

    /// Either float type, or an integer exactly as a float.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => self.as_i64().map(|v| v as f32),
        }
    }

    /// A bool.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// A string.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Value::String(v) => Some(v),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<Array<'a>> {
        match *self {
            Value::Array(v) => Some(v),
            _ => None,
        }
    }
}

/// An array value: checked when the file was opened, decoded as it is walked, so that a vocabulary
/// of 262144 strings costs nothing until it is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    pub(super) item: ValueType,
    pub(super) len: usize,
    /// The bytes of the items, exactly.
    pub(super) bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Type of the items.
    pub fn item_type(&self) -> ValueType {
        self.item
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No items?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The raw bytes of the items (little-endian, strings with their u64 lengths): what a writer
    /// needs to pass the array on.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Every item in turn.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (item, mut cursor) = (self.item, Cursor::new(self.bytes));
        // The reader has walked these bytes before: `value` does not fail here, and an end of
        // iteration would be all that happened if it did.
        (0..self.len).map_while(move |_| cursor.value(item, 0, "array item").ok())
    }

    /// The items as strings; `None` when they are not.
    pub fn strings(&self) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
        (self.item == ValueType::String).then(|| self.iter().filter_map(|v| v.as_str()))
    }

    /// The items as f32; `None` when they are not numbers.
    pub fn f32s(&self) -> Option<Vec<f32>> {
        self.iter().map(|v| v.as_f32()).collect()
    }

    /// The items as i64; `None` when they are not integers.
    pub fn i64s(&self) -> Option<Vec<i64>> {
        self.iter().map(|v| v.as_i64()).collect()
    }
}

/// A value in a few words, for messages.
pub(super) fn type_name(v: &Value<'_>) -> String {
    /// Characters of a string that are shown; a string can be as long as the file.
    const SHOWN: usize = 40;
    match v {
        Value::Array(a) => format!("an array of {} {}", a.len(), a.item_type().name()),
        Value::String(s) if s.chars().nth(SHOWN).is_some() => {
            format!("string {:?}...", s.chars().take(SHOWN).collect::<String>())
        }
        Value::String(s) => format!("string {s:?}"),
        v => format!("{} {v:?}", v.value_type().name()),
    }
}

impl<'a> Cursor<'a> {
    /// Reads one value of type `ty`; `depth` counts enclosing arrays.
    pub(super) fn value(
        &mut self,
        ty: ValueType,
        depth: u32,
        what: &str,
    ) -> Result<Value<'a>, GgufError> {
        /// Arrays of arrays are legal; deeper than this is nobody's model.
        const MAX_DEPTH: u32 = 4;
        Ok(match ty {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.array(what)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.array(what)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.array(what)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.array(what)?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(self.array(what)?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.array(what)?)),
            ValueType::U64 => Value::U64(u64::from_le_bytes(self.array(what)?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.array(what)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.array(what)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.array(what)?)),
            ValueType::Bool => match self.array::<1>(what)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                byte => return Err(GgufError::Bool { what: what.into(), byte }),
            },
            ValueType::String => Value::String(self.string(what)?),
            ValueType::Array => {
                if depth >= MAX_DEPTH {
                    return Err(GgufError::Nesting { what: what.into(), max: MAX_DEPTH });
                }
                let id = u32::from_le_bytes(self.array(what)?);
                let item = ValueType::from_id(id)
                    .ok_or_else(|| GgufError::ValueType { what: what.into(), id })?;
                let len = u64::from_le_bytes(self.array(what)?);
                let start = self.offset();
                // Every item takes at least `min_bytes`: a huge count fails here, before the walk.
                self.need(len.saturating_mul(item.min_bytes()), what)?;
                match item {
                    ValueType::String | ValueType::Array | ValueType::Bool => {
                        for _ in 0..len {
                            self.value(item, depth + 1, what)?;
                        }
                    }
                    fixed => {
                        self.take(len * fixed.min_bytes(), what)?;
                    }
                }
                let bytes = self.since(start);
                Value::Array(Array { item, len: len as usize, bytes })
            }
        })
    }
}
