//! Many tokens: strips of 16 weight rows are unpacked into a panel that stays in the cache, and
//! tiles of up to 12 tokens × 16 rows run over it. See [`panel`](crate::kernels::panel) for the
//! layouts.
//!
//! A 512-bit load of the panel holds 4 consecutive weights of 16 rows, and each token contributes a
//! broadcast of its 4 activations: 8 products a block of 32, then one conversion, one product of the
//! two scales and one FMA. The conversions run beside the multipliers (on Zen 4), the other two do
//! not, so that 8 of 10 is the bound for formats with a scale every 32 weights.

use std::arch::x86_64::*;

use crate::codec::QK;
use crate::kernels::panel::{Shape, parts};
use crate::kernels::prefetch::prefetch_slice_l2;
use crate::kernels::{Job, Scratch};

/// Rows of a strip.
pub(super) const ROWS: usize = 16;
/// Tokens of a tile: 2 × 12 accumulators leave 8 registers.
const TOKENS: usize = 12;
/// The most columns of a panel: 16 rows × 1280 quants are 20 KiB of the first-level cache.
const COLS: usize = 1280;
/// Tokens whose activations (1024 columns) stay in the second-level cache.
const BATCH: usize = 516;

/// How far ahead of its use a pack is asked for, in bytes.
const AHEAD: usize = 1024;

/// A format whose strips can be unpacked.
pub(super) trait Unpack {
    /// What the tile needs to know.
    const SHAPE: Shape;
    /// Weights a block of the file.
    const BLOCK_LEN: usize;
    /// Bytes a block of the file.
    const BLOCK_BYTES: usize;

    /// Unpacks `blocks` blocks of each row into `blocks · BLOCK_LEN / SHAPE.group` groups of a panel.
    ///
    /// # Safety
    /// AVX-512 F, BW, DQ, VL and VNNI; that many blocks must be readable at each of `rows`, that many
    /// groups writable at `panel`, which is on a 64-byte boundary.
    unsafe fn unpack(rows: &[*const u8; ROWS], blocks: usize, panel: *mut u8);
}

/// # Safety
/// AVX-512 F, BW, DQ, VL and VNNI; `job` holds what its documentation says and its weights are `F`'s.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn matmul<F: Unpack>(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, ld } = job;
    let shape = F::SHAPE;
    debug_assert_eq!(w.row_bytes(), x.cols / F::BLOCK_LEN * F::BLOCK_BYTES);
    let chunk = F::BLOCK_LEN.max(QK);
    let max_cols = COLS.min(x.cols);
    let groups = max_cols / shape.group;
    let panel = scratch.panel.at_least(groups * shape.panel_bytes(ROWS)).as_mut_ptr();
    for (n0, n) in parts(x.n, BATCH) {
        let pack = scratch.pack.at_least(groups * shape.pack_bytes(n));
        for (c0, cols) in parts(x.cols / chunk, max_cols / chunk) {
            let (c0, cols) = (c0 * chunk, cols * chunk);
            let groups = cols / shape.group;
            let token_bytes = groups * shape.pack_bytes(1);
            for (t0, tokens) in parts(n, TOKENS) {
                shape.pack(x, n0 + t0, tokens, c0, cols, &mut pack[t0 * token_bytes..]);
            }
            for r0 in rows.clone().step_by(ROWS) {
                let strip = ROWS.min(rows.end - r0);
                let bytes = |r: usize| {
                    let row = w.row(r);
                    let from = c0 / F::BLOCK_LEN * F::BLOCK_BYTES;
                    &row[from..][..cols / F::BLOCK_LEN * F::BLOCK_BYTES]
                };
                // A short strip repeats its last row; what comes of the repetitions is not stored.
                let at: [*const u8; ROWS] =
                    std::array::from_fn(|r| bytes(r0 + r.min(strip - 1)).as_ptr());
                // SAFETY: the rows hold `cols` more weights; the panel has room for them.
                unsafe { F::unpack(&at, cols / F::BLOCK_LEN, panel) };
                let mask = (u32::MAX >> (32 - strip)) as __mmask16;
                let tiles = n.div_ceil(TOKENS);
                for (i, (t0, tokens)) in parts(n, TOKENS).enumerate() {
                    // The next strip, a few rows a tile.
                    for r in i * ROWS / tiles..(i + 1) * ROWS / tiles {
                        if r0 + ROWS + r < rows.end {
                            prefetch_slice_l2(bytes(r0 + ROWS + r));
                        }
                    }
                    let tile = Tile {
                        panel,
                        pack: pack[t0 * token_bytes..][..tokens * token_bytes].as_ptr(),
                        groups,
                        y: y[(n0 + t0) * ld + (r0 - rows.start)..].as_mut_ptr(),
                        ld,
                        mask,
                        first: c0 == 0,
                    };
                    // SAFETY: panel and pack hold `groups` groups; `y` holds `tokens` rows of which
                    // those elements are written that `mask` has.
                    unsafe { run::<F>(tile, tokens) };
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
unsafe fn run<F: Unpack>(tile: Tile, tokens: usize) {
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
unsafe fn tile_kernel<F: Unpack, const T: usize>(tile: Tile) {
    let Tile { mut panel, mut pack, groups, y, ld, mask, first } = tile;
    let shape = F::SHAPE;
    let mut acc = [_mm512_setzero_ps(); T];
    for t in T..2 * T {
        // The next tile's; past the end it does no harm.
        _mm_prefetch::<_MM_HINT_T0>(y.wrapping_add(t * ld).cast());
    }
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

/// Takes 16 bytes of each of 16 rows; gives the dwords 0 of all rows, the dwords 1, 2 and 3.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn transpose(rows: [__m128i; ROWS]) -> [__m512i; 4] {
    // Register i, lane l: row 4l + i.
    let z: [__m512i; 4] = std::array::from_fn(|i| {
        let z = _mm512_castsi128_si512(rows[i]);
        let z = _mm512_inserti32x4::<1>(z, rows[4 + i]);
        let z = _mm512_inserti32x4::<2>(z, rows[8 + i]);
        _mm512_inserti32x4::<3>(z, rows[12 + i])
    });
    let (a, b) = (_mm512_unpacklo_epi32(z[0], z[1]), _mm512_unpacklo_epi32(z[2], z[3]));
    let (c, d) = (_mm512_unpackhi_epi32(z[0], z[1]), _mm512_unpackhi_epi32(z[2], z[3]));
    [
        _mm512_unpacklo_epi64(a, b),
        _mm512_unpackhi_epi64(a, b),
        _mm512_unpacklo_epi64(c, d),
        _mm512_unpackhi_epi64(c, d),
    ]
}

/// The f16 scales of 16 rows as f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn scales(halves: [u16; ROWS]) -> __m512 {
    // SAFETY: 16 halves are 32 bytes.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
}
