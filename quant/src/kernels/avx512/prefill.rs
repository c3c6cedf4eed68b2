//! Many tokens: strips of 16 weight rows are unpacked into panels, and tiles of up to 13 tokens × 16
//! rows or 6 tokens × 32 rows run over them. See [`panel`](crate::kernels::panel) for the layouts.
//!
//! A 512-bit load of the panel holds 4 consecutive weights of 16 rows, and each token contributes a
//! broadcast of its 4 activations: 8 products a block of 32, then two FMAs, one for each scale. They run
//! where the products do, so that 8 of 10 is the bound for formats with a scale every 32 weights.
//!
//! With one strip each broadcast is an operand of its product, 117 reads for 96 products. Where a core reads
//! no faster than it multiplies that is the tighter bound, and two strips that share broadcasts read 80 times
//! ([`Tiling`]). Either way a result is the same sum, in the same order.

use std::arch::x86_64::*;

use super::strip::{At, ROWS, Strip};
use crate::kernels::isa::Tiling;
use crate::kernels::panel::COUNTS;
use crate::kernels::sweep::{Sweep, Tile, sweep};
use crate::kernels::{Job, Scratch};

/// How far ahead of its use a pack is asked for, in bytes.
const AHEAD: usize = 2048;

/// The most tokens of a tile: 2 × 13 accumulators leave 6 registers of 32, 2 × 2 × 6 leave 8.
pub(super) const fn tokens(tiling: Tiling) -> usize {
    match tiling {
        Tiling::OneStrip => 13,
        Tiling::TwoStrips => 6,
    }
}

/// # Safety
/// AVX-512 F, BW, DQ, VL and VNNI; `job` holds what its documentation says and its weights are `F`'s.
pub(super) unsafe fn matmul<F: Strip>(tiling: Tiling, job: Job<'_>, scratch: &mut Scratch) {
    let kernel = Sweep {
        shape: F::SHAPE,
        block_len: F::BLOCK_LEN,
        block_bytes: F::BLOCK_BYTES,
        tokens: tokens(tiling),
        strips: match tiling {
            Tiling::OneStrip => 1,
            Tiling::TwoStrips => 2,
        },
    };
    sweep(
        kernel,
        job,
        scratch,
        // SAFETY: passed on; there are that many groups in the rows and room for them in the panel.
        |at, groups, panel| unsafe { unpack::<F>(at, groups, panel) },
        // SAFETY: passed on; the tile is what its documentation says.
        |tile, tokens| unsafe {
            match tile.rows > ROWS {
                true => run_two::<F>(tile, tokens),
                false => run::<F>(tile, tokens),
            }
        },
    );
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn run<F: Strip>(tile: Tile<'_>, tokens: usize) {
    // SAFETY: passed on.
    unsafe {
        match tokens {
            1 => tile_kernel::<F, 1, 1>(tile),
            2 => tile_kernel::<F, 2, 1>(tile),
            3 => tile_kernel::<F, 3, 1>(tile),
            4 => tile_kernel::<F, 4, 1>(tile),
            5 => tile_kernel::<F, 5, 1>(tile),
            6 => tile_kernel::<F, 6, 1>(tile),
            7 => tile_kernel::<F, 7, 1>(tile),
            8 => tile_kernel::<F, 8, 1>(tile),
            9 => tile_kernel::<F, 9, 1>(tile),
            10 => tile_kernel::<F, 10, 1>(tile),
            11 => tile_kernel::<F, 11, 1>(tile),
            12 => tile_kernel::<F, 12, 1>(tile),
            13 => tile_kernel::<F, 13, 1>(tile),
            n => unreachable!("{n} tokens in a tile"),
        }
    }
}

/// Of more than 16 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn run_two<F: Strip>(tile: Tile<'_>, tokens: usize) {
    // SAFETY: passed on.
    unsafe {
        match tokens {
            1 => tile_kernel::<F, 1, 2>(tile),
            2 => tile_kernel::<F, 2, 2>(tile),
            3 => tile_kernel::<F, 3, 2>(tile),
            4 => tile_kernel::<F, 4, 2>(tile),
            5 => tile_kernel::<F, 5, 2>(tile),
            6 => tile_kernel::<F, 6, 2>(tile),
            n => unreachable!("{n} tokens in a tile of two strips"),
        }
    }
}

