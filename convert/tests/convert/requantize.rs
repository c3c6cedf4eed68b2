//! A GGUF file to one of other types.

use quant::DType;
use quant::gguf::{Gguf, Layout, MetaValue, TensorSpec};

use crate::common::*;
use lapidary_convert::{ConvertError, Note, Options};

/// A file as Google's QAT ones are: matrices in q4_0, the embedding in f16, control tokens
/// marked as text.
fn qat(dir: &std::path::Path) -> std::path::PathBuf {
    Checkpoint::gemma3().write(&dir.join("model"));
    let path = dir.join("qat.gguf");
    let mut options = options(&dir.join("model"), &path, DType::Q4_0);
    options.embed = Some(DType::F16);
    options.force = true;
    run(&options).unwrap();
    rewrite(&path, |metadata, _| {
        for (key, value) in metadata {
            if let ("tokenizer.ggml.token_type", MetaValue::I32s(types)) = (key.as_str(), value) {
                types[5] = 1;
                types[6] = 4;
            }
        }
    });
    path
}

type Metadata = Vec<(String, MetaValue)>;
type Tensors = Vec<(TensorSpec, Vec<u8>)>;

/// Takes a file apart, edits it and puts it together again.
fn rewrite(path: &std::path::Path, edit: impl Fn(&mut Metadata, &mut Tensors)) {
    let file = std::fs::read(path).unwrap();
    let gguf = Gguf::parse(&file).unwrap();
    let mut metadata: Metadata = gguf
        .metadata()
        .iter()
        .map(|(k, v)| {
            let types = v.as_array().filter(|_| *k == "tokenizer.ggml.token_type");
            let value = match types.and_then(|a| a.i64s()) {
                Some(types) => MetaValue::I32s(types.iter().map(|&t| t as i32).collect()),
                None => MetaValue::from(*v),
            };
            ((*k).to_owned(), value)
        })
        .collect();
    let mut tensors: Tensors = gguf
        .tensors()
        .iter()
        .map(|t| {
            let spec = TensorSpec { name: t.name.into(), dtype: t.dtype, dims: t.dims.clone() };
            (spec, t.data.to_vec())
        })
        .collect();
    edit(&mut metadata, &mut tensors);
    let specs: Vec<_> = tensors.iter().map(|t| t.0.clone()).collect();
    let layout = Layout::new(&metadata, &specs).unwrap();
    let mut out = layout.header.clone();
    for ((_, data), &offset) in tensors.iter().zip(&layout.offsets) {
        out.resize(offset as usize, 0);
        out.extend(data);
    }
    out.resize(layout.file_len as usize, 0);
    std::fs::write(path, out).unwrap();
}

#[test]
fn only_what_changes_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let from = qat(dir.path());
    let to = dir.path().join("out.gguf");
    let summary = run(&options(&from, &to, DType::Q4_0)).unwrap();
    let tokens = ["<start_of_turn>", "<end_of_turn>"].map(String::from).to_vec();
    assert_eq!(summary.notes, [Note::ControlRepaired(tokens)]);

    // What comes out is what the checkpoint gives directly: f16 holds these bf16 weights exactly.
    let direct = dir.path().join("direct.gguf");
    run(&options(&dir.path().join("model"), &direct, DType::Q4_0)).unwrap();
    assert_eq!(std::fs::read(to).unwrap(), std::fs::read(direct).unwrap());
}

#[test]
fn every_type_to_every_other() {
    let dir = tempfile::tempdir().unwrap();
    Checkpoint::gemma3().write(&dir.path().join("model"));
    let types = [DType::F32, DType::BF16, DType::F16, DType::Q8_0, DType::Q4_0];
    for from in types {
        let a = dir.path().join(format!("{from}.gguf"));
        run(&options(&dir.path().join("model"), &a, from)).unwrap();
        for to in types {
            let b = dir.path().join(format!("{from}-{to}.gguf"));
            let summary = run(&options(&a, &b, to)).unwrap();
            let (a, b) = (std::fs::read(&a).unwrap(), std::fs::read(b).unwrap());
            let (a, b) = (Gguf::parse(&a).unwrap(), Gguf::parse(&b).unwrap());
            let name = "blk.1.ffn_down.weight";
            assert_eq!(b.tensor(name).unwrap().data, encoded(to, &decoded(&a, name), FFN));
            assert_eq!(
                a.tensor("output_norm.weight").unwrap().data,
                b.tensor("output_norm.weight").unwrap().data
            );
            let widens = !from.is_float() && to.bits_per_weight() > from.bits_per_weight();
            assert_eq!(!summary.notes.is_empty(), widens, "{from} to {to}: {:?}", summary.notes);
        }
    }
}

