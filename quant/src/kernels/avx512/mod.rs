//! AVX-512 with VNNI: 512-bit `vpdpbusd`, unsigned weights times signed activations.
//!
//! Up to [`DECODE_MAX`] tokens take the rows one by one, in the order in which they lie in the file
//! ([`decode`]); more take the tiles ([`prefill`]). A format is a zero-sized type with an `impl` of
//! [`decode::Lanes`] and one of [`prefill::Unpack`] in a file of its own; a line each in `handles`
//! and `matmul` below makes it known.

mod decode;
mod prefill;
mod q4_0;
mod q8_0;
mod quantize;

use q4_0::Q4_0;
use q8_0::Q8_0;

use super::{Avx512Vnni, Job, Scratch};
use crate::DType;

/// The most tokens for which reading the weights once, row by row, is the faster way.
const DECODE_MAX: usize = 8;

impl Avx512Vnni {
    pub(super) fn quantize(self, x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
        // SAFETY: the token proves the features.
        unsafe { quantize::quantize(x, q, scale, sum) }
    }

    pub(super) fn handles(self, dtype: DType) -> bool {
        matches!(dtype, DType::Q4_0 | DType::Q8_0)
    }

    pub(super) fn matmul(self, job: Job<'_>, scratch: &mut Scratch) {
        match job.w.dtype() {
            DType::Q4_0 => self.blocks::<Q4_0>(job, scratch),
            DType::Q8_0 => self.blocks::<Q8_0>(job, scratch),
            other => unreachable!("no AVX-512 kernel for {other}"),
        }
    }

    fn blocks<F: decode::Lanes + prefill::Unpack>(self, job: Job<'_>, scratch: &mut Scratch) {
        // SAFETY: the token proves the features; `job` was checked.
        unsafe {
            if job.x.n <= DECODE_MAX {
                decode::matmul::<F>(job, scratch);
            } else {
                prefill::matmul::<F>(job, scratch);
            }
        }
    }
}
