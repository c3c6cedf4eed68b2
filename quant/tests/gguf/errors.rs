//! Each error, provoked by the smallest file that deserves it.

use lapidary_quant::DType;
use lapidary_quant::gguf::{Gguf, GgufError, Layout, MetaValue, TensorSpec, ValueType};

use crate::bytes::Bytes;

fn refused(bytes: Bytes) -> GgufError {
    Gguf::parse(&bytes.0).expect_err("this file is wrong")
}

#[test]
fn not_a_gguf_file() {
    for bytes in [&b""[..], b"GG", b"GGML", b"\x7fELF rest"] {
        let found = bytes[..bytes.len().min(4)].to_vec();
        assert_eq!(refused(Bytes(bytes.into())), GgufError::Magic { found });
    }
}

#[test]
fn versions_that_are_not_read() {
    for (version, big_endian) in [(0, false), (1, false), (4, false), (3 << 24, true)] {
        let bytes = Bytes::default().raw(b"GGUF").u32(version).u64(0).u64(0);
        assert_eq!(refused(bytes), GgufError::Version { version, big_endian });
    }
    let e = refused(Bytes::default().raw(b"GGUF").u32(3 << 24).u64(0).u64(0));
    assert!(e.to_string().contains("big-endian"), "{e}");
}

#[test]
fn version_2_is_read() {
    let bytes = Bytes::default().raw(b"GGUF").u32(2).u64(0).u64(0).0;
    assert_eq!(Gguf::parse(&bytes).unwrap().version(), 2);
}

/// A file with a key of every kind and a tensor, cut anywhere, is refused, nearly always as truncated.
#[test]
fn truncated_anywhere() {
    let whole = Bytes::header(1, 3)
        .key("a.string", ValueType::String)
        .str("text")
        .key("a.list", ValueType::Array)
        .array(ValueType::String, 2)
        .str("one")
        .str("two")
        .key("a.number", ValueType::F64)
        .u64(0)
        .tensor("t", &[32, 2], DType::Q4_0, 0)
        .data(36)
        .0;
    Gguf::parse(&whole).unwrap();
    for len in 0..whole.len() {
        let e = Gguf::parse(&whole[..len]).expect_err("cut");
        match e {
            GgufError::Truncated { offset, need, have, .. } => {
                assert!(offset + have == len as u64 && need > have, "{len}: {e}");
            }
            GgufError::Magic { .. } if len < 4 => {}
            GgufError::Count { file_len, .. } => assert_eq!(file_len, len as u64),
            GgufError::TensorBounds { start, end, file_len, .. } => {
                assert!(file_len == len as u64 && end == start + 36 && end > file_len);
            }
            e => panic!("cut at {len}: {e}"),
        }
    }
}

#[test]
fn counts_beyond_the_file() {
    for count in [1, 1 << 40, u64::MAX] {
        assert_eq!(
            refused(Bytes::header(0, count)),
            GgufError::Count { what: "keys", count, file_len: 24 }
        );
        assert_eq!(
            refused(Bytes::header(count, 0)),
            GgufError::Count { what: "tensors", count, file_len: 24 }
        );
    }
}

#[test]
fn lengths_beyond_the_file() {
    for len in [1 << 40, u64::MAX] {
        let string = Bytes::header(0, 1).key("k", ValueType::String).u64(len).data(0);
        assert!(matches!(refused(string), GgufError::Truncated { need, .. } if need == len));
        for item in [ValueType::U8, ValueType::F64, ValueType::String, ValueType::Array] {
            let array = Bytes::header(0, 1).key("k", ValueType::Array).array(item, len).data(0);
            assert!(matches!(refused(array), GgufError::Truncated { need, .. } if need >= len));
        }
    }
}

#[test]
fn names_too_long() {
    let len = 65536;
    let e = refused(Bytes::header(0, 1).str("k".repeat(len)).data(64));
    assert!(matches!(e, GgufError::NameLength { len, max: 65535, .. } if len == 65536), "{e}");
    let tensor = |n: usize| Bytes::header(1, 0).tensor(&"t".repeat(n), &[1], DType::F32, 0).data(4);
    assert!(Gguf::parse(&tensor(64).0).is_ok());
    assert!(matches!(refused(tensor(65)), GgufError::NameLength { len: 65, max: 64, .. }));
}

#[test]
fn text_that_is_not_utf8() {
    let bad = b"\xff\xfe";
    let files = [
        (Bytes::header(0, 1).str(bad).data(64), "the name of key 0"),
        (Bytes::header(0, 1).key("k", ValueType::String).str(bad), "k"),
        (Bytes::header(0, 1).key("k", ValueType::Array).array(ValueType::String, 1).str(bad), "k"),
        (Bytes::header(1, 0).str(bad).data(64), "the name of tensor 0"),
    ];
    for (file, place) in files {
        let e = refused(file);
        assert!(matches!(&e, GgufError::Utf8 { what, .. } if what == place), "{e}");
    }
}

