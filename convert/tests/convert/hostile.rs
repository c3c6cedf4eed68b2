//! Bytes that somebody wrote to do harm: they may be refused, they must not panic.

use lapidary_convert::checkpoint;
use proptest::prelude::*;
use quant::DType;
use serde_json::json;

use crate::common::*;

/// A safetensors file with this header before so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.resize(out.len() + data, 0);
    out
}

#[test]
fn headers_that_lie() {
    let tensor = |dtype: &str, shape: serde_json::Value, offsets: [u64; 2]| {
        json!({"t": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).to_string()
    };
    assert!(checkpoint::header(&file(&tensor("F32", json!([2]), [0, 8]), 8), 0).is_ok());
    for (header, data) in [
        (tensor("F32", json!([3]), [0, 8]), 8),
        (tensor("F32", json!([2]), [0, 8]), 7),
        (tensor("F32", json!([2]), [0, 8]), 9),
        (tensor("F32", json!([2]), [8, 0]), 8),
        (tensor("F32", json!([2]), [4, 12]), 12),
        (tensor("F32", json!([u64::MAX, 2]), [0, 8]), 8),
        (tensor("F32", json!([1u64 << 62, 4]), [0, 0]), 0),
        (tensor("F32", json!([-1]), [0, 8]), 8),
        (tensor("F32", json!([2]), [0, u64::MAX]), 8),
        (tensor("F99", json!([2]), [0, 8]), 8),
        ("{".into(), 0),
        ("[]".into(), 0),
        ("null".into(), 0),
    ] {
        assert!(checkpoint::header(&file(&header, data), 0).is_err(), "{header}");
    }
    for len in [u64::MAX, 1 << 40, 100] {
        let mut bytes = file("{}", 8);
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        assert!(checkpoint::header(&bytes, 0).is_err());
    }
}

/// An empty tensor is no tensor of Gemma's, but it must get as far as being told so.
#[test]
fn empty_tensors_are_refused_by_shape() {
    let mut c = Checkpoint::gemma3();
    c.add("model.norm.weight".into(), &[0]);
    let e = refused(&c, DType::Q4_0);
    assert!(e.to_string().contains("model.norm.weight"), "{e}");
    let mut c = Checkpoint::gemma3();
    c.add("model.norm.weight".into(), &[]);
    assert!(refused(&c, DType::Q4_0).to_string().contains("model.norm.weight"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_as_weights(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = checkpoint::header(&bytes, 0);
    }

    #[test]
    fn any_json_as_header(text in r#"\{("[a-z_]{1,9}":(\{.{0,40}\}|[0-9]{1,20}|"[A-Z0-9]{1,4}"),?){0,4}\}"#) {
        let _ = checkpoint::header(&file(&text, 16), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A few bytes of one file of a checkpoint are changed: it converts or is refused.
    #[test]
    fn damaged_files(which in 0usize..4, hits in prop::collection::vec((any::<u32>(), any::<u8>()), 1..4)) {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        let c = Checkpoint::gemma3();
        c.write(&model);
        std::fs::write(model.join("tokenizer.model"), tokenizer_model()).unwrap();
        let name = ["config.json", "tokenizer.model", "tokenizer.json", "model.safetensors"][which];
        let path = model.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        // Weights take any value; the header is where the structure is.
        let reach = bytes.len().min(4096);
        for (at, byte) in hits {
            bytes[at as usize % reach] = byte;
        }
        std::fs::write(&path, bytes).unwrap();
        let out = dir.path().join("out.gguf");
        match run(&options(&model, &out, DType::Q4_0)) {
            Ok(_) => {
                let file = std::fs::read(&out).unwrap();
                prop_assert!(quant::gguf::Gguf::parse(&file).is_ok());
            }
            Err(_) => prop_assert!(!out.exists()),
        }
    }
}
