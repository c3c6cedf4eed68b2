//! Every dialect of config.json, and what is refused.

use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn read(value: Value) -> Result<ModelConfig, ConvertError> {
    let object = Object::parse(Path::new("config.json"), value.to_string().as_bytes())?;
    ModelConfig::read(&object)
}

fn every(pattern: u32, layers: u32) -> Vec<bool> {
    (1..=layers).map(|n| n % pattern != 0).collect()
}

#[test]
fn gemma_3_1b_as_published() {
    let c = read(json!({
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text",
        "attention_bias": false, "attn_logit_softcapping": null, "final_logit_softcapping": null,
        "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
        "intermediate_size": 6912, "max_position_embeddings": 32768, "num_attention_heads": 4,
        "num_hidden_layers": 26, "num_key_value_heads": 1, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": null,
        "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
        "vocab_size": 262144
    }))
    .unwrap();
    assert_eq!(
        c.text,
        TextConfig {
            arch: Arch::Gemma3,
            hidden: 1152,
            ffn: 6912,
            layers: 26,
            heads: 4,
            kv_heads: 1,
            head_dim: 256,
            vocab: 262_144,
            context: 32768,
            rms_eps: 1e-6,
            query_scalar: 256.0,
            window: Some(512),
            sliding: every(6, 26),
            rope_base: 1e6,
            rope_base_sliding: 1e4,
            rope_factor: 1.0,
            attn_softcap: None,
            final_softcap: None,
        }
    );
    assert_eq!(c.vision, None);
}

#[test]
fn multimodal_leaves_defaults_out() {
    let c = read(json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "mm_tokens_per_image": 256,
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024
        },
        "vision_config": {
            "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304,
            "model_type": "siglip_vision_model", "num_attention_heads": 16,
            "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": false
        }
    }))
    .unwrap();
    let t = &c.text;
    assert_eq!((t.heads, t.kv_heads, t.head_dim, t.vocab), (8, 4, 256, 262_208));
    assert_eq!((t.context, t.rms_eps, t.query_scalar), (131_072, 1e-6, 256.0));
    assert_eq!((t.rope_base, t.rope_base_sliding, t.rope_factor), (1e6, 1e4, 8.0));
    assert_eq!(t.sliding, every(6, 34));
    assert_eq!(c.dim(Dim::Positions), 4096);
    assert_eq!(c.dim(Dim::Query), 2048);
}

#[test]
fn transformers_5_dialect() {
    let types: Vec<_> =
        (1..=12).map(|n| if n % 6 == 0 { "full_attention" } else { "sliding_attention" }).collect();
    let c = read(json!({
        "model_type": "gemma3_text", "num_hidden_layers": 12, "layer_types": types,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0}
        }
    }))
    .unwrap();
    let t = c.text;
    assert_eq!(t.sliding, every(6, 12));
    assert_eq!((t.rope_base, t.rope_base_sliding, t.rope_factor), (2e6, 2e4, 8.0));
}

#[test]
fn gemma_2_defaults_and_flat_rope_parameters() {
    let c = read(json!({
        "architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}
    }))
    .unwrap();
    let t = c.text;
    assert_eq!((t.attn_softcap, t.final_softcap), (Some(50.0), Some(30.0)));
    assert_eq!((t.rope_base, t.rope_base_sliding), (1e4, 1e4));
    assert_eq!(t.sliding, [true, false, true, false]);
}

#[test]
fn a_pattern_of_one_slides_nowhere() {
    let c = read(json!({"model_type": "gemma3_text", "sliding_window_pattern": 1})).unwrap();
    assert_eq!(c.text.window, None);
}

#[test]
fn refuses_what_it_cannot_honour() {
    let refused = |extra: Value| {
        let mut config = json!({"model_type": "gemma3_text"});
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        read(config).unwrap_err()
    };
    let e = refused(json!({"model_type": "llama"}));
    assert!(matches!(e, ConvertError::Architecture { found, .. } if found == "llama"));
    let e = refused(json!({"architectures": ["Gemma3TextModel"]}));
    assert!(matches!(e, ConvertError::Architecture { .. }));
    for bad in [
        json!({"hidden_size": 0}),
        json!({"hidden_size": -1}),
        json!({"hidden_size": 1e30}),
        json!({"hidden_size": "wide"}),
        json!({"hidden_size": 18446744073709551615u64}),
        json!({"num_hidden_layers": 4000000000u64}),
        json!({"num_attention_heads": 4, "num_key_value_heads": 3}),
        json!({"head_dim": 255}),
        json!({"rms_norm_eps": 0}),
        json!({"rope_theta": -1}),
        json!({"rope_scaling": {"rope_type": "yarn", "factor": 4}}),
        json!({"rope_scaling": {"type": "linear", "factor": 0}}),
        json!({"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2}}}),
        json!({"layer_types": ["full_attention"]}),
        json!({"hidden_activation": "relu"}),
        json!({"attention_bias": true}),
        json!({"use_bidirectional_attention": true}),
        json!({"attn_logit_softcapping": 50.0}),
        json!({"model_type": "gemma2", "attn_logit_softcapping": null}),
        json!({"vision_config": {"patch_size": 13}}),
        json!({"vision_config": {"num_attention_heads": 7}}),
        json!({"vision_config": {}, "mm_tokens_per_image": 255}),
    ] {
        let e = refused(bad.clone());
        assert!(matches!(e, ConvertError::ConfigValue { .. }), "{bad}: {e}");
    }
}
