//! The tower's tensors, resolved once.

use quant::DType;
use quant::codec::{QK, decode_row};
use quant::gguf::{Gguf, GgufError};

use super::config::VisionConfig;
use super::precision::{Form, Precision};
use crate::error::ModelError;
use crate::weights::{Names, WeightMatrix, placed, wrong_shape};

/// y = x · Wᵀ + b.
pub(crate) struct Linear {
    pub(crate) weight: WeightMatrix,
    /// `[rows]`
    pub(crate) bias: Vec<f32>,
}

/// LayerNorm's weight and bias, `[hidden]` each.
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

pub(crate) struct Layer {
    /// Before attention.
    pub(crate) norm1: Norm,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) out: Linear,
    /// Before the MLP.
    pub(crate) norm2: Norm,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

pub(crate) struct Weights {
    /// `[hidden, 3 · patch · patch]`
    pub(super) patch: Linear,
    /// `[patches, hidden]`
    pub(super) position: WeightMatrix,
    pub(crate) layers: Vec<Layer>,
    pub(super) post_norm: Norm,
    /// RMSNorm of the averaged patches, `[hidden]`.
    pub(super) soft_norm: Vec<f32>,
    /// `[projection_dim, hidden]`, f32: the file holds it the other way round.
    pub(super) projection: Vec<f32>,
}

impl Layer {
    /// Is `down` a float matrix only because its rows are not whole blocks, and would take longer than
    /// the other matrices? With zeros behind its rows it is one like them.
    pub(super) fn pads_down(&self, precision: Precision) -> bool {
        let w = &self.down.weight;
        precision == Precision::Fast
            && w.dtype.is_float()
            && !w.cols.is_multiple_of(QK)
            && !self.up.weight.dtype.is_float()
    }

    /// What `down` multiplies with.
    pub(super) fn down_form(&self, precision: Precision) -> Form {
        match self.pads_down(precision) {
            true => Form::Int8,
            false => Form::of(&self.down.weight, precision),
        }
    }
}

impl Weights {
    /// # Errors
    /// [`ModelError`] when a tensor is missing, has another shape than the configuration asks for,
    /// or is not part of the tower.
    pub(super) fn resolve(
        gguf: &Gguf<'_>,
        c: &VisionConfig,
        file: &[u8],
    ) -> Result<Self, ModelError> {
        let mut names = Names::new(gguf);
        let layers = (0..c.layers).map(|i| layer(&mut names, c, i)).collect::<Result<_, _>>()?;
        let weights = Weights {
            patch: patch(&mut names, c)?,
            position: names.matrix("v.position_embd.weight", Some(c.patches()), c.hidden)?,
            layers,
            post_norm: norm(&mut names, "v.post_ln", c.hidden)?,
            soft_norm: names.vector("mm.soft_emb_norm.weight", c.hidden)?,
            projection: projection(&mut names, c, file)?,
        };
        match names.left_over() {
            Some(name) => Err(ModelError::UnknownTensor {
                name: name.into(),
                arch: "gemma3 vision",
                layers: c.layers,
            }),
            None => Ok(weights),
        }
    }
}

fn layer(names: &mut Names<'_>, c: &VisionConfig, index: usize) -> Result<Layer, ModelError> {
    let (d, f) = (c.hidden, c.ffn);
    let name = |part: &str| format!("v.blk.{index}.{part}");
    let mut square = |part: &str| linear(names, &name(part), d, d);
    let (q, k) = (square("attn_q")?, square("attn_k")?);
    let (v, out) = (square("attn_v")?, square("attn_out")?);
    // Files of early converters have these two names the wrong way round.
    let swapped = d != f
        && names
            .gguf
            .tensor(&name("ffn_down.weight"))
            .is_some_and(|t| t.dims == [d as u64, f as u64]);
    let (up, down) = if swapped { ("ffn_down", "ffn_up") } else { ("ffn_up", "ffn_down") };
    Ok(Layer {
        norm1: norm(names, &name("ln1"), d)?,
        q,
        k,
        v,
        out,
        norm2: norm(names, &name("ln2"), d)?,
        up: linear(names, &name(up), f, d)?,
        down: linear(names, &name(down), d, f)?,
    })
}

fn linear(
    names: &mut Names<'_>,
    name: &str,
    rows: usize,
    cols: usize,
) -> Result<Linear, ModelError> {
    Ok(Linear {
        weight: names.matrix(&format!("{name}.weight"), Some(rows), cols)?,
        bias: names.vector(&format!("{name}.bias"), rows)?,
    })
}

fn norm(names: &mut Names<'_>, name: &str, len: usize) -> Result<Norm, ModelError> {
    Ok(Norm {
        weight: names.vector(&format!("{name}.weight"), len)?,
        bias: names.vector(&format!("{name}.bias"), len)?,
    })
}

/// The patch embedding: a convolution whose windows touch, that is a matmul of unfolded patches.
fn patch(names: &mut Names<'_>, c: &VisionConfig) -> Result<Linear, ModelError> {
    let (side, name) = (c.patch_size, "v.patch_embd.weight");
    let t = names.tensor(name)?;
    // A convolution's weights as they are, or flattened.
    let flat = t.dims == [(3 * side * side) as u64, c.hidden as u64];
    if !flat && t.dims != [side as u64, side as u64, 3, c.hidden as u64] {
        return Err(wrong_shape(t, &[side, side, 3, c.hidden]));
    }
    if !t.dtype.is_float() {
        let (key, value) = (format!("the type of {name}"), t.dtype.to_string());
        return Err(ModelError::Config { key, value, why: "f32, f16 or bf16 is needed" });
    }
    let weight = placed(t, c.hidden, 3 * side * side);
    Ok(Linear { weight, bias: names.vector("v.patch_embd.bias", c.hidden)? })
}

/// The projection, transposed: the file's rows are its inputs.
fn projection(
    names: &mut Names<'_>,
    c: &VisionConfig,
    file: &[u8],
) -> Result<Vec<f32>, ModelError> {
    let name = "mm.input_projection.weight";
    let w = names.matrix(name, Some(c.hidden), c.projection_dim)?;
    let mut row = vec![0.0; w.cols];
    let mut out = vec![0.0; w.rows * w.cols];
    for (i, bytes) in file[w.bytes.clone()].chunks_exact(row_bytes(&w, name)?).enumerate() {
        decode_row(w.dtype, bytes, &mut row);
        for (out, v) in out.chunks_exact_mut(w.rows).zip(&row) {
            out[i] = *v;
        }
    }
    Ok(out)
}

fn row_bytes(w: &WeightMatrix, name: &str) -> Result<usize, ModelError> {
    w.dtype.row_bytes(w.cols).ok_or_else(|| {
        let (shape, dtype) = (vec![w.cols as u64, w.rows as u64], w.dtype);
        GgufError::TensorShape { name: name.into(), shape, dtype }.into()
    })
}

impl Weights {
    /// The projection as a matrix.
    pub(super) fn projection(&self) -> quant::Matrix<'_> {
        let cols = self.soft_norm.len();
        let bytes = bytemuck::cast_slice(&self.projection);
        quant::Matrix::new(DType::F32, self.projection.len() / cols, cols, bytes)
            .expect("made with these dimensions")
    }
}
