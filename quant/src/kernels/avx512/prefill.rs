//! Many tokens: strips of 16 weight rows are unpacked into panels, and tiles of up to 13 tokens × 16
//! rows run over them. See [`panel`](crate::kernels::panel) for the layouts.
//!
//! A 512-bit load of the panel holds 4 consecutive weights of 16 rows, and each token contributes a
//! broadcast of its 4 activations: 8 products a block of 32, then two FMAs, one for each scale. They run
//! where the products do, so that 8 of 10 is the bound for formats with a scale every 32 weights.

use std::arch::x86_64::*;

use super::strip::{At, ROWS, Strip};
use crate::kernels::panel::COUNTS;
use crate::kernels::sweep::{Sweep, Tile, sweep};
use crate::kernels::{Job, Scratch};

/// Tokens of a tile: 2 × 13 accumulators leave 6 registers.
pub(super) const TOKENS: usize = 13;
/// How far ahead of its use a pack is asked for, in bytes.
const AHEAD: usize = 2048;

/// # Safety
/// AVX-512 F, BW, DQ, VL and VNNI; `job` holds what its documentation says and its weights are `F`'s.
pub(super) unsafe fn matmul<F: Strip>(job: Job<'_>, scratch: &mut Scratch) {
    let kernel = Sweep {
        shape: F::SHAPE,
        block_len: F::BLOCK_LEN,
        block_bytes: F::BLOCK_BYTES,
        tokens: TOKENS,
    };
    sweep(
        kernel,
        job,
        scratch,
        // SAFETY: passed on; there are that many groups in the rows and room for them in the panel.
        |at, groups, panel| unsafe { unpack::<F>(at, groups, panel) },
        // SAFETY: passed on; the tile is what its documentation says.
        |tile, tokens| unsafe { run::<F>(tile, tokens) },
    );
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn run<F: Strip>(tile: Tile, tokens: usize) {
    // SAFETY: passed on.
    unsafe {
        match tokens {
            1 => tile_kernel::<F, 1>(tile),
            2 => tile_kernel::<F, 2>(tile),
            3 => tile_kernel::<F, 3>(tile),
            4 => tile_kernel::<F, 4>(tile),
            5 => tile_kernel::<F, 5>(tile),
            6 => tile_kernel::<F, 6>(tile),
            7 => tile_kernel::<F, 7>(tile),
            8 => tile_kernel::<F, 8>(tile),
            9 => tile_kernel::<F, 9>(tile),
            10 => tile_kernel::<F, 10>(tile),
            11 => tile_kernel::<F, 11>(tile),
            12 => tile_kernel::<F, 12>(tile),
            13 => tile_kernel::<F, 13>(tile),
            n => unreachable!("{n} tokens in a tile"),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile_kernel<F: Strip, const T: usize>(tile: Tile) {
    let Tile { mut panel, mut pack, far, groups, y, ld, rows, first } = tile;
    let mask = (u32::MAX >> (32 - rows)) as __mmask16;
    let shape = F::SHAPE;
    for t in 0..T {
        _mm_prefetch::<_MM_HINT_T0>(y.wrapping_add(t * ld).cast());
    }
    let mut acc = [_mm512_setzero_ps(); T];
    for _ in 0..groups {
        // SAFETY: this group of the panel and of the pack is there, with the fields of its layout.
        unsafe {
            let rest = pack.add(T * shape.group).cast::<i32>();
            let mut sum = [_mm512_setzero_si512(); T];
            for (t, sum) in sum.iter_mut().enumerate() {
                *sum = _mm512_set1_epi32(rest.add(T + t).read());
            }
            for g in 0..shape.group / 4 {
                let w = _mm512_load_si512(panel.add(g * 4 * ROWS).cast());
                for (t, sum) in sum.iter_mut().enumerate() {
                    let x = pack.add(t * shape.group + g * 4).cast::<i32>().read_unaligned();
                    *sum = _mm512_dpbusd_epi32(*sum, w, _mm512_set1_epi32(x));
                }
            }
            let d = _mm512_load_ps(panel.add(shape.group * ROWS).cast());
            let zero = _mm512_mul_ps(d, _mm512_set1_ps(COUNTS));
            for t in 0..T {
                let scale = _mm512_set1_ps(rest.add(t).cast::<f32>().read());
                let v = _mm512_fmsub_ps(_mm512_castsi512_ps(sum[t]), d, zero);
                acc[t] = _mm512_fmadd_ps(v, scale, acc[t]);
                // No instruction: `v` is wanted once more, so that the compiler does not put the sum in
                // its place, which takes a move back every time around.
                std::arch::asm!("/* {} */", in(zmm_reg) v, options(nomem, nostack, preserves_flags));
            }
            if shape.mins {
                let m = _mm512_load_ps(panel.add((shape.group + 4) * ROWS).cast());
                for (t, acc) in acc.iter_mut().enumerate() {
                    let minsum = _mm512_set1_ps(rest.add(2 * T + t).cast::<f32>().read());
                    *acc = _mm512_fmadd_ps(m, minsum, *acc);
                }
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
    }
    for (t, acc) in acc.into_iter().enumerate() {
        // SAFETY: see `Tile::y`.
        unsafe {
            let y = y.add(t * ld);
            // At the end: then they have arrived.
            let before = if first { _mm512_setzero_ps() } else { _mm512_maskz_loadu_ps(mask, y) };
            _mm512_mask_storeu_ps(y, mask, _mm512_add_ps(before, acc));
        }
    }
}

/// Unpacks the first `groups` groups of each row at `rows`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn unpack<F: Strip>(rows: At, groups: usize, panel: *mut u8) {
    let shape = F::SHAPE;
    for g in 0..groups {
        // SAFETY: the rows hold that many groups, and there is room for them in the panel.
        unsafe {
            let group = F::group(rows, g);
            let out = panel.add(g * shape.panel_bytes(ROWS));
            for (i, q) in group.q.into_iter().take(shape.group / 4).enumerate() {
                _mm512_store_si512(out.add(i * 4 * ROWS).cast(), q);
            }
            _mm512_store_ps(out.add(shape.group * ROWS).cast(), group.d);
            if shape.mins {
                _mm512_store_ps(out.add((shape.group + 4) * ROWS).cast(), group.m);
            }
        }
    }
}
