//! The architecture as data: what a GGUF file says about a Gemma model, per layer.
//!
//! `forward` has no `if model ==`: Gemma 2, Gemma 3 text and the text half of a multimodal Gemma 3
//! differ in the values here and nowhere else.

use quant::gguf::Gguf;

use crate::error::ModelError;

/// The architectures that are understood, by their `general.architecture`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Gemma 2: softcaps, no q/k norm, every second layer global.
    Gemma2,
    /// Gemma 3: q/k norm, every sixth layer global, two RoPE bases.
    Gemma3,
}

impl Arch {
    /// Its `general.architecture`, which also prefixes its keys.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Gemma2 => "gemma2",
            Arch::Gemma3 => "gemma3",
        }
    }
}

/// Rotary position embedding of one layer: angle of pair `i` at position `p` is
/// `p · scale · base^(-2i / head_dim)` (Su et al. 2021; linear scaling divides positions).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// θ, 1e4 or 1e6.
    pub base: f32,
    /// 1, or 1/8 in the global layers of Gemma 3 from 4B up.
    pub scale: f32,
}

impl Rope {
    /// Cosines and sines of the angles at a position: `out` is `[2, head_dim / 2]`.
    pub fn angles(&self, pos: usize, out: &mut [f32]) {
        let head_dim = out.len();
        let (cos, sin) = out.split_at_mut(head_dim / 2);
        for (i, (cos, sin)) in cos.iter_mut().zip(sin).enumerate() {
            (*sin, *cos) = (pos as f32 * self.frequency(i, head_dim)).sin_cos();
        }
    }

    /// The angle of pair `i` at position 1.
    fn frequency(&self, i: usize, head_dim: usize) -> f32 {
        (1.0 / self.base.powf((2 * i) as f32 / head_dim as f32)) * self.scale
    }

    /// The angles of all pairs at position 1, for [`angles_at`].
    #[cfg(feature = "gpu")]
    pub(crate) fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2).map(|i| self.frequency(i, head_dim)).collect()
    }
}

/// As [`Rope::angles`], from its frequencies.
#[cfg(feature = "gpu")]
pub(crate) fn angles_at(frequencies: &[f32], pos: usize, out: &mut [f32]) {
    let (cos, sin) = out.split_at_mut(frequencies.len());
    for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(frequencies) {
        (*sin, *cos) = (pos as f32 * frequency).sin_cos();
    }
}

/// What differs from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerConfig {
    /// `Some(w)`: a token attends to itself and the `w - 1` tokens before it. `None`: to all.
    pub window: Option<usize>,
    /// This layer's RoPE.
    pub rope: Rope,
}

/// Shapes and constants of a Gemma text model.
#[derive(Clone, Debug, PartialEq)]
pub struct GemmaConfig {
    /// Which Gemma.
    pub arch: Arch,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP's inner layer.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Features of one head.
    pub head_dim: usize,
    /// Positions the model was trained for.
    pub context_length: usize,
    /// RMSNorm ε.
    pub rms_eps: f32,
    /// Embeddings are multiplied by this: √hidden, rounded to bf16 as in training.
    pub embed_scale: f32,
    /// Queries are multiplied by this.
    pub query_scale: f32,
    /// Attention logits become `c · tanh(x / c)`.
    pub attn_softcap: Option<f32>,
    /// Final logits become `c · tanh(x / c)`.
    pub final_softcap: Option<f32>,
    /// Are queries and keys RMS-normed per head?
    pub qk_norm: bool,
    /// One entry a layer.
    pub layers: Vec<LayerConfig>,
}

impl GemmaConfig {
    /// Features of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Features of all key (or value) heads together.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The different RoPEs of the layers.
    pub fn ropes(&self) -> Vec<Rope> {
        let mut ropes: Vec<Rope> = Vec::new();
        for layer in &self.layers {
            if !ropes.contains(&layer.rope) {
                ropes.push(layer.rope);
            }
        }
        ropes
    }

