//! AVX2, and AVX-VNNI, which is AVX2 with a dot product. 256-bit registers, unsigned weights times
//! signed activations; what multiplies is one of the three types in [`dot`], everything else is
//! shared.
//!
//! The same three ways as in [`avx512`](super::avx512): one token row by row ([`decode`]), a few with
//! strips in registers ([`direct`]), many in tiles ([`prefill`]). A format is a zero-sized type with an
//! `impl` of [`decode::Lanes`] (or, with a scale every 16 weights, of [`sixteens::Sixteens`]) and one of
//! [`strip::Strip`], in a file of its own; `one_token` and `matmul` below make it known to both instruction sets. Floats have kernels of their own ([`float`]).

mod decode;
mod direct;
mod dot;
mod float;
mod iq4;
mod prefill;
mod q2_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5;
mod q6_k;
mod q8_0;
mod quantize;
mod sixteens;
mod strip;

use dot::{Dot, Evex, Maddubs, Vex};
use iq4::{IQ4NL, IQ4XS};
pub(super) use q2_k::{Q2K, Q3K, TwoBits};
use q4_0::Q4_0;
use q4_1::Q4_1;
use q4_k::{Q4K, Q5K};
use q5::{Q5_0, Q5_1};
use q6_k::Q6K;
pub(super) use q6_k::Q6K_ORDER;
use q8_0::Q8_0;

use super::isa::Encoding;
use super::{Avx2, AvxVnni, Job, Scratch};
use crate::DType;

/// The most tokens of a tile, and up to how many are not multiplied in tiles.
pub(super) const TILE: (usize, usize) = (prefill::TOKENS, direct::TOKENS);

impl Avx2 {
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
        // SAFETY: the token proves the features; `job` was checked.
        unsafe {
            if job.w.dtype().is_float() {
                float::matmul(self, job, scratch);
            } else {
                matmul::<Maddubs>(job, scratch);
            }
        }
    }
}

impl AvxVnni {
    pub(super) fn handles(self, dtype: DType) -> bool {
        !dtype.is_float()
    }

    pub(super) fn matmul(self, job: Job<'_>, scratch: &mut Scratch) {
        // SAFETY: the token proves the features of the encoding that it names; `job` was checked.
        unsafe {
            match self.encoding() {
                Encoding::Vex => matmul::<Vex>(job, scratch),
                Encoding::Evex => matmul::<Evex>(job, scratch),
            }
        }
    }
}

/// A format and how one token is multiplied with it.
trait OneToken: strip::Strip {
    /// # Safety
    /// The features of `D`; `job` holds what its documentation says, its weights are this format's and its
    /// tokens one.
    unsafe fn one_token<D: Dot>(job: Job<'_>, scratch: &mut Scratch);
}

macro_rules! one_token {
    ($($way:ident: $($format:ty),+;)+) => {
        $($(impl OneToken for $format {
            unsafe fn one_token<D: Dot>(job: Job<'_>, scratch: &mut Scratch) {
                // SAFETY: passed on.
                unsafe { D::$way::<$format>(job, scratch) }
            }
        })+)+
    };
}

one_token! {
    decode: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, IQ4NL, IQ4XS;
    sixteens: Q2K, Q3K, Q6K;
}

/// # Safety
/// The features of `D`; `job` holds what its documentation says, and blocks for weights.
unsafe fn matmul<D: Dot>(job: Job<'_>, scratch: &mut Scratch) {
    // SAFETY: passed on.
    unsafe {
        match job.w.dtype() {
            DType::Q4_0 => blocks::<D, Q4_0>(job, scratch),
            DType::Q4_1 => blocks::<D, Q4_1>(job, scratch),
            DType::Q5_0 => blocks::<D, Q5_0>(job, scratch),
            DType::Q5_1 => blocks::<D, Q5_1>(job, scratch),
            DType::Q8_0 => blocks::<D, Q8_0>(job, scratch),
            DType::Q2_K => blocks::<D, Q2K>(job, scratch),
            DType::Q3_K => blocks::<D, Q3K>(job, scratch),
            DType::Q4_K => blocks::<D, Q4K>(job, scratch),
            DType::Q5_K => blocks::<D, Q5K>(job, scratch),
            DType::Q6_K => blocks::<D, Q6K>(job, scratch),
            DType::IQ4_NL => blocks::<D, IQ4NL>(job, scratch),
            DType::IQ4_XS => blocks::<D, IQ4XS>(job, scratch),
            float @ (DType::F32 | DType::F16 | DType::BF16) => unreachable!("blocks of {float}"),
        }
    }
}

/// # Safety
/// The features of `D`; `job` holds what its documentation says and its weights are `F`'s.
unsafe fn blocks<D: Dot, F: OneToken>(job: Job<'_>, scratch: &mut Scratch) {
    // SAFETY: passed on.
    unsafe {
        match job.x.n {
            1 => F::one_token::<D>(job, scratch),
            2..=direct::TOKENS => direct::matmul::<D, F>(job, scratch),
            _ => prefill::matmul::<D, F>(job, scratch),
        }
    }
}
