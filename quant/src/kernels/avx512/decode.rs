//! One token: every weight is read once, in the order of the file.
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

/// The activations of one step, laid out like a [`Step`].
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
/// its tokens one.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn matmul<F: Lanes>(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, .. } = job;
    debug_assert_eq!(x.n, 1);
    let acts = prepare(x, F::OFFSET, scratch);
    let blocks = x.cols / QK;
    let (whole, rest) = acts.split_at(blocks / STEP);
    debug_assert_eq!(w.row_bytes(), blocks * (F::BYTES / STEP));
    let mut tail = [0u8; 256];
    const { assert!(F::BYTES <= 256) };
    for (r, y) in rows.zip(y) {
        let row = w.row(r);
        let mut p = row.as_ptr();
        let mut acc = _mm512_setzero_ps();
        for x in whole {
            let ahead = p.wrapping_add(AHEAD).cast::<i8>();
            // SAFETY: the row has this whole step; prefetching reads nothing, whatever the address.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(ahead);
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64));
                if F::BYTES > 128 {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(128));
                }
                acc = step::<F>(F::step(p), x, acc);
            }
            p = p.wrapping_add(F::BYTES);
        }
        if let [x] = rest {
            let bytes = &row[whole.len() * F::BYTES..];
            tail[..bytes.len()].copy_from_slice(bytes);
            // SAFETY: `tail` holds a step; the blocks past the end are zero and so are their scales.
            acc = unsafe { step::<F>(F::step(tail.as_ptr()), x, acc) };
        }
        *y = _mm512_reduce_add_ps(acc);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn step<F: Lanes>(w: Step, x: &Acts, acc: __m512) -> __m512 {
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
    let v = _mm512_maskz_broadcast_i32x4(ONCE, init);
    let v = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(v, w.lo, lo), w.hi, hi);
    let scale = _mm512_mul_ps(w.d, _mm512_broadcast_f32x4(scale));
    let acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(v), scale, acc);
    if F::MINS {
        return _mm512_fmadd_ps(w.m, _mm512_maskz_broadcast_f32x4(ONCE, minsum), acc);
    }
    acc
}

/// Lays the activations out for [`step`], the last step padded with zeros.
fn prepare<'s>(x: Rows<'_>, offset: i32, scratch: &'s mut Scratch) -> &'s [Acts] {
    let blocks = x.cols / QK;
    let steps = blocks.div_ceil(STEP);
    let out = scratch.pack.at_least(steps * size_of::<Acts>()).as_mut_ptr().cast::<Acts>();
    let quads = x.q.as_chunks::<4>().0;
    for s in 0..steps {
        let mut a = Acts {
            lo: [[[0; 4]; STEP]; 4],
            hi: [[[0; 4]; STEP]; 4],
            scale: [0.0; STEP],
            init: [0; STEP],
            minsum: [0.0; STEP],
            unused: [0; 16],
        };
        for i in 0..STEP.min(blocks - s * STEP) {
            let b = s * STEP + i;
            for l in 0..4 {
                a.lo[l][i] = quads[b * 8 + l];
                a.hi[l][i] = quads[b * 8 + 4 + l];
            }
            a.scale[i] = x.scale[b];
            a.init[i] = -offset * x.sum[b];
            a.minsum[i] = x.scale[b] * x.sum[b] as f32;
        }
        // SAFETY: `out` has room for `steps`, on 64-byte boundaries.
        unsafe { out.add(s).write(a) };
    }
    // SAFETY: all of them were just written.
    unsafe { std::slice::from_raw_parts(out, steps) }
}
