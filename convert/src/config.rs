//! config.json, in every dialect it has been published in, to one description of the model.
//!
//! Multimodal files nest `text_config` and leave out whatever is at its Transformers default;
//! Transformers 5 writes `layer_types` and `rope_parameters` where 4 wrote
//! `sliding_window_pattern`, `rope_theta`, `rope_local_base_freq` and `rope_scaling`.

use serde_json::Value;

use crate::ConvertError;
use crate::json::Object;
use crate::tensors::Dim;

/// A family whose tensors and hyperparameters GGUF has one name for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Gemma 2.
    Gemma2,
    /// Gemma 3, text only or with vision.
    Gemma3,
}

impl Arch {
    /// `general.architecture`, which prefixes the hyperparameter keys as well.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Gemma2 => "gemma2",
            Arch::Gemma3 => "gemma3",
        }
    }

    /// The family of this `general.architecture`.
    pub fn from_name(name: &str) -> Option<Arch> {
        [Arch::Gemma2, Arch::Gemma3].into_iter().find(|a| a.name() == name)
    }

    /// One layer in so many attends to everything, the others to a window.
    pub(crate) fn default_pattern(self) -> u32 {
        match self {
            Arch::Gemma2 => 2,
            Arch::Gemma3 => 6,
        }
    }
}

/// The text model.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Family.
    pub arch: Arch,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the MLP.
    pub ffn: u32,
    /// Number of layers.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Key-value heads.
    pub kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Rows of the embedding.
    pub vocab: u32,
    /// Positions the model was trained for.
    pub context: u32,
    /// Epsilon of the RMS norms.
    pub rms_eps: f32,
    /// Queries are scaled by `1 / sqrt` of this.
    pub query_scalar: f64,
    /// Window of the sliding layers in tokens; `None` when no layer slides.
    pub window: Option<u32>,
    /// Which layers slide, one a layer.
    pub sliding: Vec<bool>,
    /// RoPE base of the global layers.
    pub rope_base: f32,
    /// RoPE base of the sliding layers.
    pub rope_base_sliding: f32,
    /// Positions of the global layers are divided by this (1: as they are).
    pub rope_factor: f32,
    /// Attention logits are capped at this.
    pub attn_softcap: Option<f32>,
    /// Output logits are capped at this.
    pub final_softcap: Option<f32>,
}

impl TextConfig {
    /// What llama.cpp takes for [`TextConfig::query_scalar`], by the number of layers: it reads no key for that.
    pub(crate) fn llama_cpp_query_scalar(&self) -> u32 {
        match (self.arch, self.layers) {
            (Arch::Gemma3, 62) | (Arch::Gemma2, 46) => self.hidden / self.heads,
            _ => self.head_dim,
        }
    }
}

/// The vision tower (SigLIP) and the projector.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Width.
    pub hidden: u32,
    /// Width of the MLP.
    pub ffn: u32,
    /// Number of layers.
    pub layers: u32,
    /// Attention heads.
    pub heads: u32,
    /// Side of the square image in pixels.
    pub image_size: u32,
    /// Side of a patch in pixels.
    pub patch_size: u32,
    /// Colour channels.
    pub channels: u32,
    /// Epsilon of the LayerNorms.
    pub layer_norm_eps: f32,
    /// Tokens an image becomes.
    pub tokens: u32,
}

/// What config.json says of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The text model.
    pub text: TextConfig,
    /// The vision tower of a multimodal model.
    pub vision: Option<VisionConfig>,
    /// Is the head said to be another matrix than the embedding?
    pub untied: bool,
}

/// Bounds that no published model comes near; within them no product of dimensions overflows.
const MAX_WIDTH: u32 = 1 << 18;
const MAX_LAYERS: u32 = 1 << 10;
const MAX_VOCAB: u32 = 1 << 22;
const MAX_CONTEXT: u32 = 1 << 30;

impl ModelConfig {
    /// Reads a parsed config.json.
    ///
    /// # Errors
    /// [`ConvertError::Architecture`] for a model that is not Gemma 2 or 3, and
    /// [`ConvertError::ConfigValue`] for what cannot be or cannot be expressed in GGUF.
    pub(crate) fn read(config: &Object) -> Result<Self, ConvertError> {
        let arch = architecture(config)?;
        let mut text = config.clone();
        if let Some(nested) = config.object("text_config") {
            text.map.extend(nested.map);
        }
        let vision = config.object("vision_config").map(|v| vision(config, &v)).transpose()?;
        let untied = text.get("tie_word_embeddings").and_then(Value::as_bool) == Some(false);
        Ok(ModelConfig { text: text_config(arch, &text)?, vision, untied })
    }

