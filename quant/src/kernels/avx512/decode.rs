//! One token, or a few: every weight is read once, in the order of the file.
//!
//! Four blocks of 32 a step. Dword `4l + b` of a step's registers belongs to block `b`, so that the four
//! scales of the activations are one broadcast of 16 bytes. Bound by memory, so what matters is forward
//! streams ([`streams`](crate::kernels::streams)) and a prefetch some steps ahead, which simply runs on into
//! the next row.

#![allow(clippy::needless_range_loop)] // see `Dots::rows`

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::strip::Strip;
use crate::Matrix;
use crate::codec::QK;
use crate::kernels::panel::Layout;
use crate::kernels::prefetch::prefetch_stream;
use crate::kernels::streams::{Multiply, in_streams};
use crate::kernels::{Job, Rows, Scratch};

/// Blocks a step.
const STEP: usize = 4;

/// 4 × 32 weights, unsigned: value = (quant - offset) · d + m, see [`Shape`](crate::kernels::panel::Shape). Block `b` has the dwords `4l + b`.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Step {
    /// Dword `4l + b`: weights `4l .. 4l + 4` of block `b`.
    pub(super) lo: __m512i,
    /// Dword `4l + b`: weights `16 + 4l .. 16 + 4l + 4` of block `b`.
    pub(super) hi: __m512i,
    /// Element `b`: the scale of block `b`. Only the first four count.
    pub(super) d: __m512,
    /// Element `b`: the minimum of block `b`, where the format has them. Only the first four count.
    pub(super) m: __m512,
}

/// A format that can be read four blocks of 32 at a time.
pub(in crate::kernels) trait Lanes: Strip {
    /// Bytes that are read together.
    const BYTES: usize;
    /// Steps in those bytes.
    const PARTS: usize = 1;

    /// Step `part` of those at `p`.
    ///
    /// # Safety
    /// AVX-512 F, BW, DQ, VL and VNNI; `BYTES` bytes must be readable at `p`.
    unsafe fn step(p: *const u8, part: usize) -> Step;
}

/// The activations of one step, laid out like a [`Step`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Acts {
    lo: [[[i8; 4]; STEP]; 4],
    hi: [[[i8; 4]; STEP]; 4],
    scale: [f32; STEP],
    /// `-offset · Σ` of each block.
    init: [i32; STEP],
    /// scale · Σ of each block.
    minsum: [f32; STEP],
}

/// The most tokens: with more of them strips are faster ([`direct`](super::direct)).
pub(super) const TOKENS: usize = 4;

/// # Safety
/// AVX-512 F, BW, DQ, VL and VNNI; `job` holds what its documentation says, its weights are `F`'s and
/// its tokens one to `TOKENS`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn matmul<F: Lanes>(job: Job<'_>, scratch: &mut Scratch) {
    // SAFETY: passed on.
    unsafe {
        match job.x.n {
            1 => tokens::<F, 1>(job, scratch),
            2 => tokens::<F, 2>(job, scratch),
            3 => tokens::<F, 3>(job, scratch),
            4 => tokens::<F, 4>(job, scratch),
            n => unreachable!("{n} tokens at once"),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tokens<F: Lanes, const T: usize>(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, ld } = job;
    debug_assert_eq!(x.n, T);
    let acts = prepare::<F, T>(x, scratch);
    debug_assert_eq!(w.row_bytes() * STEP * F::PARTS, x.cols / QK * F::BYTES);
    // SAFETY: passed on.
    unsafe { in_streams::<Dots<F>, T>(w, rows, acts, y, ld) };
}

/// The products of rows of `F`. `acts` are as many steps as a row has.
struct Dots<F>(PhantomData<F>);

impl<F: Lanes, const T: usize> Multiply<T> for Dots<F> {
    type Acts = [Acts; T];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn rows<const N: usize>(
        w: Matrix<'_>,
        rows: [usize; N],
        acts: &[[Acts; T]],
    ) -> [[f32; N]; T] {
        const { assert!(F::BYTES <= 256) };
        // What is left holds less than a step, and nothing where steps come in parts.
        let (whole, rest) = acts.split_at(w.cols() / QK / STEP);
        debug_assert!(F::PARTS == 1 || rest.is_empty() && whole.len().is_multiple_of(F::PARTS));
        // By index: what goes over arrays by value goes through memory.
        let mut p = [std::ptr::null(); N];
        for i in 0..N {
            p[i] = w.row(rows[i]).as_ptr();
        }
        let mut acc = [[(_mm512_setzero_ps(), _mm_setzero_ps()); T]; N];
        for x in whole.chunks_exact(F::PARTS) {
            for i in 0..N {
                prefetch_stream::<N>(p[i], F::BYTES);
            }
            for (part, x) in x.iter().enumerate() {
                for i in 0..N {
                    // SAFETY: the row has these whole steps.
                    acc[i] = unsafe { step::<F, T>(p[i], part, x, acc[i]) };
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
                // SAFETY: `tail` holds a step; the blocks past the end are zero and so are their scales.
                acc[i] = unsafe { step::<F, T>(tail.as_ptr(), 0, x, acc[i]) };
            }
        }
        let mut sums = [[0.0; N]; T];
        for i in 0..N {
            for t in 0..T {
                let (all, mins) = acc[i][t];
                let all = _mm512_add_ps(all, _mm512_zextps128_ps512(mins));
                sums[t][i] = _mm512_reduce_add_ps(all);
            }
        }
        sums
    }
}

/// The sums of the products, and of the minimums, of a token.
type Acc = (__m512, __m128);

/// # Safety
/// See [`Lanes::step`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn step<F: Lanes, const T: usize>(
    p: *const u8,
    part: usize,
    x: &[Acts; T],
    mut acc: [Acc; T],
) -> [Acc; T] {
    // SAFETY: the caller's promise.
    let w = unsafe { F::step(p, part) };
    for t in 0..T {
        // SAFETY: passed on.
        acc[t] = unsafe { products::<F>(w, &x[t], acc[t]) };
    }
    acc
}

/// A step's weights with one token.
///
/// # Safety
/// AVX-512 F, BW, DQ, VL and VNNI.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn products<F: Lanes>(w: Step, x: &Acts, acc: Acc) -> Acc {
    // What is added once a block goes to the first of its dwords.
    const ONCE: __mmask16 = 0x000F;
    // SAFETY: the fields are of the sizes that are read, on boundaries of those sizes.
    let (lo, hi, scale, init, minsum) = unsafe {
        (
            _mm512_load_si512(x.lo.as_ptr().cast()),
            _mm512_load_si512(x.hi.as_ptr().cast()),
            _mm_load_ps(x.scale.as_ptr()),
            _mm_load_si128(x.init.as_ptr().cast()),
            _mm_load_ps(x.minsum.as_ptr()),
        )
    };
    // The scales are multiplied while they are four.
    let spread = |d: __m512| _mm512_broadcast_f32x4(_mm_mul_ps(_mm512_castps512_ps128(d), scale));
    let (mut acc, mut mins) = acc;
    let v = _mm512_dpbusd_epi32(_mm512_maskz_broadcast_i32x4(ONCE, init), w.lo, lo);
    let v = _mm512_dpbusd_epi32(v, w.hi, hi);
    acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(v), spread(w.d), acc);
    if F::SHAPE.mins {
        mins = _mm_fmadd_ps(_mm512_castps512_ps128(w.m), minsum, mins);
    }
    (acc, mins)
}

