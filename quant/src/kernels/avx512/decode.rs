//! Few tokens: every weight is read once, in the order of the file, and used for all of them.
//!
//! One row at a time, four blocks of 32 a step. Dword `4l + b` of a step's registers belongs to block
//! `b`, so that the four scales of the activations are one broadcast of 16 bytes. Bound by memory, so
//! what matters is one forward stream a core and a prefetch some steps ahead, which simply runs on
//! into the next row.

use std::arch::x86_64::*;

use crate::codec::QK;
use crate::kernels::{Job, Rows, Scratch};

/// Blocks a step.
const STEP: usize = 4;
/// How far ahead of the loads memory is asked for, in bytes.
const AHEAD: usize = 512;

/// 4 × 32 weights, unsigned: value = (quant - OFFSET) · d + m. Block `b` has the dwords `4l + b`.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// Dword `4l + b`: weights `4l .. 4l + 4` of block `b`.
    pub(super) lo: __m512i,
    /// Dword `4l + b`: weights `16 + 4l .. 16 + 4l + 4` of block `b`.
    pub(super) hi: __m512i,
    /// Dword `4l + b`: the scale of block `b`.
    pub(super) d: __m512,
    /// Dword `b`: the minimum of block `b`; the others are not used, and none where not `MINS`.
    pub(super) m: __m512,
}

/// A format that can be read four blocks of 32 at a time.
pub(super) trait Lanes {
    /// What was added to the weights to make them unsigned.
    const OFFSET: i32;
    /// Is `Step::m` used?
    const MINS: bool;
    /// Bytes of a step.
    const BYTES: usize;

    /// # Safety
    /// AVX-512 F, BW, DQ, VL and VNNI; `BYTES` bytes must be readable at `p`.
    unsafe fn step(p: *const u8) -> Step;
}

/// The activations of one step of one token, laid out like a [`Step`].
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Acts {
    lo: [[[i8; 4]; STEP]; 4],
    hi: [[[i8; 4]; STEP]; 4],
    scale: [f32; STEP],
    /// `-OFFSET · Σ` of each block.
    init: [i32; STEP],
    /// scale · Σ of each block.
    minsum: [f32; STEP],
    unused: [u8; 16],
}

/// # Safety
/// AVX-512 F, BW, DQ, VL and VNNI; `job` holds what its documentation says, its weights are `F`'s and
/// at most 8 tokens are asked for.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn matmul<F: Lanes>(job: Job<'_>, scratch: &mut Scratch) {
    // SAFETY: passed on.
    unsafe {
        match job.x.n {
            1 => rows::<F, 1>(job, scratch),
            2 => rows::<F, 2>(job, scratch),
            3 => rows::<F, 3>(job, scratch),
            4 => rows::<F, 4>(job, scratch),
            5 => rows::<F, 5>(job, scratch),
            6 => rows::<F, 6>(job, scratch),
            7 => rows::<F, 7>(job, scratch),
            8 => rows::<F, 8>(job, scratch),
            n => unreachable!("{n} tokens a row"),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn rows<F: Lanes, const N: usize>(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, ld } = job;
    let acts = prepare::<N>(x, F::OFFSET, scratch);
    let blocks = x.cols / QK;
    let (steps, rest) = (blocks / STEP, blocks % STEP);
    let block_bytes = F::BYTES / STEP;
    debug_assert_eq!(w.row_bytes(), blocks * block_bytes);
    let mut tail = [0u8; 1024];
    assert!(F::BYTES <= tail.len());
    for (i, r) in rows.enumerate() {
        let row = w.row(r).as_ptr();
        let mut acc = [_mm512_setzero_ps(); N];
        for s in 0..steps {
            // SAFETY: the row has `steps` whole steps; prefetching touches no memory.
            unsafe {
                let p = row.add(s * F::BYTES);
                let ahead = p.wrapping_add(AHEAD).cast();
                _mm_prefetch::<_MM_HINT_T0>(ahead);
                if F::BYTES > 64 {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64));
                }
                step::<F, N>(F::step(p), &acts[s], &mut acc);
            }
        }
        if rest > 0 {
            let bytes = &w.row(r)[steps * F::BYTES..];
            tail[..bytes.len()].copy_from_slice(bytes);
            // SAFETY: `tail` holds a step; the blocks past the end are zero and so are their scales.
            unsafe { step::<F, N>(F::step(tail.as_ptr()), &acts[steps], &mut acc) };
        }
        for (t, acc) in acc.iter().enumerate() {
            y[t * ld + i] = _mm512_reduce_add_ps(*acc);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn step<F: Lanes, const N: usize>(w: Step, x: &[Acts; N], acc: &mut [__m512; N]) {
    // What is added once a block goes to the first of its dwords.
    const ONCE: __mmask16 = 0x000F;
    for t in 0..N {
        let (x, acc) = (&x[t], &mut acc[t]);
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
        if F::MINS {
            *acc = _mm512_fmadd_ps(w.m, _mm512_maskz_broadcast_f32x4(ONCE, minsum), *acc);
        }
        let v = _mm512_maskz_broadcast_i32x4(ONCE, init);
        let v = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(v, w.lo, lo), w.hi, hi);
        let scale = _mm512_mul_ps(w.d, _mm512_broadcast_f32x4(scale));
        *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(v), scale, *acc);
    }
}

/// Lays the activations out for [`step`]: `[steps][N]`, the last step padded with zeros.
fn prepare<'s, const N: usize>(
    x: Rows<'_>,
    offset: i32,
    scratch: &'s mut Scratch,
) -> &'s [[Acts; N]] {
    let blocks = x.cols / QK;
    let steps = blocks.div_ceil(STEP);
    let bytes = steps * N * size_of::<Acts>();
    let out = scratch.pack.at_least(bytes).as_mut_ptr().cast::<Acts>();
    let quads = x.q.as_chunks::<4>().0;
    for s in 0..steps {
        for t in 0..N {
            let mut a = Acts {
                lo: [[[0; 4]; STEP]; 4],
                hi: [[[0; 4]; STEP]; 4],
                scale: [0.0; STEP],
                init: [0; STEP],
                minsum: [0.0; STEP],
                unused: [0; 16],
            };
            for i in 0..STEP.min(blocks - s * STEP) {
                let b = t * blocks + s * STEP + i;
                for l in 0..4 {
                    a.lo[l][i] = quads[b * 8 + l];
                    a.hi[l][i] = quads[b * 8 + 4 + l];
                }
                a.scale[i] = x.scale[b];
                a.init[i] = -offset * x.sum[b];
                a.minsum[i] = x.scale[b] * x.sum[b] as f32;
            }
            // SAFETY: `out` has room for `steps · N`, on 64-byte boundaries.
            unsafe { out.add(s * N + t).write(a) };
        }
    }
    // SAFETY: all of them were just written.
    unsafe { std::slice::from_raw_parts(out.cast(), steps) }
}
