//! The tensors of a Gemma model, resolved once: names looked up, shapes checked, matrices left
//! where they lie in the mapping.

use std::collections::HashSet;
use std::ops::Range;

use quant::codec::decode_row;
use quant::gguf::{Gguf, GgufError, Tensor};
use quant::{DType, Matrix};

use crate::config::{GemmaConfig, LayerConfig};
use crate::error::ModelError;

/// A matrix in the mapped file: `rows` output features × `cols` input features.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightMatrix {
    /// Element type.
    pub dtype: DType,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Where its blocks lie in the file.
    pub bytes: Range<usize>,
}

impl WeightMatrix {
    /// The matrix, borrowed from the file it was resolved in.
    pub fn view<'a>(&self, file: &'a [u8]) -> Matrix<'a> {
        Matrix::new(self.dtype, self.rows, self.cols, &file[self.bytes.clone()])
            .expect("checked when the weights were resolved")
    }
}

/// One transformer block. Norm weights are as in the file: the `1 +` of Gemma's RMSNorm is in them.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Position in the stack.
    pub index: usize,
    /// What is special about this layer.
    pub config: LayerConfig,
    /// `[hidden]`, before attention.
    pub attn_norm: Vec<f32>,
    /// `[heads · head_dim, hidden]`
    pub q: WeightMatrix,
    /// `[kv_heads · head_dim, hidden]`
    pub k: WeightMatrix,
    /// `[kv_heads · head_dim, hidden]`
    pub v: WeightMatrix,
    /// `[head_dim]` for queries and for keys, in Gemma 3.
    pub qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    /// `[hidden, heads · head_dim]`
    pub o: WeightMatrix,
    /// `[hidden]`, after attention.
    pub post_attn_norm: Vec<f32>,
    /// `[hidden]`, before the MLP.
    pub ffn_norm: Vec<f32>,
    /// `[ffn, hidden]`
    pub gate: WeightMatrix,
    /// `[ffn, hidden]`
    pub up: WeightMatrix,
    /// `[hidden, ffn]`
    pub down: WeightMatrix,
    /// `[hidden]`, after the MLP.
    pub post_ffn_norm: Vec<f32>,
}

/// All the weights of a model.
#[derive(Clone, Debug)]
pub struct Weights {
    /// `[vocab, hidden]`
    pub embed: WeightMatrix,
    /// One entry a layer.
    pub layers: Vec<Layer>,
    /// `[hidden]`
    pub output_norm: Vec<f32>,
    /// `[vocab, hidden]`: the embedding again, unless the file holds an `output.weight`.
    pub output: WeightMatrix,
}

impl Weights {
    /// Resolves every tensor of a file.
    ///
    /// # Errors
    /// [`ModelError`] when one is missing, has another shape than the configuration asks for, or
    /// is not part of the model.
    pub fn resolve(gguf: &Gguf<'_>, config: &GemmaConfig) -> Result<Self, ModelError> {
        let mut names = Names::new(gguf);
        let (d, f, hd) = (config.hidden, config.ffn, config.head_dim);
        let (q_dim, kv_dim) = (config.q_dim(), config.kv_dim());
        let embed = names.matrix("token_embd.weight", None, d)?;
        let output = match gguf.tensor("output.weight") {
            Some(_) => names.matrix("output.weight", Some(embed.rows), d)?,
            None => embed.clone(),
        };
        let output_norm = names.vector("output_norm.weight", d)?;
        let mut layers = Vec::with_capacity(config.layers.len());
        for (index, &layer) in config.layers.iter().enumerate() {
            let name = |part: &str| format!("blk.{index}.{part}.weight");
            layers.push(Layer {
                index,
                config: layer,
                attn_norm: names.vector(&name("attn_norm"), d)?,
                q: names.matrix(&name("attn_q"), Some(q_dim), d)?,
                k: names.matrix(&name("attn_k"), Some(kv_dim), d)?,
                v: names.matrix(&name("attn_v"), Some(kv_dim), d)?,
                qk_norm: match config.qk_norm {
                    true => Some((
                        names.vector(&name("attn_q_norm"), hd)?,
                        names.vector(&name("attn_k_norm"), hd)?,
                    )),
                    false => None,
                },
                o: names.matrix(&name("attn_output"), Some(d), q_dim)?,
                post_attn_norm: names.vector(&name("post_attention_norm"), d)?,
                ffn_norm: names.vector(&name("ffn_norm"), d)?,
                gate: names.matrix(&name("ffn_gate"), Some(f), d)?,
                up: names.matrix(&name("ffn_up"), Some(f), d)?,
                down: names.matrix(&name("ffn_down"), Some(d), f)?,
                post_ffn_norm: names.vector(&name("post_ffw_norm"), d)?,
            });
        }
        match names.left_over() {
            Some(name) => Err(ModelError::UnknownTensor {
                name: name.into(),
                arch: config.arch.name(),
                layers: config.layers.len(),
            }),
            None => Ok(Weights { embed, layers, output_norm, output }),
        }
    }

