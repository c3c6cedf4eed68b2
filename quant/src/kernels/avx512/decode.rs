//! Few tokens: every weight is read once, in the order of the file, and used for all of them.
//!
//! One row at a time, four blocks of 32 a step; the step's quants are spread so that the 128-bit lane
//! `i` of two registers holds the two halves of block `i`. Bound by memory, so what matters is one
//! forward stream a core and a prefetch some steps ahead, which simply runs on into the next row.

use std::arch::x86_64::*;

use crate::codec::QK;
use crate::kernels::{Job, Rows, Scratch};

/// Blocks a step.
const STEP: usize = 4;
/// How far ahead of the loads memory is asked for, in bytes.
const AHEAD: usize = 512;

/// 4 × 32 weights, unsigned: value = (quant - OFFSET) · d + m.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// Lane `i`: weights 0..16 of block `i`.
    pub(super) lo: __m512i,
    /// Lane `i`: weights 16..32 of block `i`.
    pub(super) hi: __m512i,
    /// Lane `i`: the scale of block `i`, four times.
    pub(super) d: __m512,
    /// Lane `i`: the minimum of block `i`; only its first element is used, and only where `MINS`.
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
    lo: [i8; 64],
    hi: [i8; 64],
    /// Lane `i`: `-OFFSET · Σ` of block `i` in the first element, else 0.
    init: [i32; 16],
    /// Lane `i`: the scale of block `i`, four times.
    scale: [f32; 16],
    /// Lane `i`: scale · Σ of block `i` in the first element, else 0.
    minsum: [f32; 16],
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
                step::<F, N>(F::step(p), &acts[s * N..][..N], &mut acc);
            }
        }
        if rest > 0 {
            let bytes = &w.row(r)[steps * F::BYTES..];
            tail[..bytes.len()].copy_from_slice(bytes);
            // SAFETY: `tail` holds a step; the blocks past the end are zero and so are their scales.
            unsafe { step::<F, N>(F::step(tail.as_ptr()), &acts[steps * N..][..N], &mut acc) };
        }
        for (t, acc) in acc.iter().enumerate() {
            y[t * ld + i] = _mm512_reduce_add_ps(*acc);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn step<F: Lanes, const N: usize>(w: Step, x: &[Acts], acc: &mut [__m512; N]) {
    for (x, acc) in x.iter().zip(acc) {
        // SAFETY: `Acts` is aligned lines.
        let (lo, hi, init, scale) = unsafe {
            (
                _mm512_load_si512(x.lo.as_ptr().cast()),
                _mm512_load_si512(x.hi.as_ptr().cast()),
                _mm512_load_si512(x.init.as_ptr().cast()),
                _mm512_load_ps(x.scale.as_ptr()),
            )
        };
        if F::MINS {
            // SAFETY: as above.
            let minsum = unsafe { _mm512_load_ps(x.minsum.as_ptr()) };
            *acc = _mm512_fmadd_ps(w.m, minsum, *acc);
        }
        let v = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(init, w.lo, lo), w.hi, hi);
        *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(v), _mm512_mul_ps(w.d, scale), *acc);
    }
}

/// Lays the activations out for [`step`]: `[steps][N]`, the last step padded with zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn prepare<'s, const N: usize>(x: Rows<'_>, offset: i32, scratch: &'s mut Scratch) -> &'s [Acts] {
    let blocks = x.cols / QK;
    let steps = blocks.div_ceil(STEP);
    let bytes = steps * N * size_of::<Acts>();
    let out = scratch.pack.at_least(bytes).as_mut_ptr().cast::<Acts>();
    for s in 0..steps {
        for t in 0..N {
            let mut a = Acts {
                lo: [0; 64],
                hi: [0; 64],
                init: [0; 16],
                scale: [0.0; 16],
                minsum: [0.0; 16],
            };
            for i in 0..STEP.min(blocks - s * STEP) {
                let b = t * blocks + s * STEP + i;
                a.lo[i * 16..][..16].copy_from_slice(&x.q[b * QK..][..16]);
                a.hi[i * 16..][..16].copy_from_slice(&x.q[b * QK + 16..][..16]);
                a.init[i * 4] = -offset * x.sum[b];
                a.scale[i * 4..][..4].fill(x.scale[b]);
                a.minsum[i * 4] = x.scale[b] * x.sum[b] as f32;
            }
            // SAFETY: `out` has room for `steps · N`, on 64-byte boundaries.
            unsafe { out.add(s * N + t).write(a) };
        }
    }
    // SAFETY: all of them were just written; `Acts` has no padding and any bytes are valid.
    unsafe { std::slice::from_raw_parts(out, steps * N) }
}
