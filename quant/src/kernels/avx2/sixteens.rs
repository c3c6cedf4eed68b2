//! One token, formats with a scale every 16 weights: a block of 256 a step, eight vectors of two sub-blocks.
//! As in [`decode`](super::decode), rows are read one by one or in streams.

#![allow(clippy::needless_range_loop)] // as in `decode`

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::dot::Dot;
use super::strip::Strip;
use crate::Matrix;
use crate::kernels::prefetch::prefetch_stream;
use crate::kernels::sixteens::{Acts, Order, SUBS, prepare};
use crate::kernels::streams::{Multiply, in_streams};
use crate::kernels::{Job, Scratch};

/// Pairs of vectors of a block.
const PAIRS: usize = 4;

/// A format of blocks of 256 weights with a scale every 16. Functions are to be `#[inline(always)]`.
pub(super) trait Sixteens: Strip {
    /// Place `4v + l`: the sub-block in lane `l` of pair `v`, the first vector's lanes first. Two that share a
    /// vector are in the same half of the block.
    const ORDER: Order;

    /// The stored quants of pair `v`, unsigned.
    ///
    /// # Safety
    /// AVX2 and F16C; a block must be readable at `p`.
    unsafe fn quants(p: *const u8, v: usize) -> [__m256i; 2];

    /// The scale of each sub-block, and what is added, where the format has minimums.
    ///
    /// # Safety
    /// As for [`Sixteens::quants`].
    unsafe fn scales(p: *const u8) -> ([__m256; 2], [__m256; 2]);
}

/// The f16 at `p`, in every lane.
///
/// # Safety
/// AVX2 and F16C; it must be readable.
#[inline(always)]
pub(super) unsafe fn f16(p: *const u8) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_cvtph_ps(_mm_set1_epi16(p.cast::<i16>().read_unaligned())) }
}

/// 16 bytes, signed, times `d`.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn times(bytes: __m128i, d: __m256) -> [__m256; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
        let high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)));
        [_mm256_mul_ps(low, d), _mm256_mul_ps(high, d)]
    }
}

/// # Safety
/// The features of `D`; `job` holds what its documentation says, its weights are `F`'s and its tokens
/// one.
#[inline(always)]
pub(super) unsafe fn rows<D: Dot, F: Sixteens>(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, .. } = job;
    let acts = prepare(x, F::SHAPE, &F::ORDER, scratch);
    assert_eq!(w.row_bytes(), acts.len() * F::BLOCK_BYTES);
    // SAFETY: passed on.
    unsafe { in_streams::<Dots<D, F>, 1>(w, rows, acts, y, 0) };
}

/// The products of rows of `F`. `acts` are as many blocks as a row has.
struct Dots<D, F>(PhantomData<(D, F)>);

impl<D: Dot, F: Sixteens> Multiply<1> for Dots<D, F> {
    type Acts = Acts;

    #[inline(always)]
    unsafe fn rows<const N: usize>(
        w: Matrix<'_>,
        rows: [usize; N],
        acts: &[Acts],
    ) -> [[f32; N]; 1] {
        // Pairs of sums of a row: with one row, its additions would wait for each other.
        let pairs = if N == 1 { 2 } else { 1 };
        // By index: what goes over arrays by value goes through memory.
        let mut p = [std::ptr::null(); N];
        for i in 0..N {
            p[i] = w.row(rows[i]).as_ptr();
        }
        let mut sums = [0.0; N];
        // SAFETY: the caller has the features; the rows have these blocks; the fields are vectors, on boundaries
        // of 32 bytes; prefetching reads nothing, whatever the address.
        unsafe {
            let mut acc = [[_mm256_setzero_ps(); 4]; N];
            for x in acts {
                for i in 0..N {
                    prefetch_stream::<N>(p[i], F::BLOCK_BYTES);
                }
                for i in 0..N {
                    let (mut scale, m) = F::scales(p[i]);
                    for half in 0..2 {
                        let of_x = _mm256_load_ps(x.scale[8 * half..].as_ptr());
                        scale[half] = _mm256_mul_ps(scale[half], of_x);
                        if F::SHAPE.mins {
                            let minsum = _mm256_load_ps(x.minsum[8 * half..].as_ptr());
                            acc[i][half] = _mm256_fmadd_ps(m[half], minsum, acc[i][half]);
                        }
                    }
                    for v in 0..PAIRS {
                        let q = F::quants(p[i], v);
                        for k in 0..2 {
                            let place = 4 * v + 2 * k;
                            let init = || _mm256_load_si256(x.init[place..].as_ptr().cast());
                            let of_x = _mm256_load_si256(x.q[place..].as_ptr().cast());
                            let s = D::start(F::MAX, 0, init);
                            let s = D::add(F::MAX, s, D::weights(F::MAX, q[k]), of_x);
                            let s = _mm256_cvtepi32_ps(D::finish(F::MAX, s, init));
                            let (half, lanes) = Spread::<F>::LANES[place / 2];
                            let lanes = _mm256_loadu_si256(lanes.as_ptr().cast());
                            let scale = _mm256_permutevar8x32_ps(scale[half], lanes);
                            let to = &mut acc[i][v % pairs * 2 + k];
                            *to = _mm256_fmadd_ps(s, scale, *to);
                        }
                    }
                }
                for i in 0..N {
                    p[i] = p[i].wrapping_add(F::BLOCK_BYTES);
                }
            }
            for i in 0..N {
                let [a, b, c, d] = acc[i];
                let s = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
                let s = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
                let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
                sums[i] = _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
            }
        }
        [sums]
    }
}

/// Where each element of a vector has its scale: in which half of them, and where there.
struct Spread<F>(PhantomData<F>);

impl<F: Sixteens> Spread<F> {
    const LANES: [(usize, [i32; 8]); SUBS / 2] = {
        let mut lanes = [(0, [0; 8]); SUBS / 2];
        let mut i = 0;
        while i < 8 * lanes.len() {
            let sub = F::ORDER[i / 4] as usize;
            assert!(i % 8 == 0 || lanes[i / 8].0 == sub / 8);
            lanes[i / 8].0 = sub / 8;
            lanes[i / 8].1[i % 8] = (sub % 8) as i32;
            i += 1;
        }
        lanes
    };
}