/// A tile of `T` tokens and `S` strips, the last of which may have fewer rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile_kernel<F: Strip, const T: usize, const S: usize>(tile: Tile<'_>) {
    let Tile { mut panel, mut pack, far, groups, y, ld, rows, first, ask } = tile;
    let shape = F::SHAPE;
    let strip_bytes = groups * shape.panel_bytes(ROWS);
    for t in 0..T {
        for s in 0..S {
            _mm_prefetch::<_MM_HINT_T0>(y.wrapping_add(t * ld + s * ROWS).cast());
        }
    }
    let mut acc = [[_mm512_setzero_ps(); S]; T];
    for _ in 0..groups {
        // SAFETY: this group of the panel and of the pack is there, with the fields of its layout.
        unsafe {
            let rest = pack.add(T * shape.group).cast::<i32>();
            let mut sum = [[_mm512_setzero_si512(); S]; T];
            for (t, sum) in sum.iter_mut().enumerate() {
                *sum = [_mm512_set1_epi32(rest.add(T + t).read()); S];
            }
            for g in 0..shape.group / 4 {
                let mut w = [_mm512_setzero_si512(); S];
                for (s, w) in w.iter_mut().enumerate() {
                    *w = _mm512_load_si512(panel.add(s * strip_bytes + g * 4 * ROWS).cast());
                }
                for (t, sum) in sum.iter_mut().enumerate() {
                    let x = pack.add(t * shape.group + g * 4).cast::<i32>().read_unaligned();
                    let x = _mm512_set1_epi32(x);
                    for (sum, w) in sum.iter_mut().zip(w) {
                        *sum = _mm512_dpbusd_epi32(*sum, w, x);
                    }
                }
            }
            let mut d = [_mm512_setzero_ps(); S];
            let mut zero = [_mm512_setzero_ps(); S];
            for s in 0..S {
                d[s] = _mm512_load_ps(panel.add(s * strip_bytes + shape.group * ROWS).cast());
                zero[s] = _mm512_mul_ps(d[s], _mm512_set1_ps(COUNTS));
            }
            for t in 0..T {
                let scale = _mm512_set1_ps(rest.add(t).cast::<f32>().read());
                for s in 0..S {
                    let v = _mm512_fmsub_ps(_mm512_castsi512_ps(sum[t][s]), d[s], zero[s]);
                    // The compiler would put the sum in the place of `v`, which takes a move back every time around.
                    if S == 1 {
                        // No instruction: `v` is wanted once more. The scale is an operand from memory.
                        acc[t][s] = _mm512_fmadd_ps(v, scale, acc[t][s]);
                        std::arch::asm!("/* {} */", in(zmm_reg) v, options(nomem, nostack, preserves_flags));
                    } else {
                        std::arch::asm!(
                            "vfmadd231ps {acc}, {v}, {scale}",
                            acc = inout(zmm_reg) acc[t][s],
                            v = in(zmm_reg) v,
                            scale = in(zmm_reg) scale,
                            options(pure, nomem, nostack, preserves_flags),
                        );
                    }
                }
            }
            if shape.mins {
                for s in 0..S {
                    let m = panel.add(s * strip_bytes + (shape.group + 4) * ROWS);
                    let m = _mm512_load_ps(m.cast());
                    for (t, acc) in acc.iter_mut().enumerate() {
                        let minsum = _mm512_set1_ps(rest.add(2 * T + t).cast::<f32>().read());
                        acc[s] = _mm512_fmadd_ps(m, minsum, acc[s]);
                    }
                }
            }
            ask.step();
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
        for (s, acc) in acc.into_iter().enumerate() {
            let mask = (u32::MAX >> (32 - ROWS.min(rows - s * ROWS))) as __mmask16;
            // SAFETY: see `Tile::y`.
            unsafe {
                let y = y.add(t * ld + s * ROWS);
                // At the end: then they have arrived.
                let before =
                    if first { _mm512_setzero_ps() } else { _mm512_maskz_loadu_ps(mask, y) };
                _mm512_mask_storeu_ps(y, mask, _mm512_add_ps(before, acc));
            }
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
