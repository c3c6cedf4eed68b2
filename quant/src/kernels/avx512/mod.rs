//! AVX-512 with VNNI.

use super::{Avx512Vnni, Job, Scratch, scalar};
use crate::DType;

impl Avx512Vnni {
    pub(super) fn quantize(self, x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
        scalar::quantize(x, q, scale, sum);
    }

    pub(super) fn handles(self, _dtype: DType) -> bool {
        false
    }

    pub(super) fn matmul(self, job: Job<'_>, _scratch: &mut Scratch) {
        unreachable!("no AVX-512 kernel for {}", job.w.dtype())
    }
}
