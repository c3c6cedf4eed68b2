//! One test for each thing that must be refused, by name and without leaving anything behind.

use quant::DType;
use safetensors::tensor::Dtype;
use serde_json::json;

use crate::common::*;
use lapidary_convert::{ConvertError, Note, Options, Position};

fn message(e: &ConvertError) -> String {
    e.to_string()
}

#[test]
fn unknown_tensors() {
    let mut c = Checkpoint::gemma3();
    c.add("model.layers.0.mlp.extra_proj.weight".into(), &[HIDDEN]);
    let e = refused(&c, DType::Q4_0);
    assert!(message(&e).contains("model.layers.0.mlp.extra_proj.weight"), "{e}");
    assert!(matches!(e, ConvertError::UnknownTensor { .. }));

    // A layer more than config.json says.
    let mut c = Checkpoint::gemma3();
    c.add("model.layers.2.input_layernorm.weight".into(), &[HIDDEN]);
    assert!(matches!(refused(&c, DType::Q4_0), ConvertError::UnknownTensor { .. }));

    // Head norms, which Gemma 2 has not.
    let mut c = Checkpoint::gemma2();
    c.add("model.layers.0.self_attn.q_norm.weight".into(), &[HEAD]);
    assert!(matches!(refused(&c, DType::Q4_0), ConvertError::UnknownTensor { .. }));

    // A tower in a checkpoint whose config.json has none.
    let mut c = Checkpoint::multimodal();
    c.config.as_object_mut().unwrap().remove("vision_config");
    assert!(matches!(refused(&c, DType::Q4_0), ConvertError::UnknownTensor { .. }));
}

#[test]
fn every_missing_tensor() {
    let whole = Checkpoint::multimodal();
    for name in whole.tensors.keys() {
        let mut c = whole.clone();
        c.tensors.remove(name);
        let e = refused(&c, DType::Q4_0);
        let ConvertError::MissingTensor { tensor, .. } = &e else { panic!("{name}: {e}") };
        let tail = |n: &str| n.rsplit("model.").next().unwrap().to_owned();
        assert_eq!(tail(tensor), tail(name));
    }
}

#[test]
fn every_wrong_shape() {
    let whole = Checkpoint::multimodal();
    for name in whole.tensors.keys() {
        let mut c = whole.clone();
        let mut shape = c.tensors[name].shape.clone();
        *shape.last_mut().unwrap() += 1;
        c.add(name.clone(), &shape);
        let e = refused(&c, DType::Q4_0);
        assert!(matches!(&e, ConvertError::TensorShape { tensor, .. } if tensor == name), "{e}");
    }
    // The right number of weights in the wrong order.
    let mut c = Checkpoint::gemma3();
    c.tensor("model.layers.0.mlp.down_proj.weight").shape.reverse();
    assert!(matches!(refused(&c, DType::Q4_0), ConvertError::TensorShape { .. }));
    // A vector as a matrix of one row.
    c = Checkpoint::gemma3();
    c.tensor("model.norm.weight").shape.insert(0, 1);
    assert!(matches!(refused(&c, DType::Q4_0), ConvertError::TensorShape { .. }));
}

#[test]
fn the_same_tensor_twice() {
    let mut c = Checkpoint::gemma3();
    c.add("norm.weight".into(), &[HIDDEN]);
    let e = refused(&c, DType::Q4_0);
    assert!(matches!(e, ConvertError::DuplicateTensor { .. }), "{e}");
}

#[test]
fn weights_of_a_type_that_is_not_read() {
    let mut c = Checkpoint::gemma3();
    c.tensor("model.layers.1.mlp.up_proj.weight").dtype = Dtype::I64;
    let e = refused(&c, DType::Q4_0);
    assert!(matches!(&e, ConvertError::TensorType { found, .. } if found == "I64"), "{e}");
}

