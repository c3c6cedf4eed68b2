//! AVX-512 with VNNI: 512-bit `vpdpbusd`, unsigned weights times signed activations.
//!
//! One token takes the rows one by one, in the order in which they lie in the file, and on a Zen 5 so do up to
//! four ([`decode`]). More take strips of 16 rows: a few tokens multiply them as they are unpacked, in registers
//! ([`direct`]); many run over them in tiles, unpacked to the cache ([`prefill`]).
//!
//! A format is a zero-sized type with an `impl` of [`decode::Lanes`] (or, with a scale every 16 weights, of
//! [`sixteens::Sixteens`]) and one of [`strip::Strip`], in a file of its own; `by_rows` and `with_format` below
//! make it known.

mod decode;
mod direct;
mod float;
mod iq4;
mod k_scales;
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
mod words;

pub(super) use iq4::{IQ4NL, IQ4XS};
pub(super) use q4_0::Q4_0;
pub(super) use q4_1::Q4_1;
pub(super) use q4_k::{Q4K, Q5K};
pub(super) use q5::{Q5_0, Q5_1};
pub(super) use q6_k::Q6K;
pub(super) use q8_0::Q8_0;

pub(super) use strip::Strip;

pub(super) use super::avx2::{Q2K, Q3K};
use super::panel::Shape;
use super::{Avx512Vnni, Job, Scratch};
use crate::DType;

/// A format and how the fewest tokens are multiplied with it.
trait ByRows: Strip {
    /// So many at most.
    const TOKENS: usize;

    /// # Safety
    /// AVX-512 F, BW, DQ, VL and VNNI; `job` holds what its documentation says, its weights are this
    /// format's and its tokens one to [`ByRows::TOKENS`].
    unsafe fn by_rows(job: Job<'_>, scratch: &mut Scratch);
}

macro_rules! by_rows {
    ($($way:ident: $($format:ty),+;)+) => {
        $($(impl ByRows for $format {
            const TOKENS: usize = $way::TOKENS;

            unsafe fn by_rows(job: Job<'_>, scratch: &mut Scratch) {
                // SAFETY: passed on.
                unsafe { $way::matmul::<$format>(job, scratch) }
            }
        })+)+
    };
}

by_rows! {
    decode: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, IQ4NL, IQ4XS;
    sixteens: Q2K, Q3K, Q6K;
}

/// Evaluates an expression with the format of a type of blocks.
macro_rules! with_format {
    ($dtype:expr, $f:ident => $body:expr) => {
        $crate::kernels::avx512::with_format!(@ $dtype, $f, $body, [
            Q4_0: Q4_0, Q4_1: Q4_1, Q5_0: Q5_0, Q5_1: Q5_1, Q8_0: Q8_0,
            Q2_K: Q2K, Q3_K: Q3K, Q4_K: Q4K, Q5_K: Q5K, Q6_K: Q6K, IQ4_NL: IQ4NL, IQ4_XS: IQ4XS
        ])
    };
    (@ $dtype:expr, $f:ident, $body:expr, [$($name:ident: $format:ident),+]) => {
        match $dtype {
            $crate::DType::F32 | $crate::DType::F16 | $crate::DType::BF16 => {
                unreachable!("floats have no blocks")
            }
            $($crate::DType::$name => {
                type $f = $crate::kernels::avx512::$format;
                $body
            })+
        }
    };
}
pub(super) use with_format;

impl Avx512Vnni {
    /// The most tokens of a tile, and up to how many are not multiplied in tiles.
    pub(super) fn tile(self) -> (usize, usize) {
        (prefill::tokens(self.tiling()), direct::TOKENS)
    }

    pub(super) fn quantize(self, x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
        // SAFETY: the token proves the features.
        unsafe { quantize::quantize(x, q, scale, sum) }
    }

    /// As [`Kernels::quantize_packed`](super::Kernels::quantize_packed), as far as it goes: the number of
    /// blocks that were done.
    pub(super) fn quantize_packed(
        self,
        x: &[f32],
        shape: Shape,
        t: (usize, usize),
        out: &mut [u8],
    ) -> usize {
        // SAFETY: the token proves the features.
        unsafe { quantize::packed(x, shape, t, out) }
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
            // SAFETY: the token proves the features.
            DType::F32 | DType::F16 | DType::BF16 => unsafe { float::matmul(self, job, scratch) },
            _ => with_format!(job.w.dtype(), F => self.blocks::<F>(job, scratch)),
        }
    }

    fn blocks<F: ByRows>(self, job: Job<'_>, scratch: &mut Scratch) {
        // SAFETY: the token proves the features; `job` was checked.
        unsafe {
            match job.x.n {
                1 => F::by_rows(job, scratch),
                n if n <= F::TOKENS && self.tiling().has_rows_for_few() => F::by_rows(job, scratch),
                n if n <= direct::TOKENS => direct::matmul::<F>(job, scratch),
                _ => prefill::matmul::<F>(self.tiling(), job, scratch),
            }
        }
    }
}
