//! What multiplies unsigned with signed bytes, four products to a sum, in 256 bits.
//!
//! The bodies of the kernels are generic over [`Dot`] and always inlined; the functions of its `impl`s
//! are where the features are enabled, so that each body is compiled once for each of them.

use std::arch::x86_64::*;

use super::decode::{self, Lanes};
use super::direct::{self, Strips};
use super::prefill;
use super::sixteens::{self, Sixteens};
use super::strip::Strip;
use crate::kernels::sweep::Tile;
use crate::kernels::{Job, Scratch};

/// An instruction (or several) for int8 dot products, and the kernels compiled with it.
pub(super) trait Dot: Copy {
    /// The sum that one row octet and one token have so far, in whatever form.
    type Sum: Copy;

    /// `from`. `init` is `from` and what takes the place of the offset of quants up to `max`; the same must
    /// be given to [`Dot::finish`], and counts once.
    ///
    /// # Safety
    /// The features of the instruction, here and below.
    unsafe fn start(max: u8, from: i32, init: impl Fn() -> __m256i) -> Self::Sum;

    /// Prepares quants up to `max` for [`Dot::add`].
    unsafe fn weights(max: u8, w: __m256i) -> Weights;

    /// How many additions there may be, for quants up to `max`, between calls of [`Dot::widen`].
    fn chain(max: u8) -> usize;

    /// Adds `Σ w · x` for each four bytes.
    unsafe fn add(max: u8, s: Self::Sum, w: Weights, x: __m256i) -> Self::Sum;

    /// To be called after each [`Dot::chain`] additions but the last.
    unsafe fn widen(s: Self::Sum) -> Self::Sum;

    /// The sums, when all is added.
    unsafe fn finish(max: u8, s: Self::Sum, init: impl Fn() -> __m256i) -> __m256i;

