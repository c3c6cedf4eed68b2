//! Many tokens: strips of 16 weight rows are unpacked into panels, and tiles of up to 5 tokens × two
//! octets of rows run over them. See [`panel`](crate::kernels::panel) for the layouts.
//!
//! With 16 registers, 10 hold integer sums and the float sums stay in the first-level cache: they are
//! touched once a group.

use std::arch::x86_64::*;

use super::dot::Dot;
use super::strip::{At, OCTET, ROWS, Strip};
use crate::kernels::panel::{COUNTS, START};
use crate::kernels::sweep::{Sweep, Tile, sweep};
use crate::kernels::{Job, Scratch};

/// Tokens of a tile.
pub(super) const TOKENS: usize = 5;
/// How far ahead of its use a pack is asked for, in bytes.
const AHEAD: usize = 2048;

/// # Safety
/// The features of `D`; `job` holds what its documentation says and its weights are `F`'s.
pub(super) unsafe fn matmul<D: Dot, F: Strip>(job: Job<'_>, scratch: &mut Scratch) {
    let kernel = Sweep {
        shape: F::SHAPE,
        block_len: F::BLOCK_LEN,
        block_bytes: F::BLOCK_BYTES,
        tokens: TOKENS,
        strips: 1,
    };
    sweep(
        kernel,
        job,
        scratch,
        // SAFETY: passed on; there are that many groups in the rows and room for them in the panel.
        |at, groups, panel| unsafe { D::unpack::<F>(at, groups, panel) },
        // SAFETY: passed on; the tile is what its documentation says.
        |tile, tokens| unsafe {
            match tile.ask.is_open() {
                true => run::<D, F, true>(tile, tokens),
                false => run::<D, F, false>(tile, tokens),
            }
        },
    );
}

/// A tile of some tokens. `ASK`: is there something to ask for meanwhile? Where there is not, 16 registers are used
/// better without (3% of a prompt of 512 tokens).
///
/// # Safety
/// The features of `D`; the tile is what its documentation says.
unsafe fn run<D: Dot, F: Strip, const ASK: bool>(tile: Tile<'_>, tokens: usize) {
    // SAFETY: passed on.
    unsafe {
        match tokens {
            1 => D::tile::<F, 1, ASK>(tile),
            2 => D::tile::<F, 2, ASK>(tile),
            3 => D::tile::<F, 3, ASK>(tile),
            4 => D::tile::<F, 4, ASK>(tile),
            5 => D::tile::<F, 5, ASK>(tile),
            n => unreachable!("{n} tokens in a tile"),
        }
    }
}

/// # Safety
/// AVX2 and F16C; the rows hold `groups` groups, and there is room for them at `panel`.
#[inline(always)]
pub(super) unsafe fn unpack<F: Strip>(rows: At, groups: usize, panel: *mut u8) {
    let shape = F::SHAPE;
    for g in 0..groups {
        for octet in 0..2 {
            // SAFETY: the caller's promise.
            unsafe {
                let group = F::group(rows.below(octet * OCTET), g);
                let out = panel.add(g * shape.panel_bytes(ROWS)).add(octet * 4 * OCTET);
                for (i, q) in group.q.into_iter().take(shape.group / 4).enumerate() {
                    _mm256_store_si256(out.add(i * 4 * ROWS).cast(), q);
                }
                _mm256_store_ps(out.add(shape.group * ROWS).cast(), group.d);
                if shape.mins {
                    _mm256_store_ps(out.add((shape.group + 4) * ROWS).cast(), group.m);
                }
            }
        }
    }
}

/// # Safety
/// The features of `D`; `tile` is what its documentation says, of `T` tokens. What it asks for, only with `ASK`.
#[inline(always)]
pub(super) unsafe fn tile<D: Dot, F: Strip, const T: usize, const ASK: bool>(tile: Tile<'_>) {
    let Tile { mut panel, mut pack, far, groups, y, ld, rows, first, ask } = tile;
    let shape = F::SHAPE;
    let fours = shape.group / 4;
    let chain = D::chain(F::MAX).min(fours);
    // A number that the compiler does not know keeps it from unrolling the loop over them, which
    // would turn the sums into trees and spill the registers.
    let steps = std::hint::black_box(chain);
    // SAFETY: the caller has the features; the groups of the panel and of the pack have the fields of
    // their layouts; prefetching reads nothing, whatever the address.
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); 2]; T];
        for _ in 0..groups {
            let rest = pack.add(T * shape.group).cast::<i32>();
            let init = |t: usize| _mm256_set1_epi32(rest.add(T + t).read());
            let mut sum = [[D::start(F::MAX, START, || init(0)); 2]; T];
            for (t, sum) in sum.iter_mut().enumerate().skip(1) {
                *sum = [D::start(F::MAX, START, || init(t)); 2];
            }
            for part in 0..fours / chain {
                if part > 0 {
                    for sum in &mut sum {
                        *sum = [D::widen(sum[0]), D::widen(sum[1])];
                    }
                }
                for i in part * steps..(part + 1) * steps {
                    let w = panel.add(i * 4 * ROWS).cast::<__m256i>();
                    let low = D::weights(F::MAX, _mm256_load_si256(w));
                    let high = D::weights(F::MAX, _mm256_load_si256(w.add(1)));
                    for (t, sum) in sum.iter_mut().enumerate() {
                        let x = pack.add(t * shape.group + i * 4).cast::<i32>().read_unaligned();
                        let x = _mm256_set1_epi32(x);
                        sum[0] = D::add(F::MAX, sum[0], low, x);
                        sum[1] = D::add(F::MAX, sum[1], high, x);
                    }
                }
            }
            let d = panel.add(shape.group * ROWS).cast::<f32>();
            for half in 0..2 {
                let d = _mm256_load_ps(d.add(half * OCTET));
                let zero = _mm256_mul_ps(d, _mm256_set1_ps(COUNTS));
                for (t, acc) in acc.iter_mut().enumerate() {
                    let scale = _mm256_broadcast_ss(&*rest.add(t).cast::<f32>());
                    let v = _mm256_castsi256_ps(D::finish(F::MAX, sum[t][half], || init(t)));
                    acc[half] = _mm256_fmadd_ps(_mm256_fmsub_ps(v, d, zero), scale, acc[half]);
                }
            }
            if shape.mins {
                let m = panel.add((shape.group + 4) * ROWS).cast::<f32>();
                for (t, acc) in acc.iter_mut().enumerate() {
                    let minsum = _mm256_broadcast_ss(&*rest.add(2 * T + t).cast::<f32>());
                    for (half, acc) in acc.iter_mut().enumerate() {
                        let m = _mm256_load_ps(m.add(half * OCTET));
                        *acc = _mm256_fmadd_ps(m, minsum, *acc);
                    }
                }
            }
            if ASK {
                ask.step();
            }
            if far {
                for line in 0..shape.pack_bytes(T).div_ceil(64) {
                    let ahead = pack.wrapping_add(AHEAD + 64 * line);
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                }
            }
            panel = panel.add(shape.panel_bytes(ROWS));
            pack = pack.add(shape.pack_bytes(T));
        }
        for (t, acc) in acc.iter().enumerate() {
            let mut out = [0.0f32; ROWS];
            _mm256_storeu_ps(out.as_mut_ptr(), acc[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(OCTET), acc[1]);
            // SAFETY: `y` has `rows` results of this token.
            let y = std::slice::from_raw_parts_mut(y.add(t * ld), rows);
            for (y, out) in y.iter_mut().zip(out) {
                *y = if first { out } else { *y + out };
            }
        }
    }
}
