//! Many tokens: strips of 16 weight rows are unpacked into panels, and tiles of up to 12 tokens × 16
//! rows run over them. See [`panel`](crate::kernels::panel) for the layouts.
//!
//! A tile reads its panel and its pack as two forward streams of 576 and 480 bytes every 120 cycles,
//! which the second-level cache sustains without loss; so whole rows are taken (up to 8192 columns),
//! `y` is written once, and a pack is read from further away only once for several strips.
//!
//! A 512-bit load of the panel holds 4 consecutive weights of 16 rows, and each token contributes a
//! broadcast of its 4 activations: 8 products a block of 32, then one conversion, one product of the
//! two scales and one FMA. The conversions run beside the multipliers (on Zen 4), the other two do
//! not, so that 8 of 10 is the bound for formats with a scale every 32 weights.

use std::arch::x86_64::*;

use super::strip::{At, ROWS, Strip};
use crate::codec::QK;
use crate::kernels::panel::parts;
use crate::kernels::prefetch::prefetch_slice_l2;
use crate::kernels::{Job, Scratch};

/// Tokens of a tile: 2 × 12 accumulators leave 8 registers.
const TOKENS: usize = 12;
/// The most columns that are taken at once: a panel of 16 rows is then 148 KiB.
const COLS: usize = 8192;
/// What the panels of the strips that share a pass over the tokens may take of the second-level cache.
const PANELS: usize = 256 << 10;
/// The most tokens whose packs are made at once.
const BATCH: usize = 516;
/// How far ahead of its use a pack is asked for, in bytes.
const AHEAD: usize = 2048;

/// # Safety
/// AVX-512 F, BW, DQ, VL and VNNI; `job` holds what its documentation says and its weights are `F`'s.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn matmul<F: Strip>(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, ld } = job;
    let shape = F::SHAPE;
    debug_assert_eq!(w.row_bytes(), x.cols / F::BLOCK_LEN * F::BLOCK_BYTES);
    let piece = F::BLOCK_LEN.max(QK);
    for (n0, n) in parts(x.n, BATCH) {
        for (c0, cols) in parts(x.cols / piece, COLS / piece) {
            let (c0, cols) = (c0 * piece, cols * piece);
            let groups = cols / shape.group;
            let pack = scratch.pack.at_least(groups * shape.pack_bytes(n));
            let token_bytes = groups * shape.pack_bytes(1);
            for (t0, tokens) in parts(n, TOKENS) {
                shape.pack(x, n0 + t0, tokens, c0, cols, &mut pack[t0 * token_bytes..]);
            }
            let panel_bytes = groups * shape.panel_bytes(ROWS);
            let strips = (PANELS / panel_bytes).min(n / 32).clamp(1, 8);
            let panels = scratch.panel.at_least(strips * panel_bytes);
            // What the unpacking will read of row `r`.
            let bytes = |r: usize| {
                let from = c0 / F::BLOCK_LEN * F::BLOCK_BYTES;
                &w.row(r)[from..][..cols / F::BLOCK_LEN * F::BLOCK_BYTES]
            };
            for s0 in rows.clone().step_by(ROWS * strips) {
                let end = rows.end.min(s0 + ROWS * strips);
                for (r0, panel) in (s0..end).step_by(ROWS).zip(panels.chunks_mut(panel_bytes)) {
                    let at = At::strip(w, r0, end, &mut scratch.spare);
                    let at = at.skip(c0 / F::BLOCK_LEN * F::BLOCK_BYTES);
                    // SAFETY: the rows hold `cols` more weights; the panel has room for them.
                    unsafe { unpack::<F>(at, groups, panel.as_mut_ptr()) };
                }
                let (tiles, ahead) = (n.div_ceil(TOKENS), ROWS * strips);
                for (i, (t0, tokens)) in parts(n, TOKENS).enumerate() {
                    // The next strips, a few rows a tile.
                    for r in end + i * ahead / tiles..end + (i + 1) * ahead / tiles {
                        if r < rows.end {
                            prefetch_slice_l2(bytes(r));
                        }
                    }
                    let pack = pack[t0 * token_bytes..][..tokens * token_bytes].as_ptr();
                    for (r0, panel) in (s0..end).step_by(ROWS).zip(panels.chunks(panel_bytes)) {
                        let tile = Tile {
                            panel: panel.as_ptr(),
                            pack,
                            groups,
                            y: y[(n0 + t0) * ld + (r0 - rows.start)..].as_mut_ptr(),
                            ld,
                            mask: (u32::MAX >> (32 - ROWS.min(end - r0))) as __mmask16,
                            first: c0 == 0,
                        };
                        // SAFETY: panel and pack hold `groups` groups; `y` holds `tokens` rows of
                        // which those elements are written that `mask` has.
                        unsafe { run::<F>(tile, tokens) };
                    }
                }
            }
        }
    }
}

