//! 64-bit Arm: `sdot` for the int8 kernels, and the `smmla` matrix product for batches where it is.
//!
//! Weights stay signed here, so that no offset needs correcting. A format of int8 kernels is a
//! zero-sized type with an `impl` of [`blocks::Blocks`]; the others are decoded to f32 and take the
//! float kernels.

mod blocks;
mod decode;
mod dotprod;
mod float;
mod i8mm;
mod ops;
pub(super) mod peak;
mod quantize;

use blocks::{Blocks, IQ4NL, Q4_0, Q8_0};

use super::{Job, NeonDotprod, NeonI8mm, Scratch};
use crate::DType;

/// The most tokens for which rows are multiplied one by one, as they lie in the file.
const DECODE_MAX: usize = 4;

impl NeonDotprod {
    pub(super) fn quantize(self, x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
        // SAFETY: the token proves the features.
        unsafe { quantize::quantize(x, q, scale, sum) }
    }

    pub(super) fn transpose(self, from: &[f32], width: usize, to: &mut [f32], height: usize) {
        // SAFETY: the token proves the features.
        unsafe { float::transpose(self, from, width, to, height) }
    }

    pub(super) fn handles(self, _dtype: DType) -> bool {
        true
    }

    pub(super) fn matmul(self, job: Job<'_>, scratch: &mut Scratch) {
        match job.w.dtype() {
            DType::Q4_0 => self.blocks::<Q4_0>(job, scratch),
            DType::Q8_0 => self.blocks::<Q8_0>(job, scratch),
            DType::IQ4_NL => self.blocks::<IQ4NL>(job, scratch),
            // SAFETY: the token proves the features.
            _ => unsafe { float::matmul(self, job, scratch) },
        }
    }

    fn blocks<F: Blocks>(self, job: Job<'_>, scratch: &mut Scratch) {
        // SAFETY: the token proves the features; `job` was checked.
        unsafe {
            if job.x.n <= DECODE_MAX {
                decode::matmul::<F>(job);
            } else {
                dotprod::matmul::<F>(job, scratch);
            }
        }
    }
}

impl NeonI8mm {
    /// It includes dotprod.
    pub(super) fn dotprod(self) -> NeonDotprod {
        NeonDotprod::new().expect("i8mm was detected together with dotprod")
    }

    pub(super) fn handles(self, dtype: DType) -> bool {
        matches!(dtype, DType::Q4_0 | DType::Q8_0 | DType::IQ4_NL)
    }

    pub(super) fn matmul(self, job: Job<'_>, scratch: &mut Scratch) {
        match job.w.dtype() {
            DType::Q4_0 => self.blocks::<Q4_0>(job, scratch),
            DType::Q8_0 => self.blocks::<Q8_0>(job, scratch),
            DType::IQ4_NL => self.blocks::<IQ4NL>(job, scratch),
            other => unreachable!("no i8mm kernel for {other}"),
        }
    }

    fn blocks<F: Blocks>(self, job: Job<'_>, scratch: &mut Scratch) {
        // SAFETY: the token proves the features; `job` was checked.
        unsafe {
            if job.x.n <= DECODE_MAX {
                decode::matmul::<F>(job);
            } else {
                i8mm::matmul::<F>(job, scratch);
            }
        }
    }
}
