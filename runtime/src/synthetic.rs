//! Models of any Gemma's shape with random weights, made in memory: what it would be like to run a
//! model, before it is downloaded.

use quant::DType;
use quant::codec::encode_row;
use quant::gguf::{Layout, MetaValue, TensorSpec};

use crate::error::RuntimeError;
use crate::mapping;
use crate::model::Model;

/// The shape of a published Gemma.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Name as on the Hub, without `-it`.
    pub name: &'static str,
    arch: &'static str,
    hidden: u64,
    ffn: u64,
    layers: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    window: u32,
    vocab: u64,
    context: u32,
    rope_factor: Option<f32>,
}

/// The published shapes (config.json of each on the Hub).
pub const SHAPES: [Shape; 8] = {
    let g3 = Shape {
        name: "gemma-3-1b",
        arch: "gemma3",
        hidden: 1152,
        ffn: 6912,
        layers: 26,
        heads: 4,
        kv_heads: 1,
        head_dim: 256,
        window: 512,
        vocab: 262_144,
        context: 32_768,
        rope_factor: None,
    };
    let big =
        Shape { window: 1024, vocab: 262_208, context: 131_072, rope_factor: Some(8.0), ..g3 };
    let g2 = Shape {
        arch: "gemma2",
        window: 4096,
        vocab: 256_000,
        context: 8192,
        kv_heads: 4,
        heads: 8,
        ..g3
    };
    [
        Shape { name: "gemma-3-270m", hidden: 640, ffn: 2048, layers: 18, ..g3 },
        g3,
        Shape {
            name: "gemma-3-4b",
            hidden: 2560,
            ffn: 10240,
            layers: 34,
            heads: 8,
            kv_heads: 4,
            ..big
        },
        Shape {
            name: "gemma-3-12b",
            hidden: 3840,
            ffn: 15360,
            layers: 48,
            heads: 16,
            kv_heads: 8,
            ..big
        },
        Shape {
            name: "gemma-3-27b",
            hidden: 5376,
            ffn: 21504,
            layers: 62,
            heads: 32,
            kv_heads: 16,
            head_dim: 128,
            ..big
        },
        Shape { name: "gemma-2-2b", hidden: 2304, ffn: 9216, layers: 26, ..g2 },
        Shape {
            name: "gemma-2-9b",
            hidden: 3584,
            ffn: 14336,
            layers: 42,
            heads: 16,
            kv_heads: 8,
            ..g2
        },
        Shape {
            name: "gemma-2-27b",
            hidden: 4608,
            ffn: 36864,
            layers: 46,
            heads: 32,
            kv_heads: 16,
            head_dim: 128,
            ..g2
        },
    ]
};