#[test]
fn weights_that_are_not_numbers() {
    for (bad, dtype) in
        [(f32::NAN, Dtype::BF16), (f32::INFINITY, Dtype::F16), (f32::NEG_INFINITY, Dtype::F32)]
    {
        for to in [DType::Q4_0, DType::Q8_0, DType::BF16, DType::F16, DType::F32] {
            let mut c = Checkpoint::gemma3();
            let t = c.tensor("model.layers.1.mlp.up_proj.weight");
            t.dtype = dtype;
            t.values[HIDDEN * 7 + 5] = bad;
            let e = refused(&c, to);
            let ConvertError::NotFinite { tensor, position, .. } = &e else { panic!("{e}") };
            assert_eq!(tensor, "model.layers.1.mlp.up_proj.weight");
            assert_eq!(*position, Position { row: 7, column: 5 });
        }
    }
    let mut c = Checkpoint::gemma3();
    c.tensor("model.norm.weight").values[3] = f32::NAN;
    assert!(matches!(refused(&c, DType::Q4_0), ConvertError::NotFinite { .. }));
}

#[test]
fn weights_that_are_too_large_for_their_type() {
    for (to, fits, too_large) in [
        (DType::F16, 65504.0, 65505.0),
        (DType::Q4_0, 65504.0 * 8.0, 65505.0 * 8.0),
        (DType::Q8_0, 65504.0 * 127.0, 65505.0 * 127.0),
        (DType::BF16, f32::from_bits(0x7f7f_7fff), f32::MAX),
    ] {
        for sign in [1.0, -1.0] {
            let mut c = Checkpoint::gemma3();
            c.tensor("model.layers.0.self_attn.k_proj.weight").dtype = Dtype::F32;
            c.tensor("model.layers.0.self_attn.k_proj.weight").values[1] = sign * fits;
            converted(&c, to);
            c.tensor("model.layers.0.self_attn.k_proj.weight").values[1] = sign * too_large;
            let e = refused(&c, to);
            let ConvertError::Overflow { position, dtype, .. } = e else { panic!("{to}: {e}") };
            assert_eq!((position, dtype), (Position { row: 0, column: 1 }, to));
        }
    }
    // A bf16 checkpoint may hold what f16 cannot.
    let mut c = Checkpoint::gemma3();
    c.tensor("model.embed_tokens.weight").values[0] = 1e6;
    assert!(matches!(refused(&c, DType::F16), ConvertError::Overflow { .. }));
    converted(&c, DType::BF16);
}

#[test]
fn other_architectures() {
    let mut c = Checkpoint::gemma3();
    c.config["architectures"] = json!(["LlamaForCausalLM"]);
    let e = refused(&c, DType::Q4_0);
    assert!(message(&e).contains("LlamaForCausalLM"), "{e}");
    assert!(!message(&e).contains("embedding"), "{e}");
}

#[test]
fn embedding_models() {
    let mut c = Checkpoint::gemma3();
    c.config["use_bidirectional_attention"] = json!(true);
    let e = refused(&c, DType::Q4_0);
    assert!(message(&e).contains("embedding models (EmbeddingGemma)"), "{e}");
    c.config["architectures"] = json!(["Gemma3TextModel"]);
    let e = refused(&c, DType::Q4_0);
    assert!(matches!(&e, ConvertError::Architecture { found, .. } if found == "Gemma3TextModel"));
    assert!(message(&e).contains("embedding models (EmbeddingGemma) are not"), "{e}");
}

#[test]
fn types_that_are_only_read() {
    let c = Checkpoint::gemma3();
    assert!(matches!(refused(&c, DType::Q4_K), ConvertError::Unwritable { .. }));
}

