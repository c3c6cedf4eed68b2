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

        let turned = keys.size_or("rope.dimension_count", head_dim)?;
        if turned != head_dim {
            let why = "RoPE turns all of a head's features in a Gemma";
            return Err(keys.bad("rope.dimension_count", turned, why));
        }
        if gguf.get(&keys.key("attention.causal")).and_then(|v| v.as_bool()) == Some(false) {
            let why = "every position would see those after it, as in models that embed texts";
            return Err(keys.bad("attention.causal", false, why));
        }

        // What a file leaves out is what llama.cpp takes it for.
        let base = keys.positive("rope.freq_base")?.unwrap_or(1e4);
        let base_swa = keys.positive("rope.freq_base_swa")?.unwrap_or(1e4);
        let rope = Rope { base, scale: 1.0 / keys.rope_factor()? };
        let global = LayerConfig { window: None, rope };
        // In Gemma 3 only global layers are scaled: a window never sees far positions.
        let local = match arch {
            Arch::Gemma3 => Rope { base: base_swa, scale: 1.0 },
            Arch::Gemma2 => rope,
        };
        let layers = match keys.window(arch)? {
            None => vec![global; n_layers],
            Some(window) => {
                let sliding = LayerConfig { window: Some(window), rope: local };
                let slides = keys.sliding_layers(n_layers, arch)?;
                slides.into_iter().map(|slides| if slides { sliding } else { global }).collect()
            }
        };

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

    /// By how much positions are divided: linear scaling unless a type says that there is none. The factor
    /// had another key once.
    fn rope_factor(&self) -> Result<f32, ModelError> {
        match self.gguf.str(&self.key("rope.scaling.type"))? {
            Some("none") => return Ok(1.0),
            None | Some("linear") => {}
            Some(other) => {
                return Err(self.bad("rope.scaling.type", other, "only linear is known"));
            }
        }
        for name in ["rope.scaling.factor", "rope.scale_linear"] {
            match self.gguf.f32(&self.key(name))? {
                None => {}
                Some(0.0) => break,
                Some(_) => return Ok(self.positive(name)?.unwrap_or(1.0)),
            }
        }
        Ok(1.0)
    }

    /// How far sliding layers see. A Gemma 3 that states none, or 0, has no such layers.
    fn window(&self, arch: Arch) -> Result<Option<usize>, ModelError> {
        let name = "attention.sliding_window";
        match arch {
            Arch::Gemma2 => self.size_or(name, 4096).map(Some),
            Arch::Gemma3 if matches!(self.gguf.u64(&self.key(name))?, None | Some(0)) => Ok(None),
            Arch::Gemma3 => self.size(name).map(Some),
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

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use quant::DType;
    use quant::gguf::{Layout, MetaValue, TensorSpec};

    use super::*;

    /// The configuration of a file with six layers and these keys beside the necessary ones.
    fn config(arch: &str, more: &[(&str, MetaValue)]) -> Result<GemmaConfig, ModelError> {
        let size = |name: &str, v: u32| (format!("{arch}.{name}"), MetaValue::U32(v));
        let mut metadata = vec![
            ("general.architecture".into(), MetaValue::String(arch.into())),
            size("embedding_length", 64),
            size("block_count", 6),
            size("feed_forward_length", 128),
            size("attention.head_count", 4),
            size("attention.head_count_kv", 2),
            size("attention.key_length", 32),
        ];
        metadata.extend(more.iter().map(|(k, v)| (format!("{arch}.{k}"), v.clone())));
        let spec =
            |i: usize| TensorSpec { name: format!("t{i}"), dtype: DType::F32, dims: vec![1] };
        let layout = Layout::new(&metadata, &(0..6).map(spec).collect::<Vec<_>>()).unwrap();
        let mut file = layout.header;
        file.resize(layout.file_len as usize, 0);
        GemmaConfig::from_gguf(&Gguf::parse(&file).unwrap())
    }

    fn float(key: &str, v: f32) -> (&str, MetaValue) {
        (key, MetaValue::F32(v))
    }

    fn number(key: &str, v: u32) -> (&str, MetaValue) {
        (key, MetaValue::U32(v))
    }

    #[test]
    fn a_gemma_3_without_a_window_has_global_layers_only() {
        let base = float("rope.freq_base", 5e5);
        for window in [&[][..], &[number("attention.sliding_window", 0)]] {
            let c = config("gemma3", &[from_ref(&base), window].concat()).unwrap();
            let global = LayerConfig { window: None, rope: Rope { base: 5e5, scale: 1.0 } };
            assert_eq!(c.layers, [global; 6]);
        }
        let c = config("gemma3", &[base, number("attention.sliding_window", 9)]).unwrap();
        let windows: Vec<_> = c.layers.iter().map(|l| l.window).collect();
        assert_eq!(windows, [Some(9), Some(9), Some(9), Some(9), Some(9), None]);
        assert_eq!((c.layers[0].rope.base, c.layers[5].rope.base), (1e4, 5e5));
        // A Gemma 2 has them where nothing is said.
        assert_eq!(config("gemma2", &[]).unwrap().layers[0].window, Some(4096));
        assert!(config("gemma2", &[number("attention.sliding_window", 0)]).is_err());
    }

    #[test]
    fn positions_are_scaled_in_all_layers_of_gemma_2_and_the_global_ones_of_gemma_3() {
        let window = number("attention.sliding_window", 9);
        let linear = ("rope.scaling.type", MetaValue::String("linear".into()));
        let none = ("rope.scaling.type", MetaValue::String("none".into()));
        let factor = float("rope.scaling.factor", 4.0);
        let scales = |arch: &str, more: &[(&str, MetaValue)]| {
            let c = config(arch, &[from_ref(&window), more].concat()).unwrap();
            [c.layers[0].rope.scale, c.layers[5].rope.scale]
        };
        for stated in [
            &[linear.clone(), factor.clone()][..],
            from_ref(&factor),
            &[float("rope.scale_linear", 4.0)],
        ] {
            assert_eq!(scales("gemma3", stated), [1.0, 0.25]);
            assert_eq!(scales("gemma2", stated), [0.25, 0.25]);
        }
        for stated in [&[none, factor][..], &[linear, float("rope.scaling.factor", 0.0)]] {
            assert_eq!(scales("gemma3", stated), [1.0, 1.0]);
        }
    }

    #[test]
    fn what_no_gemma_does_is_refused() {
        for (key, value) in [
            number("rope.dimension_count", 16),
            ("attention.causal", MetaValue::Bool(false)),
            ("rope.scaling.type", MetaValue::String("yarn".into())),
            float("rope.scaling.factor", -2.0),
        ] {
            let message = config("gemma3", &[(key, value)]).unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
        let same =
            [number("rope.dimension_count", 32), ("attention.causal", MetaValue::Bool(true))];
        assert!(config("gemma3", &same).is_ok());
    }
}