#[test]
fn unknown_value_types() {
    let what = || "k".to_owned();
    let scalar = Bytes::header(0, 1).str("k").u32(13).u64(0);
    assert_eq!(refused(scalar), GgufError::ValueType { what: what(), id: 13 });
    let item = Bytes::header(0, 1).key("k", ValueType::Array).u32(u32::MAX).u64(0);
    assert_eq!(refused(item), GgufError::ValueType { what: what(), id: u32::MAX });
}

#[test]
fn arrays_in_arrays() {
    let nested = |depth: usize| {
        let start = Bytes::header(0, 1).key("k", ValueType::Array);
        (1..depth).fold(start, |b, _| b.array(ValueType::Array, 1)).array(ValueType::U8, 0)
    };
    for depth in 1..=4 {
        Gguf::parse(&nested(depth).0).unwrap();
    }
    for depth in [5, 6, 1000] {
        assert_eq!(refused(nested(depth)), GgufError::Nesting { what: "k".into(), max: 4 });
    }
}

#[test]
fn bools_are_0_or_1() {
    for byte in [2, 0xFF] {
        let scalar = Bytes::header(0, 1).key("k", ValueType::Bool).raw(&[byte]);
        assert_eq!(refused(scalar), GgufError::Bool { what: "k".into(), byte });
        let array = Bytes::header(0, 1).key("k", ValueType::Array).array(ValueType::Bool, 2);
        assert_eq!(refused(array.raw(&[1, byte])), GgufError::Bool { what: "k".into(), byte });
    }
}

#[test]
fn names_that_appear_twice() {
    let keys =
        Bytes::header(0, 2).key("k", ValueType::U8).raw(&[1]).key("k", ValueType::I8).raw(&[1]);
    assert_eq!(refused(keys), GgufError::DuplicateKey { key: "k".into() });
    let tensors =
        Bytes::header(2, 0).tensor("t", &[1], DType::F32, 0).tensor("t", &[1], DType::F32, 32);
    assert_eq!(refused(tensors.data(64)), GgufError::DuplicateTensor { name: "t".into() });
}

#[test]
fn alignments() {
    let with = |ty, a: u32| Bytes::header(0, 1).key("general.alignment", ty).u32(a);
    for good in [8, 16, 32, 4096, 1 << 31] {
        let bytes = with(ValueType::U32, good).0;
        assert_eq!(Gguf::parse(&bytes).unwrap().alignment(), u64::from(good));
    }
    for bad in [0, 1, 4, 24, u32::MAX] {
        let e = refused(with(ValueType::U32, bad));
        assert!(matches!(e, GgufError::Alignment { .. }), "{bad}: {e}");
    }
    let e = refused(with(ValueType::F32, 32f32.to_bits()));
    assert_eq!(e, GgufError::Alignment { found: "f32 F32(32.0)".into() });
    // A value that is shown in a message is not shown whole.
    let e = refused(
        Bytes::header(0, 1).key("general.alignment", ValueType::String).str("\u{1}".repeat(5000)),
    );
    assert!(e.to_string().len() < 500, "{e}");
}

/// A header, one tensor's descriptor and plenty of data.
fn one(dims: &[u64], dtype: DType, offset: u64) -> Bytes {
    Bytes::header(1, 0).tensor("t", dims, dtype, offset).data(256)
}

#[test]
fn tensor_dimensions() {
    for dims in [vec![], vec![1; 5]] {
        let e = GgufError::Dims { name: "t".into(), dims: dims.len() as u32 };
        assert_eq!(refused(one(&dims, DType::F32, 0)), e);
    }
    let shapes: [(&[u64], DType); 9] = [
        (&[0], DType::F32),
        (&[4, 0], DType::F32),
        (&[0, u64::MAX], DType::F32),
        (&[33], DType::Q4_0),
        (&[128], DType::Q4_K),
        (&[u64::MAX], DType::F32),
        (&[1 << 32, 1 << 32], DType::F32),
        (&[1, 1 << 61], DType::F32),
        (&[32, 1 << 32, 1 << 32, 1 << 32], DType::Q4_0),
    ];
    for (dims, dtype) in shapes {
        let e = GgufError::TensorShape { name: "t".into(), shape: dims.into(), dtype };
        assert_eq!(refused(one(dims, dtype, 0)), e);
    }
}

#[test]
fn tensor_types() {
    for id in [4, 5, 9, 31, u32::MAX] {
        let bytes = Bytes::header(1, 0).str("t").u32(1).u64(32).u32(id).u64(0).data(64);
        assert_eq!(refused(bytes), GgufError::TensorType { name: "t".into(), id });
    }
    let message = |id| GgufError::TensorType { name: "t".into(), id }.to_string();
    for (id, name) in [
        (16, "type IQ2_XXS (type 16),"),
        (21, "type IQ3_S (type 21),"),
        (39, "type MXFP4 (type 39),"),
        (4, "type 4,"),
    ] {
        assert!(message(id).contains(name), "{}", message(id));
    }
    let all = "it reads F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, \
               IQ4_NL, IQ4_XS";
    assert!(message(16).ends_with(all), "{}", message(16));
}

