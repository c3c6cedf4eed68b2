//! The one seam through which weights are multiplied: `y = x · Wᵀ` for any [`DType`], on whatever
//! this CPU offers.
//!
//! Float weights take f32 activations; block formats take activations quantized to int8 blocks of
//! 32 with an f32 scale and the integer sum of each block, so that the unsigned nibbles of the file
//! can be multiplied as they are and the offset becomes one correction a block.

use std::ops::Range;

use crate::codec::QK;
use crate::{DType, Matrix};

mod scalar;

/// What kind of activations the kernels of a type read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// `Rows::x`.
    F32,
    /// `Rows::q`, `Rows::scale` and `Rows::sum`.
    Q8,
}

impl Input {
    /// What weights of this type are multiplied with.
    pub fn of(dtype: DType) -> Input {
        if dtype.is_float() { Input::F32 } else { Input::Q8 }
    }
}

/// A batch of activation rows, borrowed, row-major and contiguous. Either `x` or the other three
/// may be empty when no kernel that needs them is called.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Number of rows (tokens).
    pub n: usize,
    /// Features a row.
    pub cols: usize,
    /// `[n, cols]` f32.
    pub x: &'a [f32],
    /// `[n, cols]` int8.
    pub q: &'a [i8],
    /// `[n, cols / 32]`: value = `q` · `scale`.
    pub scale: &'a [f32],
    /// `[n, cols / 32]`: sum of the block's `q`.
    pub sum: &'a [i32],
}

/// Scratch memory of one thread: unpacked weight strips. Grows to what is needed and stays.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A decoded row or strip.
    pub(crate) f32s: Vec<f32>,
}

/// The kernels of one instruction set, chosen at run time.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {}

impl Kernels {
    /// The best that this CPU runs.
    pub fn detect() -> Self {
        Kernels {}
    }

    /// Quantizes one row of activations in blocks of 32: `scale = max|x| / 127`,
    /// `q = round_ties_even(x / scale)`, `sum = Σ q`. `q` is as long as `x`, the others 1/32 of it.
    pub fn quantize(&self, x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
        assert!(x.len().is_multiple_of(QK) && q.len() == x.len());
        assert!(scale.len() == x.len() / QK && sum.len() == scale.len());
        scalar::quantize(x, q, scale, sum);
    }

    /// `y[t * ld + i] = Σ_c x[t][c] · W[rows.start + i][c]` for every `t < x.n`, `i < rows.len()`.
    ///
    /// # Panics
    /// When the shapes do not fit each other.
    pub fn matmul(
        &self,
        w: Matrix<'_>,
        rows: Range<usize>,
        x: Rows<'_>,
        y: &mut [f32],
        ld: usize,
        scratch: &mut Scratch,
    ) {
        assert!(rows.start <= rows.end && rows.end <= w.rows() && x.cols == w.cols());
        if x.n == 0 || rows.is_empty() {
            return;
        }
        assert!(ld >= rows.len() && y.len() >= (x.n - 1) * ld + rows.len());
        match Input::of(w.dtype()) {
            Input::F32 => assert!(x.x.len() == x.n * x.cols),
            Input::Q8 => {
                let blocks = x.n * (x.cols / QK);
                assert!(x.q.len() == blocks * QK && x.scale.len() == blocks);
                assert!(x.sum.len() == blocks);
            }
        }
        scalar::matmul(w, rows, x, y, ld, scratch);
    }
}
