//! Rows of activations in the forms that the matrices to come multiply with.

use quant::kernels::{Kernels, Rows};
use rayon::prelude::*;

use super::batched;
use super::int8::Quantized;
use super::linear::{self, Finish, Packed, Product};
use super::memory::reserve;
use super::precision::Form;
use super::workers::Workers;
use crate::cpu::shared::SharedBuf;
use crate::error::RuntimeError;

/// Rows for matmuls.
pub(super) struct Activations {
    exact: Option<Exact>,
    fixed: Option<Packed>,
    int8: Option<Quantized>,
}

/// f32 rows.
struct Exact {
    cols: usize,
    x: Vec<f32>,
}

impl Exact {
    fn new(rows: usize, cols: usize) -> Result<Self, RuntimeError> {
        Ok(Exact { cols, x: reserve(rows.saturating_mul(cols))? })
    }
}

impl Activations {
    /// Room for rows of `cols` features in each of the forms.
    pub(super) fn new(
        rows: usize,
        cols: usize,
        forms: impl Iterator<Item = Form> + Clone,
    ) -> Result<Self, RuntimeError> {
        let any = |form: Form| forms.clone().any(|f| f == form);
        Ok(Activations {
            exact: any(Form::Exact).then(|| Exact::new(rows, cols)).transpose()?,
            fixed: any(Form::Fixed).then(|| Packed::new(rows, cols)).transpose()?,
            int8: any(Form::Int8).then(|| Quantized::new(rows, cols)).transpose()?,
        })
    }

    /// Fills in all rows, then out[t][column + r] = finish(x[t] · w[r] + bias[r]) for every matrix, each
    /// in its form; `row(t, x)` says what row `t` is. Rows of `out` are `ld` long.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn multiply(
        &mut self,
        k: &Kernels,
        workers: &Workers,
        row: impl Fn(usize, &mut [f32]) + Sync,
        matrices: &[(Form, Product<'_>)],
        out: &SharedBuf<f32>,
        ld: usize,
        finish: Finish,
    ) {
        let of = |form: Form| -> Vec<Product<'_>> {
            matrices.iter().filter(|(f, _)| *f == form).map(|(_, m)| *m).collect()
        };
        let exact = of(Form::Exact);
        if let (Some(Exact { cols, x }), false) = (&mut self.exact, exact.is_empty()) {
            x.par_chunks_exact_mut(*cols).enumerate().for_each(|(t, x)| row(t, x));
            let (n, cols) = (x.len() / *cols, *cols);
            let rows = Rows { n, cols, x, ..Rows::default() };
            batched::matmul(k, workers, &exact, rows, out, ld, finish);
        }
        let fixed = of(Form::Fixed);
        if let (Some(x), false) = (&mut self.fixed, fixed.is_empty()) {
            x.fill(k, &row);
            linear::matmul(k, &fixed, x, out, ld, finish);
        }
        let int8 = of(Form::Int8);
        if let (Some(x), false) = (&mut self.int8, int8.is_empty()) {
            x.fill(k, &row);
            batched::matmul(k, workers, &int8, x.rows(), out, ld, finish);
        }
    }
}
