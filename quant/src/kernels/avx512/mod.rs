//! AVX-512 with VNNI: 512-bit `vpdpbusd`, unsigned weights times signed activations.
//!
//! One token takes the rows one by one, in the order in which they lie in the file ([`decode`]). More
//! take strips of 16 rows: a few tokens multiply them as they are unpacked, in registers ([`direct`]);
//! many run over them in tiles, unpacked to the cache ([`prefill`]).
//!
//! A format is a zero-sized type with an `impl` of [`decode::Lanes`] and one of [`strip::Strip`], in a
//! file of its own; a line each in `handles` and `matmul` below makes it known.

mod decode;
mod direct;
mod prefill;
mod q4_0;
mod q8_0;
mod quantize;
mod strip;

use q4_0::Q4_0;
use q8_0::Q8_0;

use super::{Avx512Vnni, Job, Scratch};
use crate::DType;

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

    fn blocks<F: decode::Lanes + strip::Strip>(self, job: Job<'_>, scratch: &mut Scratch) {
        // SAFETY: the token proves the features; `job` was checked.
        unsafe {
            match job.x.n {
                1 => decode::matmul::<F>(job, scratch),
                2..=direct::TOKENS => direct::matmul::<F>(job, scratch),
                _ => prefill::matmul::<F>(job, scratch),
            }
        }
    }
}