    /// Reads the configuration from a file's metadata.
    ///
    /// # Errors
    /// [`ModelError`] for a missing key or a value no Gemma can have.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, ModelError> {
        let arch = match gguf.str("general.architecture")? {
            Some("gemma3") => Arch::Gemma3,
            Some("gemma2") => Arch::Gemma2,
            other => {
                return Err(ModelError::Architecture {
                    found: other.unwrap_or("not stated").into(),
                });
            }
        };
        let keys = Keys { gguf, prefix: arch.name() };
        let hidden = keys.size("embedding_length")?;
        let n_layers = keys.size("block_count")?;
        // Every layer has tensors in the file: a larger number can't be meant.
        if n_layers > gguf.tensors().len() {
            return Err(keys.bad("block_count", n_layers, "more layers than tensors in the file"));
        }
        let heads = keys.size("attention.head_count")?;
        let kv_heads = keys.size("attention.head_count_kv")?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(keys.bad(
                "attention.head_count_kv",
                kv_heads,
                "must divide the head count",
            ));
        }
        let head_dim = keys.size_or("attention.key_length", 256)?;
        if !head_dim.is_multiple_of(2) {
            return Err(keys.bad("attention.key_length", head_dim, "must be even for RoPE"));
        }
        let value_dim = keys.size_or("attention.value_length", head_dim)?;
        if value_dim != head_dim {
            return Err(keys.bad("attention.value_length", value_dim, "must equal key_length"));
        }

        let window = keys.size_or("attention.sliding_window", 4096)?;
        let base_default = if arch == Arch::Gemma3 { 1e6 } else { 1e4 };
        let base = keys.positive("rope.freq_base")?.unwrap_or(base_default);
        let base_swa = keys.positive("rope.freq_base_swa")?.unwrap_or(1e4);
        let scale = 1.0 / keys.rope_factor()?;
        let global = LayerConfig { window: None, rope: Rope { base, scale } };
        // Only global layers are scaled: a window never sees far positions.
        let local_base = if arch == Arch::Gemma3 { base_swa } else { base };
        let sliding =
            LayerConfig { window: Some(window), rope: Rope { base: local_base, scale: 1.0 } };
        let layers = keys
            .sliding_layers(n_layers, arch)?
            .into_iter()
            .map(|is_sliding| if is_sliding { sliding } else { global })
            .collect();

        Ok(GemmaConfig {
            arch,
            hidden,
            ffn: keys.size("feed_forward_length")?,
            heads,
            kv_heads,
            head_dim,
            context_length: keys.size_or("context_length", 8192)?,
            rms_eps: keys.positive("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-6),
            embed_scale: half::bf16::from_f32((hidden as f32).sqrt()).to_f32(),
            query_scale: keys.query_scale(arch, hidden, n_layers, heads, head_dim)?,
            attn_softcap: keys.positive("attn_logit_softcapping")?,
            final_softcap: keys.positive("final_logit_softcapping")?,
            qk_norm: arch == Arch::Gemma3,
            layers,
        })
    }
}

/// The keys under a prefix.
pub(crate) struct Keys<'g> {
    pub(crate) gguf: &'g Gguf<'g>,
    pub(crate) prefix: &'static str,
}

impl Keys<'_> {
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    pub(crate) fn bad(&self, name: &str, value: impl ToString, why: &'static str) -> ModelError {
        ModelError::Config { key: self.key(name), value: value.to_string(), why }
    }

    /// A size: at least 1, and small enough that no product of a few of them overflows.
    pub(crate) fn size(&self, name: &str) -> Result<usize, ModelError> {
        let key = self.key(name);
        match self.gguf.u64(&key)? {
            Some(v @ 1..=0xff_ffff) => Ok(v as usize),
            Some(v) => Err(self.bad(name, v, "must be between 1 and 16777215")),
            None => Err(quant::gguf::GgufError::MissingKey { key }.into()),
        }
    }

    pub(crate) fn size_or(&self, name: &str, default: usize) -> Result<usize, ModelError> {
        if self.gguf.get(&self.key(name)).is_some() { self.size(name) } else { Ok(default) }
    }

    pub(crate) fn positive(&self, name: &str) -> Result<Option<f32>, ModelError> {
        match self.gguf.f32(&self.key(name))? {
            Some(v) if v > 0.0 && v.is_finite() => Ok(Some(v)),
            Some(v) => Err(self.bad(name, v, "must be a positive number")),
            None => Ok(None),
        }
    }

    fn rope_factor(&self) -> Result<f32, ModelError> {
        match self.gguf.str(&self.key("rope.scaling.type"))? {
            None | Some("none") => Ok(1.0),
            Some("linear") => Ok(self.positive("rope.scaling.factor")?.unwrap_or(1.0)),
            Some(other) => Err(self.bad("rope.scaling.type", other, "only linear is known")),
        }
    }

    /// Which layers slide. The pattern is a key in newer files (a period or a list of bools) and
    /// understood from the architecture in older ones: every 6th layer global, every 2nd in Gemma 2.
    fn sliding_layers(&self, n: usize, arch: Arch) -> Result<Vec<bool>, ModelError> {
        let name = "attention.sliding_window_pattern";
        let period = match self.gguf.get(&self.key(name)) {
            None if arch == Arch::Gemma2 => 2,
            None => 6,
            Some(v) => match v.as_array() {
                Some(a) => {
                    let list: Option<Vec<bool>> = a.iter().map(|v| v.as_bool()).collect();
                    return match list {
                        Some(list) if list.len() == n => Ok(list),
                        _ => Err(self.bad(name, "a list", "must hold one bool a layer")),
                    };
                }
                None => self.size(name)?,
            },
        };
        Ok((1..=n).map(|i| !i.is_multiple_of(period)).collect())
    }

    /// `attention.scale` where the file states it. Files of llama.cpp's converter don't: there it
    /// follows from the model: 1/√head_dim, but 1/√(hidden / heads) for the two 27B models.
    fn query_scale(
        &self,
        arch: Arch,
        hidden: usize,
        layers: usize,
        heads: usize,
        head_dim: usize,
    ) -> Result<f32, ModelError> {
        if let Some(scale) = self.positive("attention.scale")? {
            return Ok(scale);
        }
        let is_27b = matches!((arch, layers), (Arch::Gemma3, 62) | (Arch::Gemma2, 46));
        let features = if is_27b { hidden / heads } else { head_dim };
        Ok(1.0 / (features as f32).sqrt())
    }
}