    /// The size of a dimension. Vision dimensions of a text model are 0.
    pub(crate) fn dim(&self, dim: Dim) -> u64 {
        let t = &self.text;
        let v = |f: fn(&VisionConfig) -> u32| self.vision.as_ref().map_or(0, |v| u64::from(f(v)));
        match dim {
            Dim::Vocab => t.vocab.into(),
            Dim::Hidden => t.hidden.into(),
            Dim::Ffn => t.ffn.into(),
            Dim::Query => u64::from(t.heads) * u64::from(t.head_dim),
            Dim::KeyValue => u64::from(t.kv_heads) * u64::from(t.head_dim),
            Dim::Head => t.head_dim.into(),
            Dim::VisionHidden => v(|v| v.hidden),
            Dim::VisionFfn => v(|v| v.ffn),
            Dim::Positions => v(|v| (v.image_size / v.patch_size).pow(2)),
            Dim::Channels => v(|v| v.channels),
            Dim::Patch => v(|v| v.patch_size),
        }
    }
}

fn architecture(config: &Object) -> Result<Arch, ConvertError> {
    let named = config
        .get("architectures")
        .and_then(|a| a.get(0))
        .and_then(Value::as_str)
        .or(config.str("model_type"))
        .unwrap_or("");
    match named {
        "Gemma2ForCausalLM" | "gemma2" => Ok(Arch::Gemma2),
        "Gemma3ForCausalLM" | "Gemma3ForConditionalGeneration" | "gemma3" | "gemma3_text" => {
            Ok(Arch::Gemma3)
        }
        found => Err(ConvertError::Architecture { path: config.path.clone(), found: found.into() }),
    }
}

/// Transformers' defaults for what a file leaves out.
struct Defaults {
    vocab: u32,
    context: u32,
    rope_theta: f64,
    attn_softcap: Option<f64>,
    final_softcap: Option<f64>,
}

