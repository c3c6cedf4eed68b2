//! Rows of activations in the forms that the matrices to come multiply with.

use quant::kernels::{Input, Kernels};

use super::int8::{self, Quantized};
use super::linear::{self, Finish, Packed, Product};
use crate::cpu::shared::SharedBuf;
use crate::error::RuntimeError;
use crate::weights::WeightMatrix;

/// Rows for matmuls: float weights take 16-bit fixed point, block formats int8.
pub(super) struct Activations {
    fixed: Option<Packed>,
    int8: Option<Quantized>,
}

fn is_float(w: &WeightMatrix) -> bool {
    Input::of(w.dtype) == Input::F32
}

impl Activations {
    /// Room for rows of `cols` features in every form that one of `readers` asks for.
    pub(super) fn new<'w>(
        rows: usize,
        cols: usize,
        readers: impl Iterator<Item = &'w WeightMatrix> + Clone,
    ) -> Result<Self, RuntimeError> {
        let (fixed, int8) = (readers.clone().any(is_float), readers.clone().any(|w| !is_float(w)));
        Ok(Activations {
            fixed: fixed.then(|| Packed::new(rows, cols)).transpose()?,
            int8: int8.then(|| Quantized::new(rows, cols)).transpose()?,
        })
    }

    /// Fills in all rows, then out[t][column + r] = finish(x[t] · w[r] + bias[r]) for every matrix;
    /// `row(t, x)` says what row `t` is. Rows of `out` are `ld` long.
    pub(super) fn multiply(
        &mut self,
        k: &Kernels,
        row: impl Fn(usize, &mut [f32]) + Sync,
        matrices: &[Product<'_>],
        out: &SharedBuf<f32>,
        ld: usize,
        finish: Finish,
    ) {
        let (float, blocks): (Vec<Product<'_>>, _) =
            matrices.iter().copied().partition(|m| Input::of(m.w.dtype()) == Input::F32);
        if let (Some(x), false) = (&mut self.fixed, float.is_empty()) {
            x.fill(k, &row);
            linear::matmul(k, &float, x, out, ld, finish);
        }
        if let (Some(x), false) = (&mut self.int8, blocks.is_empty()) {
            x.fill(k, &row);
            int8::matmul(k, &blocks, x, out, ld, finish);
        }
    }
}