    /// [`decode::rows`], compiled with the features.
    unsafe fn decode<F: Lanes>(job: Job<'_>, scratch: &mut Scratch);

    /// [`sixteens::rows`], compiled with the features.
    unsafe fn sixteens<F: Sixteens>(job: Job<'_>, scratch: &mut Scratch);

    /// [`direct::strips`], compiled with the features.
    unsafe fn direct<F: Strip, const T: usize>(strips: Strips<'_>);

    /// [`prefill::unpack`], compiled with the features.
    unsafe fn unpack<F: Strip>(rows: super::strip::At, groups: usize, panel: *mut u8);

    /// [`prefill::tile`], compiled with the features.
    unsafe fn tile<F: Strip, const T: usize, const ASK: bool>(tile: Tile<'_>);
}

/// Quants as [`Dot::weights`] made them.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    /// Unsigned: the quants or the magnitudes of the weights.
    magnitude: __m256i,
    /// Where the magnitudes are used: the weights.
    signed: __m256i,
}

/// The kernels of an `impl`, with the features.
macro_rules! kernels {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        unsafe fn decode<F: Lanes>(job: Job<'_>, scratch: &mut Scratch) {
            // SAFETY: passed on.
            unsafe { decode::rows::<Self, F>(job, scratch) }
        }

        #[target_feature(enable = $features)]
        unsafe fn sixteens<F: Sixteens>(job: Job<'_>, scratch: &mut Scratch) {
            // SAFETY: passed on.
            unsafe { sixteens::rows::<Self, F>(job, scratch) }
        }

        #[target_feature(enable = $features)]
        unsafe fn direct<F: Strip, const T: usize>(strips: Strips<'_>) {
            // SAFETY: passed on.
            unsafe { direct::strips::<Self, F, T>(strips) }
        }

        #[target_feature(enable = $features)]
        unsafe fn unpack<F: Strip>(rows: super::strip::At, groups: usize, panel: *mut u8) {
            // SAFETY: passed on.
            unsafe { prefill::unpack::<F>(rows, groups, panel) }
        }

        #[target_feature(enable = $features)]
        unsafe fn tile<F: Strip, const T: usize, const ASK: bool>(tile: Tile<'_>) {
            // SAFETY: passed on.
            unsafe { prefill::tile::<Self, F, T, ASK>(tile) }
        }
    };
}

/// `vpdpbusd` in either encoding.
macro_rules! vnni {
    ($(#[$doc:meta])* $name:ident, $features:literal, $dpbusd:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Dot for $name {
            type Sum = __m256i;

            #[inline(always)]
            unsafe fn start(_: u8, _: i32, init: impl Fn() -> __m256i) -> __m256i {
                init()
            }

            #[inline(always)]
            unsafe fn weights(_: u8, w: __m256i) -> Weights {
                Weights { magnitude: w, signed: w }
            }

            #[inline(always)]
            fn chain(_: u8) -> usize {
                usize::MAX
            }

            #[inline(always)]
            unsafe fn add(_: u8, s: __m256i, w: Weights, x: __m256i) -> __m256i {
                // SAFETY: passed on.
                unsafe { $dpbusd(s, w.magnitude, x) }
            }

            #[inline(always)]
            unsafe fn widen(s: __m256i) -> __m256i {
                s
            }

            #[inline(always)]
            unsafe fn finish(_: u8, s: __m256i, _: impl Fn() -> __m256i) -> __m256i {
                s
            }

            kernels!($features);
        }
    };
}

vnni!(
    /// AVX-VNNI.
    Vex, "avx2,fma,f16c,avxvnni", _mm256_dpbusd_avx_epi32
);
vnni!(
    /// The same instruction as AVX-512 VL has it.
    Evex, "avx2,fma,f16c,avx512vnni,avx512vl", _mm256_dpbusd_epi32
);

/// `vpmaddubsw`, which adds two products to 16 bits and saturates. So quants of up to 4 bits are
/// added in 16 bits eight times (8 · 2 · 15 · 127 < 2¹⁵) before they are widened, of 5 bits four
/// times, of 6 bits twice, of 7 bits once. For 8 bits the weights are made signed again and their
/// signs moved to the activations: 2 · 128 · 127 < 2¹⁵.
#[derive(Clone, Copy)]
pub(super) struct Maddubs;

impl Maddubs {
    /// Are quants up to `max` too large for a pair of products in 16 bits?
    const fn signed(max: u8) -> bool {
        max > 127
    }
}

impl Dot for Maddubs {
    /// In 16 bits, and in 32.
    type Sum = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn start(max: u8, from: i32, _: impl Fn() -> __m256i) -> Self::Sum {
        let from = if Self::signed(max) { from } else { 0 };
        // SAFETY: passed on.
        unsafe { (_mm256_setzero_si256(), _mm256_set1_epi32(from)) }
    }

    #[inline(always)]
    unsafe fn weights(max: u8, w: __m256i) -> Weights {
        if !Self::signed(max) {
            return Weights { magnitude: w, signed: w };
        }
        // SAFETY: passed on.
        unsafe {
            let signed = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
            Weights { magnitude: _mm256_abs_epi8(signed), signed }
        }
    }

    #[inline(always)]
    fn chain(max: u8) -> usize {
        if Self::signed(max) { usize::MAX } else { 32767 / (2 * 127 * max as usize) }
    }

    #[inline(always)]
    unsafe fn add(max: u8, (narrow, wide): Self::Sum, w: Weights, x: __m256i) -> Self::Sum {
        // SAFETY: passed on.
        unsafe {
            if Self::signed(max) {
                let product = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(x, w.signed));
                let product = _mm256_madd_epi16(product, _mm256_set1_epi16(1));
                return (narrow, _mm256_add_epi32(wide, product));
            }
            (_mm256_add_epi16(narrow, _mm256_maddubs_epi16(w.magnitude, x)), wide)
        }
    }

    #[inline(always)]
    unsafe fn widen((narrow, wide): Self::Sum) -> Self::Sum {
        // SAFETY: passed on.
        unsafe {
            let sum = _mm256_madd_epi16(narrow, _mm256_set1_epi16(1));
            (_mm256_setzero_si256(), _mm256_add_epi32(wide, sum))
        }
    }

    #[inline(always)]
    unsafe fn finish(max: u8, s: Self::Sum, init: impl Fn() -> __m256i) -> __m256i {
        let (narrow, wide) = s;
        if Self::signed(max) {
            return wide;
        }
        // SAFETY: passed on.
        unsafe {
            let (_, wide) = Self::widen((narrow, wide));
            _mm256_add_epi32(wide, init())
        }
    }

    kernels!("avx2,fma,f16c");
}
