//! AVX2, and AVX-VNNI, which is AVX2 with a dot product.

use super::{Avx2, AvxVnni, Job, Scratch, scalar};
use crate::DType;

impl Avx2 {
    pub(super) fn quantize(self, x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
        scalar::quantize(x, q, scale, sum);
    }

    pub(super) fn handles(self, _dtype: DType) -> bool {
        false
    }

    pub(super) fn matmul(self, job: Job<'_>, _scratch: &mut Scratch) {
        unreachable!("no AVX2 kernel for {}", job.w.dtype())
    }
}

impl AvxVnni {
    pub(super) fn handles(self, _dtype: DType) -> bool {
        false
    }

    pub(super) fn matmul(self, job: Job<'_>, _scratch: &mut Scratch) {
        unreachable!("no AVX-VNNI kernel for {}", job.w.dtype())
    }
}