/// One call of the tile kernel.
#[derive(Clone, Copy)]
struct Tile {
    panel: *const u8,
    pack: *const u8,
    groups: usize,
    y: *mut f32,
    ld: usize,
    /// Rows that there are.
    mask: __mmask16,
    /// Is `y` to be set, rather than added to?
    first: bool,
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
            n => unreachable!("{n} tokens in a tile"),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile_kernel<F: Strip, const T: usize>(tile: Tile) {
    let Tile { mut panel, mut pack, groups, y, ld, mask, first } = tile;
    let shape = F::SHAPE;
    for t in 0..T {
        _mm_prefetch::<_MM_HINT_ET0>(y.wrapping_add(t * ld).cast());
    }
    let mut acc = [_mm512_setzero_ps(); T];
    if !first {
        for (t, acc) in acc.iter_mut().enumerate() {
            // SAFETY: see `Tile::y`.
            *acc = unsafe { _mm512_maskz_loadu_ps(mask, y.add(t * ld)) };
        }
    }
    for _ in 0..groups {
        // SAFETY: this group of the panel and of the pack is there, with the fields of its layout.
        unsafe {
            let rest = pack.add(T * shape.group).cast::<i32>();
            let mut sum: [__m512i; T] =
                std::array::from_fn(|t| _mm512_set1_epi32(rest.add(T + t).read()));
            for g in 0..shape.group / 4 {
                let w = _mm512_load_si512(panel.add(g * 4 * ROWS).cast());
                for (t, sum) in sum.iter_mut().enumerate() {
                    let x = pack.add(t * shape.group + g * 4).cast::<i32>().read_unaligned();
                    *sum = _mm512_dpbusd_epi32(*sum, w, _mm512_set1_epi32(x));
                }
            }
            let d = _mm512_load_ps(panel.add(shape.group * ROWS).cast());
            for t in 0..T {
                let scale = _mm512_mul_ps(d, _mm512_set1_ps(rest.add(t).cast::<f32>().read()));
                acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t]), scale, acc[t]);
            }
            if shape.mins {
                let m = _mm512_load_ps(panel.add((shape.group + 4) * ROWS).cast());
                for (t, acc) in acc.iter_mut().enumerate() {
                    let minsum = _mm512_set1_ps(rest.add(2 * T + t).cast::<f32>().read());
                    *acc = _mm512_fmadd_ps(m, minsum, *acc);
                }
            }
            for line in 0..shape.pack_bytes(T).div_ceil(64) {
                let ahead = pack.wrapping_add(AHEAD + 64 * line);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            }
            panel = panel.add(shape.panel_bytes(ROWS));
            pack = pack.add(shape.pack_bytes(T));
        }
    }
    for (t, acc) in acc.iter().enumerate() {
        // SAFETY: see `Tile::y`.
        unsafe { _mm512_mask_storeu_ps(y.add(t * ld), mask, *acc) };
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