/// Where the dwords of `Acts::lo` and `Acts::hi` lie in four blocks: dword `4l + b` is the `l`-th of
/// the low or high half of block `b`.
const LO: [i32; 16] = places(0);
const HI: [i32; 16] = places(4);

const fn places(half: i32) -> [i32; 16] {
    let mut at = [0; 16];
    let mut i = 0;
    while i < 16 {
        at[i] = (i % STEP) as i32 * 8 + half + (i / STEP) as i32;
        i += 1;
    }
    at
}

/// Lays the activations out for [`step`], the last step padded with zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn prepare<'s, F: Lanes, const T: usize>(x: Rows<'_>, scratch: &'s mut Scratch) -> &'s [[Acts; T]] {
    let blocks = x.cols / QK;
    let steps = blocks.div_ceil(STEP);
    let layout = Layout { tile: 0, shape: F::SHAPE, tokens: (0, T), cols: x.cols };
    let (out, there) = scratch.pack.keep(layout, steps * size_of::<[Acts; T]>());
    let out = out.as_mut_ptr().cast::<[Acts; T]>();
    if there {
        // SAFETY: this very function wrote them, for the same activations.
        return unsafe { std::slice::from_raw_parts(out, steps) };
    }
    for (t, s) in (0..T).flat_map(|t| (0..steps).map(move |s| (t, s))) {
        let b = s * STEP;
        let n = STEP.min(blocks - b);
        let mut q = [0i8; STEP * QK];
        q[..n * QK].copy_from_slice(&x.q[t * x.cols + b * QK..][..n * QK]);
        let (mut scale, mut sum) = ([0.0f32; STEP], [0i32; STEP]);
        scale[..n].copy_from_slice(&x.scale[t * blocks + b..][..n]);
        sum[..n].copy_from_slice(&x.sum[t * blocks + b..][..n]);
        // SAFETY: the arrays are as long as what is read of them; `out` has room for `steps`, on
        // 64-byte boundaries, and each field of it is as long as what is written.
        unsafe {
            let a = _mm512_loadu_si512(q.as_ptr().cast());
            let b = _mm512_loadu_si512(q.as_ptr().add(64).cast());
            let dwords = |index: &[i32; 16]| {
                _mm512_permutex2var_epi32(a, _mm512_loadu_si512(index.as_ptr().cast()), b)
            };
            let scale = _mm_loadu_ps(scale.as_ptr());
            let sum = _mm_loadu_si128(sum.as_ptr().cast());
            let init = _mm_mullo_epi32(sum, _mm_set1_epi32(-F::SHAPE.offset));
            let minsum = _mm_mul_ps(scale, _mm_cvtepi32_ps(sum));
            let to = &raw mut (*out.add(s))[t];
            _mm512_store_si512((&raw mut (*to).lo).cast(), dwords(&LO));
            _mm512_store_si512((&raw mut (*to).hi).cast(), dwords(&HI));
            _mm_store_ps((&raw mut (*to).scale).cast(), scale);
            _mm_store_si128((&raw mut (*to).init).cast(), init);
            _mm_store_ps((&raw mut (*to).minsum).cast(), minsum);
        }
    }
    // SAFETY: all of them were just written.
    unsafe { std::slice::from_raw_parts(out, steps) }
}