impl Shape {
    /// The shape with this name.
    pub fn from_name(name: &str) -> Option<&'static Shape> {
        SHAPES.iter().find(|s| s.name == name)
    }

    /// A whole GGUF file of this shape, in memory, with matrices of `dtype` and an embedding of
    /// `embed`. The vocabulary is a placeholder and the text such a model writes is noise.
    ///
    /// # Errors
    /// [`RuntimeError::Gguf`] when a row of this shape is not whole blocks of the type,
    /// [`RuntimeError::Memory`].
    pub fn model(&self, dtype: DType, embed: DType) -> Result<Model, RuntimeError> {
        let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
        self.with(dtype, embed, |dtype, bytes| fill(dtype, bytes, &mut rng))
    }

    /// As [`Shape::model`], all weights zero: for counting. Takes hardly any memory, as no page of
    /// the weights is touched.
    #[cfg(all(test, feature = "gpu"))]
    pub(crate) fn outline(&self, dtype: DType, embed: DType) -> Result<Model, RuntimeError> {
        self.with(dtype, embed, |_, _| {})
    }

    fn with(
        &self,
        dtype: DType,
        embed: DType,
        mut fill: impl FnMut(DType, &mut [u8]),
    ) -> Result<Model, RuntimeError> {
        let label = format!("{} {dtype}, embedding {embed}, random weights", self.name);
        let tensors = self.tensors(dtype, embed);
        let layout = Layout::new(&self.metadata(), &tensors)
            .map_err(|source| RuntimeError::Gguf { path: label.clone().into(), source })?;
        let bytes = layout.file_len as usize;
        let no_memory = |_| RuntimeError::Memory { what: "random weights", bytes };
        let mut file = mapping::memory(bytes).map_err(no_memory)?;
        file[..layout.header.len()].copy_from_slice(&layout.header);
        for (t, &offset) in tensors.iter().zip(&layout.offsets) {
            let bytes = t.bytes().expect("laid out before") as usize;
            fill(t.dtype, &mut file[offset as usize..][..bytes]);
        }
        Model::from_map(label, file.make_read_only().map_err(no_memory)?)
    }

    fn tensors(&self, dtype: DType, embed: DType) -> Vec<TensorSpec> {
        let (d, f) = (self.hidden, self.ffn);
        let (q, kv, hd) =
            (self.heads * self.head_dim, self.kv_heads * self.head_dim, self.head_dim);
        let mut out = Vec::new();
        let mut add = |name: String, dtype, dims: &[u64]| {
            out.push(TensorSpec { name, dtype, dims: dims.to_vec() });
        };
        add("token_embd.weight".into(), embed, &[d, self.vocab]);
        add("output_norm.weight".into(), DType::F32, &[d]);
        for i in 0..self.layers {
            let name = |part: &str| format!("blk.{i}.{part}.weight");
            for part in ["attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"] {
                add(name(part), DType::F32, &[d]);
            }
            if self.arch == "gemma3" {
                add(name("attn_q_norm"), DType::F32, &[hd]);
                add(name("attn_k_norm"), DType::F32, &[hd]);
            }
            add(name("attn_q"), dtype, &[d, q]);
            add(name("attn_k"), dtype, &[d, kv]);
            add(name("attn_v"), dtype, &[d, kv]);
            add(name("attn_output"), dtype, &[q, d]);
            add(name("ffn_gate"), dtype, &[d, f]);
            add(name("ffn_up"), dtype, &[d, f]);
            add(name("ffn_down"), dtype, &[f, d]);
        }
        out
    }

    fn metadata(&self) -> Vec<(String, MetaValue)> {
        let n = self.vocab as usize;
        let mut tokens: Vec<String> = (0..n).map(|i| format!("t{i}")).collect();
        for (i, name) in ["<pad>", "<eos>", "<bos>", "<unk>"].into_iter().enumerate() {
            tokens[i] = name.into();
        }
        let types = (0..n).map(|i| if i < 4 { 3 } else { 1 }).collect();
        let key = |name: &str| format!("{}.{name}", self.arch);
        let u32s = |name: &str, v: u64| (key(name), MetaValue::U32(v as u32));
        let mut out = vec![
            ("general.architecture".into(), MetaValue::String(self.arch.into())),
            ("general.name".into(), MetaValue::String(format!("{} (random weights)", self.name))),
            (key("context_length"), MetaValue::U32(self.context)),
            u32s("embedding_length", self.hidden),
            u32s("block_count", self.layers),
            u32s("feed_forward_length", self.ffn),
            u32s("attention.head_count", self.heads),
            u32s("attention.head_count_kv", self.kv_heads),
            u32s("attention.key_length", self.head_dim),
            u32s("attention.value_length", self.head_dim),
            (key("attention.sliding_window"), MetaValue::U32(self.window)),
            (key("attention.layer_norm_rms_epsilon"), MetaValue::F32(1e-6)),
            ("tokenizer.ggml.model".into(), MetaValue::String("llama".into())),
            ("tokenizer.ggml.tokens".into(), MetaValue::Strings(tokens)),
            ("tokenizer.ggml.scores".into(), MetaValue::F32s(vec![-1.0; n])),
            ("tokenizer.ggml.token_type".into(), MetaValue::I32s(types)),
            ("tokenizer.ggml.bos_token_id".into(), MetaValue::U32(2)),
            ("tokenizer.ggml.eos_token_id".into(), MetaValue::U32(1)),
            ("tokenizer.ggml.unknown_token_id".into(), MetaValue::U32(3)),
        ];
        if let Some(factor) = self.rope_factor {
            out.push((key("rope.scaling.type"), MetaValue::String("linear".into())));
            out.push((key("rope.scaling.factor"), MetaValue::F32(factor)));
        }
        if self.arch == "gemma2" {
            out.push((key("attn_logit_softcapping"), MetaValue::F32(50.0)));
            out.push((key("final_logit_softcapping"), MetaValue::F32(30.0)));
        }
        out
    }
}

/// Marsaglia's xorshift64: fast, and the same file each time.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Fills a tensor: norms with ones, matrices with small random weights. A few thousand blocks are
/// encoded and repeated from a random start, so that a 27B model does not take minutes.
fn fill(dtype: DType, bytes: &mut [u8], rng: &mut Rng) {
    const LEN: usize = 1 << 16;
    if dtype == DType::F32 && bytes.len() < 1 << 17 {
        bytes.chunks_exact_mut(4).for_each(|b| b.copy_from_slice(&1f32.to_le_bytes()));
        return;
    }
    let weights: Vec<f32> =
        (0..LEN).map(|_| (rng.next() as i32 as f32) / (1u32 << 31) as f32 * 0.04).collect();
    let mut pool = vec![0; dtype.row_bytes(LEN).expect("LEN is whole blocks of every type")];
    if quant::codec::can_encode(dtype) {
        encode_row(dtype, &weights, &mut pool);
    } else {
        // A read-only format: random quants under scales of zero, which cost the same to multiply.
        pool.iter_mut().for_each(|b| *b = rng.next() as u8 & 0x3b);
    }
    let block = dtype.block_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let from = (rng.next() as usize % (pool.len() / block)) * block;
        let n = (pool.len() - from).min(bytes.len() - at);
        bytes[at..at + n].copy_from_slice(&pool[from..from + n]);
        at += n;
    }
}