#[test]
fn a_file_may_replace_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = qat(dir.path());
    let mut options = options(&path, &path, DType::Q4_0);
    assert!(matches!(refused_at(&options), ConvertError::Exists { .. }));
    options.force = true;
    run(&options).unwrap();
    let file = std::fs::read(&path).unwrap();
    let gguf = Gguf::parse(&file).unwrap();
    assert_eq!(gguf.tensor("token_embd.weight").unwrap().dtype, DType::Q8_0);
}

#[test]
fn files_that_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused_as = |edit: &dyn Fn(&mut Metadata, &mut Tensors)| {
        let path = qat(dir.path());
        rewrite(&path, edit);
        refused_at(&options(&path, &dir.path().join("out.gguf"), DType::Q8_0))
    };
    let e = refused_as(&|m, _| m[0].1 = MetaValue::String("llama".into()));
    assert!(matches!(&e, ConvertError::Architecture { found, .. } if found == "llama"), "{e}");
    let e = refused_as(&|_, t| drop(t.remove(3)));
    assert!(matches!(e, ConvertError::MissingTensor { .. }), "{e}");
    let e = refused_as(&|_, t| t[3].0.name = "blk.0.mystery.weight".into());
    assert!(matches!(e, ConvertError::UnknownTensor { .. }), "{e}");
    for name in ["blk.2.attn_q.weight", "blk.00.attn_q.weight", "blk.x.attn_q.weight", "blk.0"] {
        let e = refused_as(&|_, t| t[2].0.name = name.into());
        assert!(matches!(e, ConvertError::UnknownTensor { .. }), "{e}");
    }
    let e = refused_as(&|_, t| {
        let matrix = t.iter_mut().find(|t| t.0.name == "blk.0.attn_k.weight").unwrap();
        matrix.0.dims = vec![32, 64];
    });
    assert!(matches!(e, ConvertError::TensorShape { .. }), "{e}");
    let e = refused_as(&|_, t| {
        let norm = t.iter_mut().find(|t| t.0.name == "output_norm.weight").unwrap();
        norm.1[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(matches!(e, ConvertError::NotFinite { .. }), "{e}");
    // A block whose scale is not a number.
    let e = refused_as(&|_, t| {
        let matrix = t.iter_mut().find(|t| t.0.name == "blk.1.ffn_up.weight").unwrap();
        matrix.1[18..20].copy_from_slice(&0x7e00u16.to_le_bytes());
    });
    let ConvertError::NotFinite { tensor, position, .. } = e else { panic!("{e}") };
    assert_eq!((tensor.as_str(), position.row, position.column), ("blk.1.ffn_up.weight", 0, 32));

    let e = refused_as(&|m, _| {
        m.iter_mut().find(|(k, _)| k == "gemma3.block_count").unwrap().1 = MetaValue::U64(u64::MAX);
    });
    assert!(matches!(e, ConvertError::MissingTensor { .. }), "{e}");

    std::fs::write(dir.path().join("bad.gguf"), "GGUF").unwrap();
    std::fs::write(dir.path().join("empty.gguf"), "").unwrap();
    for name in ["bad.gguf", "empty.gguf"] {
        let e =
            refused_at(&options(&dir.path().join(name), &dir.path().join("o.gguf"), DType::Q8_0));
        assert!(matches!(e, ConvertError::Gguf { .. }), "{e}");
    }
}

#[test]
fn an_output_is_named_after_model_and_type() {
    let mut options = Options::new("some/gemma-3-1b-it-qat.gguf");
    assert_eq!(options.output_path().to_str(), Some("gemma-3-1b-it-qat-q4_0.gguf"));
    options.dtype = DType::Q8_0;
    assert_eq!(options.output_path().to_str(), Some("gemma-3-1b-it-qat-q8_0.gguf"));
    options.output = Some("x.gguf".into());
    assert_eq!(options.output_path().to_str(), Some("x.gguf"));
}