#[test]
fn folders_that_are_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.gguf");
    for name in ["nowhere", "some.txt"] {
        std::fs::write(dir.path().join("some.txt"), "x").unwrap();
        let e = refused_at(&options(&dir.path().join(name), &out, DType::Q4_0));
        assert!(matches!(e, ConvertError::NotAModel { .. }), "{e}");
    }
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let refused_here = || refused_at(&options(&model, &out, DType::Q4_0));
    assert!(matches!(refused_here(), ConvertError::NotAModel { .. }));

    let c = Checkpoint::gemma3();
    c.write(&model);
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    assert!(matches!(refused_here(), ConvertError::NoWeights { pickled: false, .. }));
    std::fs::write(model.join("pytorch_model.bin"), "x").unwrap();
    assert!(matches!(refused_here(), ConvertError::NoWeights { pickled: true, .. }));

    c.write(&model);
    std::fs::remove_file(model.join("tokenizer.json")).unwrap();
    assert!(matches!(refused_here(), ConvertError::NoTokenizer { .. }));
    std::fs::write(model.join("tokenizer.json"), "{").unwrap();
    assert!(matches!(refused_here(), ConvertError::Json { .. }));
    std::fs::write(model.join("tokenizer.model"), "{").unwrap();
    assert!(matches!(refused_here(), ConvertError::Tokenizer { .. }));
    std::fs::write(model.join("config.json"), "[]").unwrap();
    assert!(matches!(refused_here(), ConvertError::Json { .. }));
}

#[test]
fn an_index_that_does_not_fit_its_shards() {
    let c = Checkpoint::gemma3();
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    let out = dir.path().join("out.gguf");
    let with_index = |edit: &dyn Fn(&mut serde_json::Value)| {
        c.write_sharded(&model, 2);
        let path = model.join("model.safetensors.index.json");
        let mut index = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        edit(&mut index);
        std::fs::write(path, index.to_string()).unwrap();
        refused_at(&options(&model, &out, DType::Q4_0))
    };
    let first = "model-00001-of-00002.safetensors";
    let e = with_index(&|i| i["weight_map"]["extra"] = json!(first));
    assert!(matches!(&e, ConvertError::ShardTensor { tensor, .. } if tensor == "extra"), "{e}");
    let e = with_index(&|i| i["weight_map"]["extra"] = json!("gone.safetensors"));
    assert!(matches!(e, ConvertError::Io { .. }), "{e}");
    for reach in ["../model.safetensors", "/etc/passwd", "a/b", "..", "", "c:\\x"] {
        let e = with_index(&|i| i["weight_map"]["extra"] = json!(reach));
        assert!(matches!(e, ConvertError::ShardName { .. }), "{reach}: {e}");
    }
    let e = with_index(&|i| i["weight_map"] = json!(3));
    assert!(matches!(e, ConvertError::Config { .. }), "{e}");
}

#[test]
fn damaged_weight_files() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    Checkpoint::gemma3().write(&model);
    let file = model.join("model.safetensors");
    let good = std::fs::read(&file).unwrap();
    for bad in [&good[..good.len() - 1], &good[..100], &good[..8], &good[..3], &[]] {
        std::fs::write(&file, bad).unwrap();
        let e = refused_at(&options(&model, &dir.path().join("out.gguf"), DType::Q4_0));
        assert!(matches!(e, ConvertError::Safetensors { .. }), "{e}");
    }
}

#[test]
fn pointers_of_git_lfs() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1999811208\n";
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    for name in ["model.safetensors", "tokenizer.json", "tokenizer.model"] {
        Checkpoint::gemma3().write(&model);
        std::fs::write(model.join(name), pointer).unwrap();
        let e = refused_at(&options(&model, &dir.path().join("out.gguf"), DType::Q4_0));
        assert!(matches!(&e, ConvertError::LfsPointer { path } if path.ends_with(name)), "{e}");
        assert!(message(&e).contains("git lfs pull"), "{e}");
    }
    // Of shards every one is looked at.
    std::fs::remove_dir_all(&model).unwrap();
    Checkpoint::gemma3().write_sharded(&model, 2);
    std::fs::write(model.join("model-00002-of-00002.safetensors"), pointer).unwrap();
    let e = refused_at(&options(&model, &dir.path().join("out.gguf"), DType::Q4_0));
    assert!(matches!(e, ConvertError::LfsPointer { .. }), "{e}");
    // And a GGUF file.
    let gguf = dir.path().join("in.gguf");
    std::fs::write(&gguf, pointer).unwrap();
    let e = refused_at(&options(&gguf, &dir.path().join("out.gguf"), DType::Q4_0));
    assert!(matches!(e, ConvertError::LfsPointer { .. }), "{e}");
}

