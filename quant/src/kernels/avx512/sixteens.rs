//! One token, formats with a scale every 16 weights: a block of 256 a step, four vectors of four sub-blocks.
//! As in [`decode`](super::decode), rows are read one by one or in streams.

#![allow(clippy::needless_range_loop)] // as in `decode`

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::strip::Strip;
use crate::Matrix;
use crate::kernels::prefetch::prefetch_stream;
use crate::kernels::sixteens::{Acts, Order, prepare};
use crate::kernels::streams::{Multiply, in_streams};
use crate::kernels::{Job, Scratch};

/// Vectors of a block.
const VECTORS: usize = 4;

/// A format of blocks of 256 weights with a scale every 16.
pub(in crate::kernels) trait Sixteens: Strip {
    /// Place `4v + l`: the sub-block in lane `l` of vector `v`.
    const ORDER: Order;

    /// The stored quants of vector `v`, unsigned.
    ///
    /// # Safety
    /// AVX-512 F, BW, DQ, VL and VNNI; a block must be readable at `p`.
    unsafe fn quants(p: *const u8, v: usize) -> __m512i;

    /// The scale of each sub-block, and what is added, where the format has minimums.
    ///
    /// # Safety
    /// As for [`Sixteens::quants`].
    unsafe fn scales(p: *const u8) -> (__m512, __m512);
}

/// The f16 at `p`, in every lane.
///
/// # Safety
/// It must be readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn f16(p: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    let half = unsafe { p.cast::<i16>().read_unaligned() };
    _mm512_cvtph_ps(_mm256_set1_epi16(half))
}

/// The most tokens.
pub(super) const TOKENS: usize = 1;

/// # Safety
/// AVX-512 F, BW, DQ, VL and VNNI; `job` holds what its documentation says, its weights are `F`'s and
/// its tokens one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn matmul<F: Sixteens>(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, .. } = job;
    let acts = prepare(x, F::SHAPE, &F::ORDER, scratch);
    assert_eq!(w.row_bytes(), acts.len() * F::BLOCK_BYTES);
    // SAFETY: passed on.
    unsafe { in_streams::<Dots<F>, 1>(w, rows, acts, y, 0) };
}

/// The products of rows of `F`. `acts` are as many blocks as a row has.
struct Dots<F>(PhantomData<F>);

impl<F: Sixteens> Multiply<1> for Dots<F> {
    type Acts = Acts;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn rows<const N: usize>(
        w: Matrix<'_>,
        rows: [usize; N],
        acts: &[Acts],
    ) -> [[f32; N]; 1] {
        // Sums of a row: with one row, its additions would wait for each other.
        let sums = if N == 1 { VECTORS } else { 1 };
        // By index: what goes over arrays by value goes through memory.
        let mut p = [std::ptr::null(); N];
        for i in 0..N {
            p[i] = w.row(rows[i]).as_ptr();
        }
        let mut acc = [[_mm512_setzero_ps(); VECTORS]; N];
        for x in acts {
            for i in 0..N {
                prefetch_stream::<N>(p[i], F::BLOCK_BYTES);
            }
            for i in 0..N {
                // SAFETY: the row has this block; the fields are vectors, on boundaries of 64 bytes.
                unsafe {
                    let (d, m) = F::scales(p[i]);
                    let scale = _mm512_mul_ps(d, _mm512_load_ps(x.scale.as_ptr()));
                    if F::SHAPE.mins {
                        let minsum = _mm512_load_ps(x.minsum.as_ptr());
                        acc[i][0] = _mm512_fmadd_ps(m, minsum, acc[i][0]);
                    }
                    for v in 0..VECTORS {
                        let init = match F::SHAPE.mins {
                            true => _mm512_setzero_si512(),
                            false => _mm512_load_si512(x.init[4 * v..].as_ptr().cast()),
                        };
                        let q = _mm512_load_si512(x.q[4 * v..].as_ptr().cast());
                        let sum = _mm512_dpbusd_epi32(init, F::quants(p[i], v), q);
                        let lanes = _mm512_loadu_si512(Spread::<F>::LANES[v].as_ptr().cast());
                        let scale = _mm512_permutexvar_ps(lanes, scale);
                        let to = &mut acc[i][v % sums];
                        *to = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, *to);
                    }
                }
            }
            for i in 0..N {
                p[i] = p[i].wrapping_add(F::BLOCK_BYTES);
            }
        }
        let mut out = [0.0; N];
        for i in 0..N {
            let [a, b, c, d] = acc[i];
            let sum = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d));
            out[i] = _mm512_reduce_add_ps(sum);
        }
        [out]
    }
}

/// Where each element of a vector has its scale.
struct Spread<F>(PhantomData<F>);

impl<F: Sixteens> Spread<F> {
    const LANES: [[i32; 16]; VECTORS] = {
        let mut lanes = [[0; 16]; VECTORS];
        let mut i = 0;
        while i < 16 * VECTORS {
            lanes[i / 16][i % 16] = F::ORDER[i / 4] as i32;
            i += 1;
        }
        lanes
    };
}
