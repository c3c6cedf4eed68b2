//! The keys of the files that are written, as llama.cpp's loader expects them.

use quant::DType;
use quant::gguf::MetaValue;

use crate::config::{Arch, ModelConfig, TextConfig, VisionConfig};
use crate::sidecar::{ChatTemplates, ImageNorm, Sampling, SpecialIds};
use crate::tokenizer::Vocab;

/// Keys and values in file order.
pub type Metadata = Vec<(String, MetaValue)>;

/// Version of ggml's block formats.
pub(crate) const QUANTIZATION_VERSION: u32 = 2;
/// Pooling of patches per side that llama.cpp assumes unless told.
const DEFAULT_POOL: u32 = 4;

/// Everything of a checkpoint that goes into the text model's keys.
pub(crate) struct TextFacts<'a> {
    pub name: &'a str,
    pub weights: u64,
    pub config: &'a TextConfig,
    pub vocab: Vocab,
    pub special: &'a SpecialIds,
    pub chat: &'a ChatTemplates,
    pub sampling: Sampling,
}

/// `general.file_type`: ggml's number for "mostly this type".
pub(crate) fn file_type(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q8_0 => 7,
        DType::BF16 => 32,
        // Not written; `Options` refuses them before this is asked.
        _ => 1024,
    }
}

fn push(out: &mut Metadata, key: impl Into<String>, value: MetaValue) {
    out.push((key.into(), value));
}

fn general(arch: &str, kind: &str, name: &str, weights: u64, dtype: DType) -> Metadata {
    let mut out = Metadata::new();
    push(&mut out, "general.architecture", MetaValue::String(arch.into()));
    push(&mut out, "general.type", MetaValue::String(kind.into()));
    push(&mut out, "general.name", MetaValue::String(name.into()));
    push(&mut out, "general.size_label", MetaValue::String(size_label(weights)));
    push(&mut out, "general.file_type", MetaValue::U32(file_type(dtype)));
    push(&mut out, "general.quantization_version", MetaValue::U32(QUANTIZATION_VERSION));
    out
}

/// `"1.0B"`, `"268M"`: the number of weights with two digits at least.
pub(crate) fn size_label(weights: u64) -> String {
    let (scale, suffix) = match weights {
        n if n > 1_000_000_000_000 => (1e12, "T"),
        n if n > 1_000_000_000 => (1e9, "B"),
        n if n > 1_000_000 => (1e6, "M"),
        _ => (1e3, "K"),
    };
    let scaled = weights as f64 / scale;
    let digits = if scaled.round() < 10.0 { 1 } else { 0 };
    format!("{scaled:.digits$}{suffix}")
}

/// Keys of the text model.
pub(crate) fn text(facts: TextFacts<'_>, dtype: DType) -> Metadata {
    let mut out = general(facts.config.arch.name(), "model", facts.name, facts.weights, dtype);
    sampling(&mut out, facts.sampling);
    hyperparameters(&mut out, facts.config);
    tokenizer(&mut out, facts.vocab, facts.special, facts.chat);
    out
}

fn sampling(out: &mut Metadata, s: Sampling) {
    if let Some(k) = s.top_k {
        push(out, "general.sampling.top_k", MetaValue::I32(k as i32)); // bounded when read
    }
    for (name, value) in [
        ("top_p", s.top_p),
        ("min_p", s.min_p),
        ("penalty_repeat", s.repeat_penalty),
        ("temp", s.temperature),
    ] {
        if let Some(value) = value {
            push(out, format!("general.sampling.{name}"), MetaValue::F32(value));
        }
    }
    if s.repeat_penalty.is_some() {
        // Transformers looks at all tokens.
        push(out, "general.sampling.penalty_last_n", MetaValue::I32(-1));
    }
}

fn hyperparameters(out: &mut Metadata, t: &TextConfig) {
    use MetaValue::{F32, U32};
    let mut key = |name: &str, value| push(out, format!("{}.{name}", t.arch.name()), value);
    key("context_length", U32(t.context));
    key("embedding_length", U32(t.hidden));
    key("block_count", U32(t.layers));
    key("feed_forward_length", U32(t.ffn));
    key("attention.head_count", U32(t.heads));
    key("attention.head_count_kv", U32(t.kv_heads));
    key("attention.key_length", U32(t.head_dim));
    key("attention.value_length", U32(t.head_dim));
    key("attention.layer_norm_rms_epsilon", F32(t.rms_eps));
    // Stated always: where it is not, readers go by the number of layers (62 are a 27B's).
    key("attention.scale", F32((1.0 / t.query_scalar.sqrt()) as f32));
    if let Some(window) = t.window {
        key("attention.sliding_window", U32(window));
        // A single number where every nth layer is global, which includes the family's own
        // pattern; else a list.
        key(
            "attention.sliding_window_pattern",
            match pattern(&t.sliding, t.arch.default_pattern()) {
                Some(n) => U32(n),
                None => MetaValue::Bools(t.sliding.clone()),
            },
        );
    }
    key("rope.freq_base", F32(t.rope_base));
    if t.arch == Arch::Gemma3 && t.window.is_some() {
        key("rope.freq_base_swa", F32(t.rope_base_sliding));
    }
    if t.rope_factor != 1.0 {
        key("rope.scaling.type", MetaValue::String("linear".into()));
        key("rope.scaling.factor", F32(t.rope_factor));
    }
    if let Some(cap) = t.attn_softcap {
        key("attn_logit_softcapping", F32(cap));
    }
    if let Some(cap) = t.final_softcap {
        key("final_logit_softcapping", F32(cap));
    }
}