#[test]
fn added_tokens_without_a_row_are_left_out_and_named() {
    let mut c = Checkpoint::gemma3();
    let mut tokenizer = tokenizer_json();
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    added.push(json!({"id": VOCAB, "content": "<image_soft_token>", "special": true}));
    added.push(json!({"id": VOCAB + 1, "content": "<tool>", "special": true}));
    c.files.insert("tokenizer.json".into(), tokenizer.to_string().into_bytes());
    let (_dir, _, summary) = converted(&c, DType::Q4_0);
    // The image token is expected: the 1B has it, and no row for it.
    let note = Note::TokensBeyondRows { tokens: vec!["<tool>".into()], rows: VOCAB as u64 };
    assert_eq!(summary.notes, [note]);
}

#[test]
fn special_ids_outside_the_vocabulary() {
    let mut c = Checkpoint::gemma3();
    c.files.insert("generation_config.json".into(), br#"{"eos_token_id": [1, 999]}"#.to_vec());
    let e = refused(&c, DType::Q4_0);
    assert!(matches!(&e, ConvertError::ConfigValue { key, .. } if key == "eos_token_id"), "{e}");
}

#[test]
fn sampling_defaults_out_of_range() {
    for (key, bad) in [
        ("temperature", "-0.5"),
        ("temperature", "\"hot\""),
        ("temperature", "1e300"),
        ("top_p", "0"),
        ("top_p", "1.5"),
        ("min_p", "-0.1"),
        ("min_p", "2"),
        ("repetition_penalty", "0"),
    ] {
        let mut c = Checkpoint::gemma3();
        let config = format!("{{\"{key}\": {bad}}}");
        c.files.insert("generation_config.json".into(), config.into_bytes());
        let e = refused(&c, DType::Q4_0);
        assert!(message(&e).contains(&format!("generation_config.json: {key} is")), "{e}");
    }
}

#[test]
fn pictures_that_cannot_be_normalized() {
    for (key, bad) in [
        ("rescale_factor", "0"),
        ("rescale_factor", "2000000"),
        ("rescale_factor", "\"no\""),
        ("do_rescale", "1"),
        ("do_normalize", "\"yes\""),
    ] {
        let mut c = Checkpoint::multimodal();
        let config = format!("{{\"{key}\": {bad}}}");
        c.files.insert("preprocessor_config.json".into(), config.into_bytes());
        let e = refused(&c, DType::Q4_0);
        let needle = format!("preprocessor_config.json: {key} is {bad}");
        assert!(message(&e).contains(&needle), "{e}");
    }
}

#[test]
fn outputs_that_exist() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    let out = dir.path().join("out.gguf");
    Checkpoint::multimodal().write(&model);
    std::fs::write(&out, "precious").unwrap();
    let mut options = options(&model, &out, DType::Q4_0);
    let e = refused_at(&options);
    assert!(matches!(&e, ConvertError::Exists { path } if *path == out), "{e}");

    // The vision file alone is enough to refuse.
    std::fs::remove_file(&out).unwrap();
    std::fs::write(dir.path().join("mmproj-out.gguf"), "precious").unwrap();
    assert!(matches!(refused_at(&options), ConvertError::Exists { .. }));

    options.force = true;
    run(&options).unwrap();
    assert!(std::fs::read(dir.path().join("mmproj-out.gguf")).unwrap().starts_with(b"GGUF"));

    let folder = Options { output: Some(dir.path().join("model")), ..options.clone() };
    assert!(matches!(refused_at(&folder), ConvertError::NotAFile { .. }));
    let nowhere = Options { output: Some(dir.path().join("no/such/out.gguf")), ..options.clone() };
    assert!(matches!(run(&nowhere).unwrap_err(), ConvertError::Io { .. }));
    let shard = Options { output: Some(model.join("model.safetensors")), ..options };
    assert!(matches!(refused_at(&shard), ConvertError::WouldReplaceSource { .. }));
}
