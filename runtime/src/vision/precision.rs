//! How exactly a tower multiplies.

use quant::kernels::{Input, Kernels};

use super::config::VisionConfig;
use crate::weights::WeightMatrix;

/// How float weights and attention are multiplied. Matrices of block formats take int8 activations
/// whatever is chosen, as those of the text model do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// [`Exact`](Precision::Exact) where an image takes next to no time or the CPU multiplies nothing
    /// faster than f32, else [`Fast`](Precision::Fast).
    #[default]
    Auto,
    /// In f32.
    Exact,
    /// Float matrices in 16-bit fixed point, and attention as well; in 8 bits where the layer's own
    /// matrices are of a block format.
    Fast,
}

/// Floating-point operations of an image that are nobody's wait in f32: a tenth of a second.
const NO_WAIT: f64 = 2e10;

impl Precision {
    /// `Exact` or `Fast`.
    pub(super) fn resolve(self, k: &Kernels, c: &VisionConfig) -> Precision {
        let (matrices, attention) = c.flops();
        match self {
            Precision::Auto if matrices + attention <= NO_WAIT || !k.has_fast_fixed() => {
                Precision::Exact
            }
            Precision::Auto => Precision::Fast,
            chosen => chosen,
        }
    }
}

/// What a matrix multiplies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// f32.
    Exact,
    /// 16-bit fixed point.
    Fixed,
    /// int8 in blocks of 32.
    Int8,
}

impl Form {
    /// `precision` is a resolved one.
    pub(super) fn of(w: &WeightMatrix, precision: Precision) -> Form {
        match (Input::of(w.dtype), precision) {
            (Input::Q8, _) => Form::Int8,
            (Input::F32, Precision::Fast) => Form::Fixed,
            (Input::F32, _) => Form::Exact,
        }
    }
}