    /// Every matrix that one token is multiplied with, the head included.
    pub fn matrices(&self) -> impl Iterator<Item = &WeightMatrix> {
        self.layers
            .iter()
            .flat_map(|l| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down])
            .chain([&self.output])
    }

    /// Rows of the embedding: the number of logits.
    pub fn vocab(&self) -> usize {
        self.embed.rows
    }
}

/// Looks tensors up and remembers which were asked for.
pub(crate) struct Names<'g> {
    pub(crate) gguf: &'g Gguf<'g>,
    used: HashSet<&'g str>,
}

impl<'g> Names<'g> {
    pub(crate) fn new(gguf: &'g Gguf<'g>) -> Self {
        Names { gguf, used: HashSet::new() }
    }

    /// A tensor that nobody asked for.
    pub(crate) fn left_over(&self) -> Option<&'g str> {
        self.gguf.tensors().iter().map(|t| t.name).find(|name| !self.used.contains(name))
    }

    pub(crate) fn tensor(&mut self, name: &str) -> Result<&'g Tensor<'g>, ModelError> {
        let t =
            self.gguf.tensor(name).ok_or_else(|| GgufError::MissingTensor { name: name.into() })?;
        self.used.insert(t.name);
        Ok(t)
    }

    /// A matrix of `cols` input features; `rows: None` takes whatever is there (the vocabulary).
    pub(crate) fn matrix(
        &mut self,
        name: &str,
        rows: Option<usize>,
        cols: usize,
    ) -> Result<WeightMatrix, ModelError> {
        let t = self.tensor(name)?;
        let rows = rows.unwrap_or(t.dims.get(1).map_or(0, |&r| r as usize));
        if t.dims != [cols as u64, rows as u64] {
            return Err(wrong_shape(t, &[cols, rows]));
        }
        Ok(placed(t, rows, cols))
    }

    /// A norm's weights, decoded.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, ModelError> {
        let t = self.tensor(name)?;
        if t.dims != [len as u64] {
            return Err(wrong_shape(t, &[len]));
        }
        let mut out = vec![0.0; len];
        decode_row(t.dtype, t.data, &mut out);
        Ok(out)
    }
}

/// The matrix that a tensor is.
pub(crate) fn placed(t: &Tensor<'_>, rows: usize, cols: usize) -> WeightMatrix {
    let start = t.offset as usize;
    WeightMatrix { dtype: t.dtype, rows, cols, bytes: start..start + t.data.len() }
}

pub(crate) fn wrong_shape(t: &Tensor<'_>, expected: &[usize]) -> ModelError {
    ModelError::Gguf(GgufError::TensorDims {
        name: t.name.into(),
        expected: expected.iter().map(|&d| d as u64).collect(),
        found: t.dims.clone(),
    })
}
