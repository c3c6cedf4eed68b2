//! What [`Layout`] writes, [`Gguf`] reads back.

use lapidary_quant::DType;
use lapidary_quant::gguf::{
    Array, DEFAULT_ALIGNMENT, Gguf, Layout, MetaValue, TensorSpec, Value, ValueType,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A file of `tensors`, whose data are the bytes of a counter.
pub(crate) fn write(metadata: &[(String, MetaValue)], tensors: &[TensorSpec]) -> (Layout, Vec<u8>) {
    let layout = Layout::new(metadata, tensors).unwrap();
    let mut file = layout.header.clone();
    file.resize(layout.file_len as usize, 0);
    for (i, (t, &at)) in tensors.iter().zip(&layout.offsets).enumerate() {
        for (j, b) in file[at as usize..][..t.bytes().unwrap() as usize].iter_mut().enumerate() {
            *b = datum(i, j);
        }
    }
    (layout, file)
}

fn datum(tensor: usize, byte: usize) -> u8 {
    (tensor * 37 + byte) as u8
}

/// Values of every type, arrays of every type, and arrays of arrays, as raw bytes of a type.
fn raw() -> impl Strategy<Value = MetaValue> {
    use ValueType::*;
    const NUMBERS: [ValueType; 10] = [U8, I8, U16, I16, U32, I32, F32, U64, I64, F64];
    let size = |t| match t {
        U8 | I8 => 1,
        U16 | I16 => 2,
        U32 | I32 | F32 => 4,
        _ => 8,
    };
    let scalar = (proptest::sample::select(&NUMBERS[..]), any::<u64>())
        .prop_map(move |(t, v)| MetaValue::Raw(t, v.to_le_bytes()[..size(t)].to_vec()));
    let array = (proptest::sample::select(&NUMBERS[..]), vec(any::<u64>(), 0..6)).prop_map(
        move |(t, items)| {
            let mut bytes = t.id().to_le_bytes().to_vec();
            bytes.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|v| bytes.extend(&v.to_le_bytes()[..size(t)]));
            MetaValue::Raw(Array, bytes)
        },
    );
    let nested = vec(array.clone(), 0..4).prop_map(|arrays| {
        let mut bytes = Array.id().to_le_bytes().to_vec();
        bytes.extend((arrays.len() as u64).to_le_bytes());
        for a in arrays {
            let MetaValue::Raw(_, inner) = a else { unreachable!("arrays are raw") };
            bytes.extend(inner);
        }
        MetaValue::Raw(Array, bytes)
    });
    prop_oneof![scalar, array, nested]
}

pub(crate) fn values() -> impl Strategy<Value = MetaValue> {
    prop_oneof![
        any::<u32>().prop_map(MetaValue::U32),
        any::<i32>().prop_map(MetaValue::I32),
        any::<u64>().prop_map(MetaValue::U64),
        any::<f32>().prop_map(MetaValue::F32),
        any::<bool>().prop_map(MetaValue::Bool),
        ".{0,12}".prop_map(MetaValue::String),
        vec(".{0,6}", 0..6).prop_map(MetaValue::Strings),
        vec(any::<f32>(), 0..6).prop_map(MetaValue::F32s),
        vec(any::<i32>(), 0..6).prop_map(MetaValue::I32s),
        vec(any::<u32>(), 0..6).prop_map(MetaValue::U32s),
        vec(any::<bool>(), 0..6).prop_map(MetaValue::Bools),
        raw(),
    ]
}

pub(crate) fn metadata() -> impl Strategy<Value = Vec<(String, MetaValue)>> {
    proptest::collection::hash_map("[a-z.]{1,10}", values(), 0..8)
        .prop_map(|m| m.into_iter().collect())
}

pub(crate) fn tensors() -> impl Strategy<Value = Vec<TensorSpec>> {
    let shape = (proptest::sample::select(&DType::ALL[..]), 1u64..4, vec(1u64..4, 0..4));
    proptest::collection::hash_map("[a-z0-9._]{1,12}", shape, 0..6).prop_map(|m| {
        let spec = |(name, (dtype, blocks, mut dims)): (String, (DType, u64, Vec<u64>))| {
            dims.insert(0, blocks * dtype.block_len() as u64);
            TensorSpec { name, dtype, dims }
        };
        m.into_iter().map(spec).collect()
    })
}