/// The `n` for which every `n`th layer, and no other, does not slide: `usual` if that fits.
fn pattern(sliding: &[bool], usual: u32) -> Option<u32> {
    let fits = |n: u32| (1..).zip(sliding).all(|(layer, &s)| s != u32::is_multiple_of(layer, n));
    let first = sliding.iter().position(|s| !s).map_or(sliding.len(), |i| i) as u32 + 1;
    [usual, first].into_iter().find(|&n| fits(n))
}

fn tokenizer(out: &mut Metadata, vocab: Vocab, ids: &SpecialIds, chat: &ChatTemplates) {
    let mut key = |name: &str, value| push(out, format!("tokenizer.{name}"), value);
    key("ggml.model", MetaValue::String("llama".into()));
    key("ggml.pre", MetaValue::String("default".into()));
    key("ggml.tokens", MetaValue::Strings(vocab.tokens));
    key("ggml.scores", MetaValue::F32s(vocab.scores));
    key("ggml.token_type", MetaValue::I32s(vocab.types.iter().map(|&t| t as i32).collect()));
    for (name, id) in [
        ("ggml.bos_token_id", ids.bos),
        ("ggml.eos_token_id", ids.eos.first().copied()),
        ("ggml.eot_token_id", ids.eot),
        ("ggml.unknown_token_id", ids.unknown),
        ("ggml.padding_token_id", ids.padding),
        ("ggml.mask_token_id", ids.mask),
    ] {
        if let Some(id) = id {
            key(name, MetaValue::U32(id));
        }
    }
    if ids.eos.iter().skip(1).any(|id| Some(*id) != ids.eot) {
        // llama.cpp has no key for a third end; readers that know this one need not guess.
        key("ggml.eos_token_ids", MetaValue::U32s(ids.eos.clone()));
    }
    key("ggml.add_bos_token", MetaValue::Bool(ids.add_bos));
    key("ggml.add_eos_token", MetaValue::Bool(ids.add_eos));
    key("ggml.add_space_prefix", MetaValue::Bool(false));
    if !chat.named.is_empty() {
        let names = chat.named.iter().map(|(name, _)| name.clone()).collect();
        key("chat_templates", MetaValue::Strings(names));
    }
    for (name, template) in &chat.named {
        key(&format!("chat_template.{name}"), MetaValue::String(template.clone()));
    }
    if let Some(template) = &chat.default {
        key("chat_template", MetaValue::String(template.clone()));
    }
}

/// Keys of the vision file.
pub(crate) fn vision(
    name: &str,
    weights: u64,
    model: &ModelConfig,
    v: &VisionConfig,
    norm: ImageNorm,
    dtype: DType,
) -> Metadata {
    use MetaValue::{Bool, F32, F32s, U32};
    let mut out = general("clip", "mmproj", name, weights, dtype);
    let mut key = |name: &str, value| push(&mut out, format!("clip.{name}"), value);
    key("has_vision_encoder", Bool(true));
    key("projector_type", MetaValue::String("gemma3".into()));
    key("use_gelu", Bool(true));
    key("vision.image_size", U32(v.image_size));
    key("vision.patch_size", U32(v.patch_size));
    key("vision.embedding_length", U32(v.hidden));
    key("vision.feed_forward_length", U32(v.ffn));
    key("vision.block_count", U32(v.layers));
    key("vision.projection_dim", U32(model.text.hidden));
    key("vision.attention.head_count", U32(v.heads));
    key("vision.attention.layer_norm_epsilon", F32(v.layer_norm_eps));
    key("vision.image_mean", F32s(norm.mean));
    key("vision.image_std", F32s(norm.std));
    let pool = v.image_size / v.patch_size / v.tokens.isqrt();
    if pool != DEFAULT_POOL {
        key("vision.projector.scale_factor", U32(pool));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_two_digits() {
        assert_eq!(size_label(999_885_952), "1000M");
        assert_eq!(size_label(1_099_885_952), "1.1B");
        assert_eq!(size_label(268_098_176), "268M");
        assert_eq!(size_label(27_009_346_304), "27B");
        assert_eq!(size_label(4_200), "4.2K");
    }

    #[test]
    fn patterns_are_found_where_there_is_one() {
        let every =
            |n: usize, layers: usize| -> Vec<bool> { (1..=layers).map(|l| l % n != 0).collect() };
        for n in 1..8 {
            assert_eq!(pattern(&every(n, 24), 6), Some(n as u32));
        }
        assert_eq!(pattern(&[true, true, false, false], 6), None);
        assert_eq!(pattern(&[true, true], 6), Some(6), "too short to tell");
        assert_eq!(pattern(&[true, true], 2), Some(3));
    }
}