fn text_config(arch: Arch, c: &Object) -> Result<TextConfig, ConvertError> {
    let d = match arch {
        Arch::Gemma2 => Defaults {
            vocab: 256_000,
            context: 8192,
            rope_theta: 1e4,
            attn_softcap: Some(50.0),
            final_softcap: Some(30.0),
        },
        Arch::Gemma3 => Defaults {
            vocab: 262_208,
            context: 131_072,
            rope_theta: 1e6,
            attn_softcap: None,
            final_softcap: None,
        },
    };
    only(c, "hidden_activation", "gelu_pytorch_tanh")?;
    for (key, expected) in [
        ("attention_bias", "no Gemma that GGUF can hold has it"),
        (
            "use_bidirectional_attention",
            "embedding models (EmbeddingGemma), which have it, are not supported",
        ),
    ] {
        if let Some(v) = c.get(key).filter(|v| v.as_bool() != Some(false)) {
            return Err(c.wrong(key, v, expected));
        }
    }
    let layers = c.count("num_hidden_layers", 26, MAX_LAYERS)?;
    let heads = c.count("num_attention_heads", 8, 1 << 10)?;
    let kv_heads = c.count("num_key_value_heads", 4, 1 << 10)?;
    if !heads.is_multiple_of(kv_heads) {
        let value = Value::from(kv_heads);
        return Err(c.wrong(
            "num_key_value_heads",
            &value,
            format!("it must divide {heads} heads"),
        ));
    }
    let head_dim = c.count("head_dim", 256, 1 << 13)?;
    if !head_dim.is_multiple_of(2) {
        return Err(c.wrong("head_dim", &head_dim.into(), "RoPE needs an even number"));
    }
    let sliding = sliding_layers(arch, c, layers)?;
    let window = c.count("sliding_window", 4096, MAX_CONTEXT)?;
    let rope = Rope::read(c, d.rope_theta, arch)?;
    let softcap = |key: &str, default: Option<f64>| -> Result<Option<f32>, ConvertError> {
        let given = c.positive(key)?;
        // An explicit null switches a cap off; an absent key leaves it at the default.
        let value = if c.map.contains_key(key) { given } else { default };
        match (arch, value) {
            (Arch::Gemma2, None) => Err(c.wrong(key, &Value::Null, "GGUF has no Gemma 2 without")),
            (_, value) => Ok(value.map(|v| v as f32)),
        }
    };
    let attn_softcap = softcap("attn_logit_softcapping", d.attn_softcap)?;
    if let (Arch::Gemma3, Some(cap)) = (arch, attn_softcap) {
        return Err(c.wrong("attn_logit_softcapping", &cap.into(), "GGUF has no Gemma 3 with it"));
    }
    Ok(TextConfig {
        arch,
        hidden: c.count("hidden_size", 2304, MAX_WIDTH)?,
        ffn: c.count("intermediate_size", 9216, MAX_WIDTH)?,
        layers,
        heads,
        kv_heads,
        head_dim,
        vocab: c.count("vocab_size", d.vocab, MAX_VOCAB)?,
        context: c.count("max_position_embeddings", d.context, MAX_CONTEXT)?,
        rms_eps: c.positive("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        query_scalar: c.positive("query_pre_attn_scalar")?.unwrap_or(256.0),
        window: sliding.contains(&true).then_some(window),
        sliding,
        rope_base: rope.base as f32,
        rope_base_sliding: rope.base_sliding as f32,
        rope_factor: rope.factor as f32,
        attn_softcap,
        final_softcap: softcap("final_logit_softcapping", d.final_softcap)?,
    })
}

/// Fails when `key` is there and is not `value`.
fn only(c: &Object, key: &str, value: &str) -> Result<(), ConvertError> {
    match c.get(key) {
        Some(v) if v.as_str() != Some(value) => {
            Err(c.wrong(key, v, format!("only {value:?} is supported")))
        }
        _ => Ok(()),
    }
}

/// Which layers slide: as `layer_types` lists, or all but every `sliding_window_pattern`th.
fn sliding_layers(arch: Arch, c: &Object, layers: u32) -> Result<Vec<bool>, ConvertError> {
    if let Some(types) = c.get("layer_types") {
        let listed: Option<Vec<bool>> = types.as_array().and_then(|list| {
            list.iter()
                .map(|t| match t.as_str() {
                    Some("sliding_attention") => Some(true),
                    Some("full_attention") => Some(false),
                    _ => None,
                })
                .collect()
        });
        return match listed {
            Some(list) if list.len() == layers as usize => Ok(list),
            _ => Err(c.wrong(
                "layer_types",
                types,
                format!("{layers} times \"sliding_attention\" or \"full_attention\" is needed"),
            )),
        };
    }
    let pattern = c.count("_sliding_window_pattern", arch.default_pattern(), MAX_LAYERS)?;
    let pattern = c.count("sliding_window_pattern", pattern, MAX_LAYERS)?;
    Ok((1..=layers).map(|n| !n.is_multiple_of(pattern)).collect())
}

/// The rotary embedding of both kinds of layer.
struct Rope {
    base: f64,
    base_sliding: f64,
    factor: f64,
}

impl Rope {
    fn read(c: &Object, default_base: f64, arch: Arch) -> Result<Rope, ConvertError> {
        let mut rope = Rope {
            base: c.positive("rope_theta")?.unwrap_or(default_base),
            base_sliding: c.positive("rope_local_base_freq")?.unwrap_or(1e4),
            factor: 1.0,
        };
        // Transformers 5 keeps one set for each kind of layer, or a single flat one; 4 has the
        // scaling of the global layers alone.
        let both = c.object("rope_parameters").or(c.object("rope_scaling"));
        if let Some(both) = both {
            let global = both.object("full_attention").unwrap_or_else(|| both.clone());
            rope.base = global.positive("rope_theta")?.unwrap_or(rope.base);
            rope.factor = linear_factor(&global)?;
            if let Some(sliding) = both.object("sliding_attention") {
                rope.base_sliding = sliding.positive("rope_theta")?.unwrap_or(rope.base_sliding);
                let factor = linear_factor(&sliding)?;
                if factor != 1.0 {
                    let expected = "GGUF scales the global layers only";
                    return Err(sliding.wrong(
                        "sliding_attention.factor",
                        &factor.into(),
                        expected,
                    ));
                }
            }
        }
        if arch == Arch::Gemma2 {
            rope.base_sliding = rope.base;
        }
        Ok(rope)
    }
}

fn linear_factor(c: &Object) -> Result<f64, ConvertError> {
    let (key, kind) = match (c.str("rope_type"), c.str("type")) {
        (Some(kind), _) => ("rope_type", kind),
        (None, Some(kind)) => ("type", kind),
        (None, None) => return Ok(1.0),
    };
    match kind {
        "default" => Ok(1.0),
        "linear" => Ok(c.positive("factor")?.unwrap_or(1.0)),
        other => Err(c.wrong(key, &other.into(), "\"default\" and \"linear\" are supported")),
    }
}

fn vision(config: &Object, v: &Object) -> Result<VisionConfig, ConvertError> {
    only(v, "hidden_act", "gelu_pytorch_tanh")?;
    let vision = VisionConfig {
        hidden: v.count("hidden_size", 768, MAX_WIDTH)?,
        ffn: v.count("intermediate_size", 3072, MAX_WIDTH)?,
        layers: v.count("num_hidden_layers", 12, MAX_LAYERS)?,
        heads: v.count("num_attention_heads", 12, 1 << 10)?,
        image_size: v.count("image_size", 224, 1 << 14)?,
        patch_size: v.count("patch_size", 16, 1 << 10)?,
        channels: v.count("num_channels", 3, 16)?,
        layer_norm_eps: v.positive("layer_norm_eps")?.unwrap_or(1e-6) as f32,
        tokens: config.count("mm_tokens_per_image", 256, 1 << 20)?,
    };
    if !vision.image_size.is_multiple_of(vision.patch_size) {
        let expected = format!("an image side of {} must be whole patches", vision.image_size);
        return Err(v.wrong("patch_size", &vision.patch_size.into(), expected));
    }
    if !vision.hidden.is_multiple_of(vision.heads) {
        let expected = format!("it must divide the width, {}", vision.hidden);
        return Err(v.wrong("num_attention_heads", &vision.heads.into(), expected));
    }
    let (side, out) = (vision.image_size / vision.patch_size, vision.tokens.isqrt());
    if out * out != vision.tokens || !side.is_multiple_of(out) {
        let expected = format!("a square that pools {side}×{side} patches evenly is needed");
        return Err(config.wrong("mm_tokens_per_image", &vision.tokens.into(), expected));
    }
    Ok(vision)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