#[test]
fn tensor_places() {
    for offset in [1, 8, 33] {
        let e = GgufError::TensorOffset { name: "t".into(), offset, alignment: 32 };
        assert_eq!(refused(one(&[8], DType::F32, offset)), e);
    }
    let e = refused(one(&[64, 2], DType::F32, 0));
    assert!(matches!(e, GgufError::TensorBounds { start: 96, end: 608, file_len: 352, .. }), "{e}");
    let e = refused(one(&[8], DType::F32, u64::MAX - 31));
    assert!(matches!(e, GgufError::TensorBounds { end: u64::MAX, .. }), "{e}");

    let two = |second| {
        Bytes::header(2, 0).tensor("a", &[9], DType::F32, 0).tensor("b", &[4], DType::F32, second)
    };
    let (first, second) = ("a".to_owned(), "b".to_owned());
    assert_eq!(refused(two(32).data(128)), GgufError::Overlap { first, second, offset: 32 });
    Gguf::parse(&two(64).data(128).0).unwrap();
}

#[test]
fn what_a_model_asks_for() {
    let bytes = Bytes::header(1, 1)
        .key("k", ValueType::I32)
        .u32((-1i32) as u32)
        .tensor("t", &[4, 2], DType::F32, 0)
        .data(32)
        .0;
    let file = Gguf::parse(&bytes).unwrap();
    let wrong =
        |expected| GgufError::KeyType { key: "k".into(), expected, found: "i32 I32(-1)".into() };
    assert_eq!(file.u64("k"), Err(wrong("an unsigned integer")));
    assert_eq!(file.str("k"), Err(wrong("a string")));
    assert_eq!(file.bool("k"), Err(wrong("a bool")));
    assert_eq!(file.array("k"), Err(wrong("an array")));
    assert_eq!(file.f32("k"), Ok(Some(-1.0)));
    assert_eq!(file.u64("other"), Ok(None));
    assert_eq!(
        Gguf::required("other", file.u64("other").unwrap()),
        Err(GgufError::MissingKey { key: "other".into() })
    );
    assert_eq!(Gguf::required("k", file.f32("k").unwrap()), Ok(-1.0));

    assert_eq!(file.tensor_shaped("t", &[4, 2]).unwrap().elements(), 8);
    assert_eq!(
        file.tensor_shaped("t", &[2, 4]),
        Err(GgufError::TensorDims { name: "t".into(), expected: vec![2, 4], found: vec![4, 2] })
    );
    assert_eq!(
        file.tensor_shaped("u", &[4, 2]),
        Err(GgufError::MissingTensor { name: "u".into() })
    );
}

#[test]
fn parts_of_a_model() {
    let file = |part: u32, parts: u32| {
        let bytes = Bytes::header(0, 2).key("split.no", ValueType::U32).u32(part);
        bytes.key("split.count", ValueType::U32).u32(parts).0
    };
    let (second, only) = (file(1, 3), file(0, 1));
    let refused = Gguf::parse(&second).unwrap().whole().unwrap_err();
    assert_eq!(refused, GgufError::Part { part: 2, parts: 3 });
    assert!(refused.to_string().contains("part 2 of 3"), "{refused}");
    Gguf::parse(&only).unwrap().whole().unwrap();
}

#[test]
fn what_the_writer_refuses() {
    let spec = |name: &str, dims: &[u64]| TensorSpec {
        name: name.into(),
        dtype: DType::Q4_0,
        dims: dims.into(),
    };
    let tensors = |t: &[TensorSpec]| Layout::new(&[], t).map(|_| ()).unwrap_err();
    assert!(matches!(tensors(&[spec("t", &[33])]), GgufError::TensorShape { .. }));
    assert!(matches!(tensors(&[spec("t", &[])]), GgufError::TensorShape { .. }));
    assert!(matches!(tensors(&[spec("t", &[32, 1, 1, 1, 1])]), GgufError::Dims { dims: 5, .. }));
    let twice = [spec("t", &[32]), spec("t", &[64])];
    assert!(matches!(tensors(&twice), GgufError::DuplicateTensor { .. }));
    assert!(matches!(tensors(&[spec(&"t".repeat(64), &[32])]), GgufError::NameLength { .. }));
    let half = [32, 1 << 58];
    let huge = [spec("a", &half), spec("b", &half), spec("c", &half)];
    assert!(matches!(tensors(&huge), GgufError::TensorShape { name, .. } if name == "b"));

    let keys = |k: &[(&str, MetaValue)]| {
        let keys: Vec<_> = k.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        Layout::new(&keys, &[]).map(|_| ()).unwrap_err()
    };
    let value = || MetaValue::Bool(true);
    assert!(matches!(keys(&[("k", value()), ("k", value())]), GgufError::DuplicateKey { .. }));
    assert!(matches!(keys(&[(&"k".repeat(65536), value())]), GgufError::NameLength { .. }));
    assert!(matches!(
        keys(&[("general.alignment", MetaValue::U32(64))]),
        GgufError::Alignment { .. }
    ));
}