/// Is what was read what had been written?
fn same(written: &MetaValue, read: &Value<'_>) -> bool {
    fn array<'a>(read: &Value<'a>) -> Array<'a> {
        read.as_array().expect("an array")
    }
    match written {
        MetaValue::U32(v) => *read == Value::U32(*v),
        MetaValue::I32(v) => *read == Value::I32(*v),
        MetaValue::U64(v) => *read == Value::U64(*v),
        MetaValue::F32(v) => matches!(read, Value::F32(r) if r.to_bits() == v.to_bits()),
        MetaValue::Bool(v) => *read == Value::Bool(*v),
        MetaValue::String(v) => *read == Value::String(v),
        MetaValue::Strings(v) => array(read).strings().is_some_and(|s| s.eq(v)),
        MetaValue::F32s(v) => array(read)
            .f32s()
            .unwrap()
            .iter()
            .map(|v| v.to_bits())
            .eq(v.iter().map(|v| v.to_bits())),
        MetaValue::I32s(v) => {
            array(read).i64s().unwrap().into_iter().eq(v.iter().map(|&v| v.into()))
        }
        MetaValue::U32s(v) => {
            array(read).i64s().unwrap().into_iter().eq(v.iter().map(|&v| v.into()))
        }
        MetaValue::Bools(v) => {
            array(read).iter().map(|v| v.as_bool()).eq(v.iter().map(|&v| Some(v)))
        }
        MetaValue::Raw(ty, _) => {
            // The bytes are compared by writing the file again; here, that every item can be walked.
            let walked = read.as_array().is_none_or(|a| a.iter().count() == a.len());
            read.value_type() == *ty && walked
        }
    }
}

proptest! {
    #[test]
    fn files_come_back(metadata in metadata(), tensors in tensors()) {
        let (layout, bytes) = write(&metadata, &tensors);
        let file = Gguf::parse(&bytes).unwrap();
        prop_assert_eq!((file.version(), file.alignment()), (3, DEFAULT_ALIGNMENT));

        prop_assert_eq!(file.metadata().len(), metadata.len());
        for ((key, value), (k, v)) in metadata.iter().zip(file.metadata()) {
            prop_assert!(key == k && same(value, v), "{key}: {value:?} became {v:?}");
            prop_assert!(same(value, &file.get(key).unwrap()));
        }

        prop_assert_eq!(file.tensors().len(), tensors.len());
        for (i, (spec, t)) in tensors.iter().zip(file.tensors()).enumerate() {
            prop_assert_eq!((spec.name.as_str(), spec.dtype, &spec.dims), (t.name, t.dtype, &t.dims));
            prop_assert_eq!(t.offset, layout.offsets[i]);
            prop_assert!(t.offset.is_multiple_of(DEFAULT_ALIGNMENT));
            prop_assert_eq!(t.data.len() as u64, spec.bytes().unwrap());
            prop_assert!(t.data.iter().enumerate().all(|(j, &b)| b == datum(i, j)));
            let matrix = t.matrix();
            prop_assert_eq!((matrix.rows() * matrix.cols()) as u64, t.elements());
            prop_assert_eq!(file.tensor(t.name), Some(t));
        }

        // Passed on to another file, everything is written the same to the last byte.
        let again: Vec<_> =
            file.metadata().iter().map(|(k, v)| ((*k).to_owned(), MetaValue::from(*v))).collect();
        let again = Layout::new(&again, &tensors).unwrap();
        prop_assert_eq!(again.header, layout.header);
        prop_assert_eq!((again.offsets, again.file_len), (layout.offsets, layout.file_len));
    }
}

#[test]
fn the_smallest_file() {
    let (layout, bytes) = write(&[], &[]);
    assert_eq!((layout.file_len, bytes.len()), (32, 32));
    assert!(Gguf::parse(&bytes).unwrap().tensors().is_empty());
    // Nothing says that a file without tensors is padded.
    assert!(Gguf::parse(&bytes[..24]).is_ok());
}
