//! One token: every weight is read once, four blocks of 32 a step, in the order of the file or in streams
//! ([`streams`](crate::kernels::streams)). Bound by memory, as in [`avx512`](crate::kernels::avx512).

#![allow(clippy::needless_range_loop)] // see `Dots::rows`

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::dot::Dot;
use super::strip::Strip;
use crate::Matrix;
use crate::codec::QK;
use crate::kernels::prefetch::prefetch_stream;
use crate::kernels::streams::{Multiply, in_streams};
use crate::kernels::{Job, Rows, Scratch};

/// Blocks a step.
const STEP: usize = 4;

/// 4 × 32 weights, unsigned: value = (quant - offset) · d + m.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// Of two blocks each, the weights 0..16 and 16..32; the first block is in the lower lane.
    pub(super) q: [(__m256i, __m256i); 2],
    /// The scales of the four blocks.
    pub(super) d: __m128,
    /// Their minimums, where the format has them.
    pub(super) m: __m128,
}

/// A format that can be read four blocks of 32 at a time.
pub(super) trait Lanes: Strip {
    /// Bytes that are read together.
    const BYTES: usize;
    /// Steps in those bytes.
    const PARTS: usize = 1;

    /// Step `part` of those at `p`. To be `#[inline(always)]`.
    ///
    /// # Safety
    /// AVX2 and F16C; `BYTES` bytes must be readable at `p`.
    unsafe fn step(p: *const u8, part: usize) -> Step;
}

/// The f16 scales of four blocks as f32.
///
/// # Safety
/// AVX2 and F16C.
#[inline(always)]
pub(super) unsafe fn halves(half: impl Fn(usize) -> u16) -> __m128 {
    let h = |b: usize| half(b) as i16;
    // SAFETY: the caller has F16C.
    unsafe { _mm_cvtph_ps(_mm_setr_epi16(h(0), h(1), h(2), h(3), 0, 0, 0, 0)) }
}

/// The activations of one step, laid out like a [`Step`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Acts {
    /// `[pair][lo, hi][block of the pair]`
    q: [[[[i8; 16]; 2]; 2]; 2],
    /// `[pair][block of the pair]`: `-offset · Σ`, and three zeros.
    init: [[[i32; 4]; 2]; 2],
    scale: [f32; STEP],
    /// scale · Σ of each block.
    minsum: [f32; STEP],
}

/// # Safety
/// The features of `D`; `job` holds what its documentation says, its weights are `F`'s and its tokens
/// one.
#[inline(always)]
pub(super) unsafe fn rows<D: Dot, F: Lanes>(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, .. } = job;
    debug_assert_eq!(x.n, 1);
    let acts = prepare::<F>(x, scratch);
    debug_assert_eq!(w.row_bytes() * STEP * F::PARTS, x.cols / QK * F::BYTES);
    // SAFETY: passed on.
    unsafe { in_streams::<Dots<D, F>, 1>(w, rows, acts, y, 0) };
}

/// The products of rows of `F`. `acts` are as many steps as a row has.
struct Dots<D, F>(PhantomData<(D, F)>);

impl<D: Dot, F: Lanes> Multiply<1> for Dots<D, F> {
    type Acts = Acts;

    #[inline(always)]
    unsafe fn rows<const N: usize>(
        w: Matrix<'_>,
        rows: [usize; N],
        acts: &[Acts],
    ) -> [[f32; N]; 1] {
        const { assert!(F::BYTES <= 256) };
        // What is left holds less than a step, and nothing where steps come in parts.
        let (whole, rest) = acts.split_at(w.cols() / QK / STEP);
        debug_assert!(F::PARTS == 1 || rest.is_empty() && whole.len().is_multiple_of(F::PARTS));
        // By index: what goes over arrays by value goes through memory.
        let mut p = [std::ptr::null(); N];
        for i in 0..N {
            p[i] = w.row(rows[i]).as_ptr();
        }
        let mut sums = [0.0; N];
        // SAFETY: the caller has the features. The rows have the whole steps that are read, `tail`
        // holds a step, whose blocks past the end are zero, as are their scales; prefetching reads
        // nothing, whatever the address.
        unsafe {
            let mut acc = [(_mm256_setzero_ps(), _mm256_setzero_ps(), _mm_setzero_ps()); N];
            for x in whole.chunks_exact(F::PARTS) {
                for i in 0..N {
                    prefetch_stream::<N>(p[i], F::BYTES);
                }
                for (part, x) in x.iter().enumerate() {
                    for i in 0..N {
                        acc[i] = step::<D, F>(p[i], part, x, acc[i]);
                    }
                }
                for i in 0..N {
                    p[i] = p[i].wrapping_add(F::BYTES);
                }
            }
            if let [x] = rest {
                let mut tail = [0u8; 256];
                for i in 0..N {
                    let bytes = &w.row(rows[i])[whole.len() / F::PARTS * F::BYTES..];
                    tail[..bytes.len()].copy_from_slice(bytes);
                    acc[i] = step::<D, F>(tail.as_ptr(), 0, x, acc[i]);
                }
            }
            for i in 0..N {
                let s = _mm256_add_ps(acc[i].0, acc[i].1);
                let s = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps::<1>(s));
                let s = _mm_add_ps(s, acc[i].2);
                let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
                sums[i] = _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
            }
        }
        [sums]
    }
}

