//! Every way a Gemma checkpoint is published, converted and read back.

use crate::common::*;
use lapidary_convert::Note;
use quant::DType;
use quant::gguf::{Gguf, Value};
use safetensors::tensor::Dtype;
use serde_json::json;

/// Checks that every tensor of a two-layer Gemma 3 is where it belongs and holds what it should.
#[track_caller]
fn check_text(c: &Checkpoint, root: &str, file: &[u8], matrix: DType, embed: DType) {
    let gguf = Gguf::parse(file).unwrap();
    let expect = |name: &str, source: &str, dtype: DType, add: f32| {
        let w = &c.tensors[&format!("{root}{source}")];
        let t = gguf.tensor(name).unwrap_or_else(|| panic!("{name}"));
        let dims: Vec<u64> = w.shape.iter().rev().map(|&d| d as u64).collect();
        assert_eq!((t.dtype, &t.dims), (dtype, &dims), "{name}");
        let values: Vec<f32> = w.stored().iter().map(|v| v + add).collect();
        assert_eq!(t.data, encoded(dtype, &values, dims[0] as usize), "{name}");
    };
    expect("token_embd.weight", "embed_tokens.weight", embed, 0.0);
    expect("output_norm.weight", "norm.weight", DType::F32, 1.0);
    let mut expected = 2;
    let layers = (0..)
        .take_while(|i| c.tensors.contains_key(&format!("{root}layers.{i}.mlp.up_proj.weight")));
    for i in layers {
        for (ours, theirs) in [
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ] {
            expect(
                &format!("blk.{i}.{ours}.weight"),
                &format!("layers.{i}.{theirs}.weight"),
                matrix,
                0.0,
            );
            expected += 1;
        }
        for (ours, theirs) in [
            ("attn_norm", "input_layernorm"),
            ("attn_q_norm", "self_attn.q_norm"),
            ("attn_k_norm", "self_attn.k_norm"),
            ("post_attention_norm", "post_attention_layernorm"),
            ("ffn_norm", "pre_feedforward_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ] {
            if !c.tensors.contains_key(&format!("{root}layers.{i}.{theirs}.weight")) {
                continue; // Gemma 2 has no head norms
            }
            expect(
                &format!("blk.{i}.{ours}.weight"),
                &format!("layers.{i}.{theirs}.weight"),
                DType::F32,
                1.0,
            );
            expected += 1;
        }
    }
    assert_eq!(gguf.tensors().len(), expected);
}

#[test]
fn gemma_3_in_every_type() {
    let c = Checkpoint::gemma3();
    for (dtype, embed, file_type) in [
        (DType::Q4_0, DType::Q8_0, 2),
        (DType::Q8_0, DType::Q8_0, 7),
        (DType::BF16, DType::BF16, 32),
        (DType::F16, DType::F16, 1),
        (DType::F32, DType::F32, 0),
    ] {
        let (_dir, out, summary) = converted(&c, dtype);
        let file = std::fs::read(&out).unwrap();
        check_text(&c, "model.", &file, dtype, embed);
        let gguf = Gguf::parse(&file).unwrap();
        assert_eq!(gguf.u64("general.file_type").unwrap(), Some(file_type));
        assert_eq!(summary.notes, []);
        assert_eq!(summary.files[0].bytes, file.len() as u64);
        let weights: usize = c.tensors.values().map(|w| w.values.len()).sum();
        assert_eq!(summary.files[0].weights(), weights as u64);
    }
}

#[test]
fn the_embedding_may_differ() {
    let c = Checkpoint::gemma3();
    let dir = tempfile::tempdir().unwrap();
    c.write(&dir.path().join("m"));
    let out = dir.path().join("out.gguf");
    let mut options = options(&dir.path().join("m"), &out, DType::F16);
    options.embed = Some(DType::Q4_0);
    run(&options).unwrap();
    check_text(&c, "model.", &std::fs::read(&out).unwrap(), DType::F16, DType::Q4_0);
}

#[test]
fn keys_are_what_llama_cpp_reads() {
    let (_dir, out, _) = converted(&Checkpoint::gemma3(), DType::Q4_0);
    let file = std::fs::read(&out).unwrap();
    let g = Gguf::parse(&file).unwrap();
    for (key, value) in [
        ("general.architecture", Value::String("gemma3")),
        ("general.type", Value::String("model")),
        ("general.name", Value::String("model")),
        ("general.quantization_version", Value::U32(2)),
        ("general.sampling.top_k", Value::I32(64)),
        ("general.sampling.top_p", Value::F32(0.95)),
        ("general.sampling.temp", Value::F32(1.0)),
        ("gemma3.context_length", Value::U32(512)),
        ("gemma3.embedding_length", Value::U32(64)),
        ("gemma3.block_count", Value::U32(2)),
        ("gemma3.feed_forward_length", Value::U32(96)),
        ("gemma3.attention.head_count", Value::U32(2)),
        ("gemma3.attention.head_count_kv", Value::U32(1)),
        ("gemma3.attention.key_length", Value::U32(32)),
        ("gemma3.attention.value_length", Value::U32(32)),
        ("gemma3.attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
        ("gemma3.attention.sliding_window", Value::U32(16)),
        ("gemma3.attention.sliding_window_pattern", Value::U32(6)),
        ("gemma3.rope.freq_base", Value::F32(1e6)),
        ("gemma3.rope.freq_base_swa", Value::F32(1e4)),
        ("tokenizer.ggml.model", Value::String("llama")),
        ("tokenizer.ggml.pre", Value::String("default")),
        ("tokenizer.ggml.bos_token_id", Value::U32(2)),
        ("tokenizer.ggml.eos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eot_token_id", Value::U32(6)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(3)),
        ("tokenizer.ggml.padding_token_id", Value::U32(0)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(true)),
        ("tokenizer.ggml.add_eos_token", Value::Bool(false)),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
        ("tokenizer.chat_template", Value::String("{{ messages }}")),
    ] {
        assert_eq!(g.get(key), Some(value), "{key}");
    }
    for absent in ["gemma3.rope.scaling.type", "tokenizer.ggml.eos_token_ids"] {
        assert_eq!(g.get(absent), None, "{absent}");
    }
    let tokens: Vec<_> =
        g.array("tokenizer.ggml.tokens").unwrap().unwrap().strings().unwrap().collect();
    assert_eq!(tokens.len(), VOCAB);
    assert_eq!((tokens[8], tokens[13], tokens[47]), ("  ", "▁t", "[PAD47]"));
}

#[test]
fn gemma_2_has_softcaps_and_no_head_norms() {
    let c = Checkpoint::gemma2();
    let (_dir, out, _) = converted(&c, DType::Q8_0);
    let file = std::fs::read(&out).unwrap();
    check_text(&c, "model.", &file, DType::Q8_0, DType::Q8_0);
    let g = Gguf::parse(&file).unwrap();
    assert_eq!(g.f32("gemma2.attn_logit_softcapping").unwrap(), Some(50.0));
    assert_eq!(g.f32("gemma2.final_logit_softcapping").unwrap(), Some(30.0));
    assert_eq!(g.u64("gemma2.attention.sliding_window_pattern").unwrap(), Some(2));
    assert_eq!(g.get("gemma2.rope.freq_base_swa"), None);
}

#[test]
fn the_query_scale_is_stored() {
    let mut c = Checkpoint::gemma3();
    // That of a head's size as well: without it readers take 62 layers for a 27B's.
    for scalar in [168, c.config["head_dim"].as_u64().unwrap()] {
        c.config["query_pre_attn_scalar"] = json!(scalar);
        let (_dir, out, summary) = converted(&c, DType::Q8_0);
        let file = std::fs::read(&out).unwrap();
        let scale = Gguf::parse(&file).unwrap().f32("gemma3.attention.scale").unwrap();
        assert_eq!(scale, Some((1.0 / (scalar as f64).sqrt()) as f32));
        let is_told = |n: &Note| matches!(n, Note::QueryScale { scalar, .. } if scalar == "168");
        assert_eq!(summary.notes.iter().any(is_told), scalar == 168, "{:?}", summary.notes);
    }
}

#[test]
fn every_root_and_source_type() {
    for root in ["model.", "", "language_model.model.", "model.language_model."] {
        let mut c = Checkpoint::gemma3();
        c.reroot("model.", root);
        let (_dir, out, _) = converted(&c, DType::Q4_0);
        check_text(&c, root, &std::fs::read(&out).unwrap(), DType::Q4_0, DType::Q8_0);
    }
    for dtype in [Dtype::F32, Dtype::F16] {
        let mut c = Checkpoint::gemma3();
        c.tensors.values_mut().for_each(|w| {
            w.dtype = dtype;
            w.values.iter_mut().for_each(|v| *v *= 1.001);
        });
        let (_dir, out, _) = converted(&c, DType::Q4_0);
        check_text(&c, "model.", &std::fs::read(&out).unwrap(), DType::Q4_0, DType::Q8_0);
    }
}

#[test]
fn shards_give_the_same_file() {
    let c = Checkpoint::gemma3();
    let dir = tempfile::tempdir().unwrap();
    c.write(&dir.path().join("one/model"));
    c.write_sharded(&dir.path().join("three/model"), 3);
    let mut files = Vec::new();
    for from in ["one", "three"] {
        let out = dir.path().join(format!("{from}.gguf"));
        run(&options(&dir.path().join(from).join("model"), &out, DType::Q4_0)).unwrap();
        files.push(std::fs::read(out).unwrap());
    }
    assert_eq!(files[0], files[1]);
    // Shards without an index are taken as they lie.
    std::fs::remove_file(dir.path().join("three/model/model.safetensors.index.json")).unwrap();
    let out = dir.path().join("bare.gguf");
    run(&options(&dir.path().join("three/model"), &out, DType::Q4_0)).unwrap();
    assert_eq!(std::fs::read(out).unwrap(), files[0]);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let c = Checkpoint::gemma3();
    let dir = tempfile::tempdir().unwrap();
    c.write(&dir.path().join("model"));
    let mut files = Vec::new();
    for threads in [1, 2, 7] {
        let out = dir.path().join(format!("{threads}.gguf"));
        let mut options = options(&dir.path().join("model"), &out, DType::Q8_0);
        options.threads = std::num::NonZero::new(threads);
        run(&options).unwrap();
        files.push(std::fs::read(out).unwrap());
    }
    assert!(files.windows(2).all(|f| f[0] == f[1]));
}

#[test]
fn vision_goes_beside_the_text() {
    for (text, vision, projector) in [
        ("language_model.model.", "vision_tower.vision_model.", "multi_modal_projector."),
        (
            "model.language_model.",
            "model.vision_tower.vision_model.",
            "model.multi_modal_projector.",
        ),
        ("model.language_model.", "model.vision_tower.", "model.multi_modal_projector."),
    ] {
        let mut c = Checkpoint::multimodal();
        c.reroot("vision_tower.vision_model.", vision);
        c.reroot("multi_modal_projector.", projector);
        c.reroot("language_model.model.", text);
        let (dir, out, summary) = converted(&c, DType::Q4_0);
        check_text(&c, text, &std::fs::read(&out).unwrap(), DType::Q4_0, DType::Q8_0);
        assert_eq!(summary.files[1].path, dir.path().join("mmproj-out.gguf"));

        let file = std::fs::read(&summary.files[1].path).unwrap();
        let g = Gguf::parse(&file).unwrap();
        let expect = |name: &str, source: String, dtype: DType, dims: &[u64], add: f32| {
            let t = g.tensor(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((t.dtype, t.dims.as_slice()), (dtype, dims), "{name}");
            let values: Vec<f32> = c.tensors[&source].stored().iter().map(|v| v + add).collect();
            assert_eq!(t.data, encoded(dtype, &values, dims[0] as usize), "{name}");
        };
        use DType::{F16, F32};
        expect(
            "v.patch_embd.weight",
            format!("{vision}embeddings.patch_embedding.weight"),
            F32,
            &[2, 2, 3, 32],
            0.0,
        );
        expect(
            "v.position_embd.weight",
            format!("{vision}embeddings.position_embedding.weight"),
            F32,
            &[32, 64],
            0.0,
        );
        expect(
            "v.blk.1.attn_out.weight",
            format!("{vision}encoder.layers.1.self_attn.out_proj.weight"),
            F16,
            &[32, 32],
            0.0,
        );
        expect(
            "v.blk.1.ffn_up.weight",
            format!("{vision}encoder.layers.1.mlp.fc1.weight"),
            F16,
            &[32, 40],
            0.0,
        );
        expect(
            "v.blk.1.ffn_down.weight",
            format!("{vision}encoder.layers.1.mlp.fc2.weight"),
            F16,
            &[40, 32],
            0.0,
        );
        expect(
            "v.blk.0.ln1.weight",
            format!("{vision}encoder.layers.0.layer_norm1.weight"),
            F32,
            &[32],
            0.0,
        );
        expect(
            "v.blk.0.ln2.bias",
            format!("{vision}encoder.layers.0.layer_norm2.bias"),
            F32,
            &[32],
            0.0,
        );
        expect("v.post_ln.weight", format!("{vision}post_layernorm.weight"), F32, &[32], 0.0);
        expect(
            "mm.input_projection.weight",
            format!("{projector}mm_input_projection_weight"),
            F16,
            &[64, 32],
            0.0,
        );
        expect(
            "mm.soft_emb_norm.weight",
            format!("{projector}mm_soft_emb_norm.weight"),
            F32,
            &[32],
            1.0,
        );
        assert_eq!(g.tensors().len(), 3 + 2 * 16 + 2 + 2);
        for (key, value) in [
            ("general.architecture", Value::String("clip")),
            ("general.type", Value::String("mmproj")),
            ("general.file_type", Value::U32(1)),
            ("clip.has_vision_encoder", Value::Bool(true)),
            ("clip.projector_type", Value::String("gemma3")),
            ("clip.use_gelu", Value::Bool(true)),
            ("clip.vision.image_size", Value::U32(16)),
            ("clip.vision.patch_size", Value::U32(2)),
            ("clip.vision.embedding_length", Value::U32(32)),
            ("clip.vision.feed_forward_length", Value::U32(40)),
            ("clip.vision.block_count", Value::U32(2)),
            ("clip.vision.projection_dim", Value::U32(64)),
            ("clip.vision.attention.head_count", Value::U32(2)),
            ("clip.vision.attention.layer_norm_epsilon", Value::F32(1e-6)),
        ] {
            assert_eq!(g.get(key), Some(value), "{key}");
        }
        // 8 patches a side pooled to 2: a factor of 4, which is the default and not stored.
        assert_eq!(g.get("clip.vision.projector.scale_factor"), None);
        let mean = g.array("clip.vision.image_mean").unwrap().unwrap();
        assert_eq!(mean.f32s().unwrap(), [0.5; 3]);
    }
}

#[test]
fn float_types_carry_over_to_the_vision_tower() {
    for (dtype, matrix, projection) in [
        (DType::BF16, DType::BF16, DType::F16),
        (DType::F32, DType::F32, DType::F32),
        (DType::Q8_0, DType::F16, DType::F16),
    ] {
        let (_dir, _, summary) = converted(&Checkpoint::multimodal(), dtype);
        let file = std::fs::read(&summary.files[1].path).unwrap();
        let g = Gguf::parse(&file).unwrap();
        assert_eq!(g.tensor("v.blk.0.attn_q.weight").unwrap().dtype, matrix);
        assert_eq!(g.tensor("v.patch_embd.weight").unwrap().dtype, DType::F32);
        assert_eq!(g.tensor("mm.input_projection.weight").unwrap().dtype, projection);
    }
}

#[test]
fn a_multimodal_config_without_a_tower_is_a_text_model() {
    let mut c = Checkpoint::multimodal();
    c.tensors.retain(|name, _| name.starts_with("language_model."));
    let (_dir, _, summary) = converted(&c, DType::Q4_0);
    assert_eq!(summary.files.len(), 1);
    assert_eq!(summary.notes, [Note::NoVisionTensors]);
}

#[test]
fn rows_that_are_not_whole_blocks_stay_f16_and_are_named() {
    let mut c = Checkpoint::gemma3();
    c.config["intermediate_size"] = json!(100);
    for i in 0..2 {
        for (name, shape) in
            [("gate", [100, HIDDEN]), ("up", [100, HIDDEN]), ("down", [HIDDEN, 100])]
        {
            c.add(format!("model.layers.{i}.mlp.{name}_proj.weight"), &shape);
        }
    }
    let (_dir, out, summary) = converted(&c, DType::Q4_0);
    let tensors = ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"].map(String::from).to_vec();
    assert_eq!(summary.notes, [Note::KeptF16 { tensors }]);
    let file = std::fs::read(out).unwrap();
    let g = Gguf::parse(&file).unwrap();
    assert_eq!(g.tensor("blk.0.ffn_down.weight").unwrap().dtype, DType::F16);
    assert_eq!(g.tensor("blk.0.ffn_up.weight").unwrap().dtype, DType::Q4_0);
}

#[test]
fn a_head_is_stored_only_where_it_differs() {
    let mut c = Checkpoint::gemma3();
    let embedding = c.tensors["model.embed_tokens.weight"].clone();
    c.tensors.insert("lm_head.weight".into(), embedding.clone());
    let (_dir, out, summary) = converted(&c, DType::Q4_0);
    assert_eq!(summary.notes, [Note::HeadTied { tensor: "lm_head.weight".into() }]);
    let file = std::fs::read(out).unwrap();
    assert!(Gguf::parse(&file).unwrap().tensor("output.weight").is_none());

    // The same weights in another type are the same weights.
    c.tensor("lm_head.weight").dtype = Dtype::F32;
    let (_dir, _, summary) = converted(&c, DType::Q4_0);
    assert_eq!(summary.notes, [Note::HeadTied { tensor: "lm_head.weight".into() }]);

    *c.tensor("lm_head.weight") = embedding;
    c.tensor("lm_head.weight").values[VOCAB * HIDDEN - 1] += 0.5;
    let (_dir, out, summary) = converted(&c, DType::Q4_0);
    let tensor = "lm_head.weight".into();
    assert_eq!(summary.notes, [Note::HeadUntied { tensor, loads_in_llama_cpp: true }]);
    let file = std::fs::read(out).unwrap();
    let g = Gguf::parse(&file).unwrap();
    let head = g.tensor("output.weight").unwrap();
    assert_eq!(head.dtype, DType::Q8_0);
    assert_eq!(head.data, encoded(DType::Q8_0, &c.tensors["lm_head.weight"].stored(), HIDDEN));
}

#[test]
fn a_head_that_is_promised_and_missing_is_noted() {
    let mut c = Checkpoint::gemma3();
    c.config["tie_word_embeddings"] = json!(false);
    let (_dir, _, summary) = converted(&c, DType::Q4_0);
    assert_eq!(summary.notes, [Note::HeadMissing]);
    c.config["tie_word_embeddings"] = json!(true);
    let (_dir, _, summary) = converted(&c, DType::Q4_0);
    assert_eq!(summary.notes, []);

    let mut c = Checkpoint::multimodal();
    c.config["text_config"]["tie_word_embeddings"] = json!(false);
    let (_dir, _, summary) = converted(&c, DType::Q4_0);
    assert_eq!(summary.notes, [Note::HeadMissing]);

    // With the head there is nothing to note of it but that it is stored.
    let mut c = Checkpoint::gemma3();
    c.config["tie_word_embeddings"] = json!(false);
    c.add("lm_head.weight".into(), &[VOCAB, HIDDEN]);
    let (_dir, _, summary) = converted(&c, DType::Q4_0);
    let tensor = "lm_head.weight".into();
    assert_eq!(summary.notes, [Note::HeadUntied { tensor, loads_in_llama_cpp: true }]);
}

#[test]
fn recomputed_buffers_are_ignored_whatever_their_type() {
    let mut c = Checkpoint::gemma3();
    c.add("model.layers.0.self_attn.rotary_emb.inv_freq".into(), &[16]);
    c.add("model.rotary_emb_local.inv_freq".into(), &[16]);
    c.tensor("model.rotary_emb_local.inv_freq").dtype = Dtype::I64;
    converted(&c, DType::Q4_0);
}

#[test]
fn uneven_layers_are_listed() {
    let mut c = Checkpoint::gemma3();
    c.config["layer_types"] = json!(["full_attention", "sliding_attention"]);
    let (_dir, out, _) = converted(&c, DType::Q4_0);
    let file = std::fs::read(out).unwrap();
    let g = Gguf::parse(&file).unwrap();
    let list = g.array("gemma3.attention.sliding_window_pattern").unwrap().unwrap();
    let list: Vec<_> = list.iter().map(|v| v.as_bool().unwrap()).collect();
    assert_eq!(list, [false, true]);
}