/// Sums of the first pairs, of the second pairs, of the minimums.
type Acc = (__m256, __m256, __m128);

#[inline(always)]
unsafe fn step<D: Dot, F: Lanes>(p: *const u8, part: usize, x: &Acts, acc: Acc) -> Acc {
    // SAFETY: the caller has the features, and a step at `p`; the fields are of the sizes that are
    // read, on boundaries of those sizes.
    unsafe {
        let w = F::step(p, part);
        let scale = _mm_load_ps(x.scale.as_ptr());
        let (mut first, mut second, mut mins) = acc;
        let scale = _mm_mul_ps(w.d, scale);
        let a = pair::<D, F>(w.q[0], &x.q[0], &x.init[0]);
        let b = pair::<D, F>(w.q[1], &x.q[1], &x.init[1]);
        first = _mm256_fmadd_ps(a, spread::<0>(scale), first);
        second = _mm256_fmadd_ps(b, spread::<2>(scale), second);
        if F::SHAPE.mins {
            mins = _mm_fmadd_ps(w.m, _mm_load_ps(x.minsum.as_ptr()), mins);
        }
        (first, second, mins)
    }
}

/// Element `B` in the lower lane, `B + 1` in the upper.
#[inline(always)]
unsafe fn spread<const B: i32>(v: __m128) -> __m256 {
    // SAFETY: as in `step`.
    unsafe {
        let lanes = _mm256_setr_epi32(B, B, B, B, B + 1, B + 1, B + 1, B + 1);
        _mm256_permutevar8x32_ps(_mm256_castps128_ps256(v), lanes)
    }
}

/// The sums of two blocks, each in the four parts of a lane.
#[inline(always)]
unsafe fn pair<D: Dot, F: Lanes>(
    (lo, hi): (__m256i, __m256i),
    [xlo, xhi]: &[[[i8; 16]; 2]; 2],
    init: &[[i32; 4]; 2],
) -> __m256 {
    // SAFETY: as in `step`.
    unsafe {
        let init = || _mm256_load_si256(init.as_ptr().cast());
        let xlo = _mm256_load_si256(xlo.as_ptr().cast());
        let xhi = _mm256_load_si256(xhi.as_ptr().cast());
        let s = D::start(F::MAX, 0, init);
        let mut s = D::add(F::MAX, s, D::weights(F::MAX, lo), xlo);
        if D::chain(F::MAX) < 2 {
            s = D::widen(s);
        }
        let s = D::add(F::MAX, s, D::weights(F::MAX, hi), xhi);
        _mm256_cvtepi32_ps(D::finish(F::MAX, s, init))
    }
}

/// Lays the activations out for [`step`], the last step padded with zeros.
fn prepare<'s, F: Lanes>(x: Rows<'_>, scratch: &'s mut Scratch) -> &'s [Acts] {
    let blocks = x.cols / QK;
    let steps = blocks.div_ceil(STEP);
    let out = scratch.pack.at_least(steps * size_of::<Acts>()).as_mut_ptr().cast::<Acts>();
    let halves = x.q.as_chunks::<16>().0;
    for s in 0..steps {
        let mut a = Acts {
            q: [[[[0; 16]; 2]; 2]; 2],
            init: [[[0; 4]; 2]; 2],
            scale: [0.0; STEP],
            minsum: [0.0; STEP],
        };
        for i in 0..STEP.min(blocks - s * STEP) {
            let b = s * STEP + i;
            a.q[i / 2][0][i % 2] = halves[2 * b];
            a.q[i / 2][1][i % 2] = halves[2 * b + 1];
            a.init[i / 2][i % 2][0] = -F::SHAPE.offset * x.sum[b];
            a.scale[i] = x.scale[b];
            a.minsum[i] = x.scale[b] * x.sum[b] as f32;
        }
        // SAFETY: `out` has room for `steps`, on 64-byte boundaries.
        unsafe { out.add(s).write(a) };
    }
    // SAFETY: all of them were just written.
    unsafe { std::slice::from_raw_parts(out, steps) }
}
