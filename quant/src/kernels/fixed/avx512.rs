//! AVX-512 with VNNI: 512-bit `vpdpwssd`, 32 products and additions an instruction.

#![allow(clippy::needless_range_loop)] // see `Tile::run`

use std::arch::x86_64::*;

use super::columns::Columns;
use super::portable::{self, Block};
use super::{FixedJob, NORM, PANEL, TILE};
use crate::kernels::Avx512Vnni;
use crate::kernels::operand::{self, each_of_12};

/// How far ahead of its use a tile is asked for, in words: tiles stream, panels stay.
const AHEAD: usize = 2048;

pub(super) fn pack(_: Avx512Vnni, block: Block<'_>, q: &mut [i16], scale: &mut [f32]) {
    // SAFETY: the token proves the features; the caller has checked what `pack_tile` asks for.
    unsafe {
        match block.group {
            TILE => pack_tile(block, q, scale),
            _ => pack_panel(block, q, scale),
        }
    }
}

/// In halves of the widest vectors: the compiler makes more of those here.
#[target_feature(enable = "avx2,fma")]
fn pack_panel(block: Block<'_>, q: &mut [i16], scale: &mut [f32]) {
    portable::pack(block, q, scale);
}

/// Packs a tile of up to TILE rows.
///
/// # Safety
/// `rows` rows of `n` values lie `ld` apart, and `q` and `scale` are a block of at least `n` values.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn pack_tile(block: Block<'_>, q: &mut [i16], scale: &mut [f32]) {
    let Block { x, ld, n, rows, .. } = block;
    let mut squares = [_mm512_setzero_ps(); TILE];
    let mut largest = squares;
    for at in (0..n).step_by(16) {
        let mask = first_lanes(n - at);
        for r in 0..TILE {
            if r < rows {
                // SAFETY: lanes up to the row's end are read.
                let v = unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr().add(r * ld + at)) };
                squares[r] = _mm512_fmadd_ps(v, v, squares[r]);
                largest[r] = _mm512_max_ps(largest[r], _mm512_abs_ps(v));
            }
        }
    }
    let mut inverse = [0.0; TILE];
    for r in 0..TILE {
        let (squares, largest) =
            (_mm512_reduce_add_ps(squares[r]), _mm512_reduce_max_ps(largest[r]));
        scale[r] = portable::scale_of(squares, largest);
        inverse[r] = portable::inverse_of(scale[r]);
    }
    let pairs = q.len() / (2 * TILE);
    for at in (0..2 * pairs).step_by(32) {
        let mask = [first_lanes(n.saturating_sub(at)), first_lanes(n.saturating_sub(at + 16))];
        // Of each row, in each quarter of a vector: two pairs of the first 16 values, two of the rest.
        let mut v = [_mm512_setzero_si512(); TILE];
        for r in 0..TILE {
            if r < rows {
                let (row, inverse) =
                    (x.as_ptr().wrapping_add(r * ld + at), _mm512_set1_ps(inverse[r]));
                // SAFETY: lanes up to the row's end are read.
                let (a, b) = unsafe {
                    let b = _mm512_maskz_loadu_ps(mask[1], row.wrapping_add(16));
                    (_mm512_maskz_loadu_ps(mask[0], row), b)
                };
                let (a, b) = (_mm512_mul_ps(a, inverse), _mm512_mul_ps(b, inverse));
                v[r] = _mm512_packs_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
            }
        }
        for g in 0..TILE / 4 {
            // Four rows become, in each quarter, one pair of all four.
            let [a, b, c, d] = [v[4 * g], v[4 * g + 1], v[4 * g + 2], v[4 * g + 3]];
            let low = [_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)];
            let high = [_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)];
            let columns = [
                _mm512_unpacklo_epi64(low[0], low[1]),
                _mm512_unpackhi_epi64(low[0], low[1]),
                _mm512_unpacklo_epi64(high[0], high[1]),
                _mm512_unpackhi_epi64(high[0], high[1]),
            ];
            for (c, column) in columns.into_iter().enumerate() {
                let quarters = [
                    _mm512_castsi512_si128(column),
                    _mm512_extracti32x4_epi32::<1>(column),
                    _mm512_extracti32x4_epi32::<2>(column),
                    _mm512_extracti32x4_epi32::<3>(column),
                ];
                for (quarter, words) in quarters.into_iter().enumerate() {
                    let pair = at / 2 + 2 * quarter + c % 2 + c / 2 * 8;
                    if pair < pairs {
                        // SAFETY: four rows of a pair that the block has.
                        unsafe {
                            let to = q.as_mut_ptr().add((pair * TILE + 4 * g) * 2);
                            _mm_storeu_si128(to.cast(), words);
                        }
                    }
                }
            }
        }
    }
}

/// A mask of the first `n` of 16 lanes.
fn first_lanes(n: usize) -> u16 {
    if n >= 16 { u16::MAX } else { (1 << n) - 1 }
}

pub(super) fn pack_columns(_: Avx512Vnni, block: Columns<'_>, q: &mut [i16], scale: &mut [f32]) {
    let tiles = q.chunks_exact_mut(block.len * TILE).zip(scale.as_chunks_mut::<TILE>().0);
    for (tile, (q, scale)) in tiles.enumerate() {
        // SAFETY: the token proves the features; the caller has checked that the columns are there.
        unsafe { pack_column_tile(block, tile * TILE, q, scale) };
    }
}

/// Packs the tile of columns from `at` on, of which there is one at least.
///
/// # Safety
/// `n` rows of `columns` values lie `ld` apart.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn pack_column_tile(block: Columns<'_>, at: usize, q: &mut [i16], scale: &mut [f32; TILE]) {
    let Columns { x, ld, n, columns, .. } = block;
    let (x, mask) = (x.as_ptr().wrapping_add(at), first_lanes(TILE.min(columns - at)));
    let mut squares = [_mm512_setzero_ps(); 2];
    let mut largest = squares;
    for i in (0..n).step_by(2) {
        let masks = [mask, if i + 1 < n { mask } else { 0 }];
        for k in 0..2 {
            // SAFETY: lanes of columns that are there, of a row that is there.
            let v = unsafe { _mm512_maskz_loadu_ps(masks[k], x.wrapping_add((i + k) * ld)) };
            squares[k] = _mm512_fmadd_ps(v, v, squares[k]);
            largest[k] = _mm512_max_ps(largest[k], _mm512_abs_ps(v));
        }
    }
    let norm = _mm512_sqrt_ps(_mm512_add_ps(squares[0], squares[1]));
    let by_norm = _mm512_div_ps(norm, _mm512_set1_ps(NORM));
    let by_size =
        _mm512_div_ps(_mm512_max_ps(largest[0], largest[1]), _mm512_set1_ps(f32::from(i16::MAX)));
    let units = _mm512_max_ps(by_norm, by_size);
    let divides = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(units, _mm512_set1_ps(f32::MIN_POSITIVE));
    let inverse = _mm512_maskz_div_ps(divides, _mm512_set1_ps(1.0), units);
    // SAFETY: a tile's scales, and its pairs one after the other.
    unsafe { _mm512_mask_storeu_ps(scale.as_mut_ptr(), first_lanes(TILE), units) };
    for (pair, words) in q.as_chunks_mut::<{ 2 * TILE }>().0.iter_mut().enumerate() {
        let i = 2 * pair;
        let masks = [if i < n { mask } else { 0 }, if i + 1 < n { mask } else { 0 }];
        // SAFETY: as above.
        unsafe {
            let a = _mm512_maskz_loadu_ps(masks[0], x.wrapping_add(i * ld));
            let b = _mm512_maskz_loadu_ps(masks[1], x.wrapping_add((i + 1) * ld));
            let a = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
            let b = _mm512_slli_epi32::<16>(_mm512_cvtps_epi32(_mm512_mul_ps(b, inverse)));
            let pairs = _mm512_mask_blend_epi16(0xaaaa_aaaa, a, b);
            _mm512_mask_storeu_epi32(words.as_mut_ptr().cast(), first_lanes(TILE), pairs);
        }
    }
}

/// `job` was checked.
pub(super) fn multiply(_: Avx512Vnni, job: &FixedJob<'_>, y: &mut [f32], ld: usize, add: bool) {
    for first in (0..job.rows).step_by(TILE) {
        let rows = TILE.min(job.rows - first);
        let at = first / TILE;
        let tile = Tile {
            tile: job.tiles[at * job.tile_words..].as_ptr(),
            tile_scale: job.tile_scale[at * job.tile_scales..].as_ptr(),
            y: y[first * ld..].as_mut_ptr(),
            ld,
            rows,
            add,
        };
        // SAFETY: the token proves the features; the check of `job` covers what `Tile` says.
        unsafe { tile.run(job) };
    }
}

/// One tile and where its results go.
struct Tile {
    /// `job.blocks.count` blocks.
    tile: *const i16,
    /// Their scales.
    tile_scale: *const f32,
    /// `rows` (at most TILE) rows of `PANEL` results, `ld` apart.
    y: *mut f32,
    ld: usize,
    rows: usize,
    add: bool,
}

impl Tile {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn run(&self, job: &FixedJob<'_>) {
        let pairs = job.blocks.len / 2;
        let (mut panel, mut x) = (job.panel.as_ptr(), self.tile);
        for b in 0..job.blocks.count {
            // SAFETY: panel and tile hold this block's pairs and scales, and y the rows.
            unsafe {
                let mut acc = [[_mm512_setzero_si512(); 2]; TILE];
                for _ in 0..pairs {
                    let w = [
                        _mm512_loadu_si512(panel.cast()),
                        _mm512_loadu_si512(panel.add(PANEL).cast()),
                    ];
                    each_of_12!(TILE, T, acc[T] = operand::words::<{ 4 * T }>(acc[T], w, x.cast()));
                    _mm_prefetch::<_MM_HINT_T0>(x.wrapping_add(AHEAD).cast());
                    panel = panel.add(2 * PANEL);
                    x = x.add(2 * TILE);
                }
                let scale = job.panel_scale.as_ptr().add(b * PANEL);
                let scale = [_mm512_loadu_ps(scale), _mm512_loadu_ps(scale.add(16))];
                let tile_scale = self.tile_scale.add(b * TILE);
                // By index: iterators by value would take the sums through memory, piece by piece.
                if self.rows == TILE {
                    for t in 0..TILE {
                        self.row(t, acc[t], scale, *tile_scale.add(t), b > 0 || self.add);
                    }
                } else {
                    for t in 0..self.rows {
                        self.row(t, acc[t], scale, *tile_scale.add(t), b > 0 || self.add);
                    }
                }
            }
        }
    }

    /// Scales the sums of row `t` and writes them, or adds them to what is there.
    ///
    /// # Safety
    /// Row `t` is one of the tile's.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn row(&self, t: usize, sums: [__m512i; 2], panel: [__m512; 2], tile: f32, add: bool) {
        // SAFETY: the row is there, and PANEL floats of it.
        unsafe {
            let (scale, y) = (_mm512_set1_ps(tile), self.y.add(t * self.ld));
            let lo = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[0]), panel[0]);
            let hi = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[1]), panel[1]);
            let (mut y0, mut y1) = (_mm512_setzero_ps(), _mm512_setzero_ps());
            if add {
                (y0, y1) = (_mm512_loadu_ps(y), _mm512_loadu_ps(y.add(16)));
            }
            _mm512_storeu_ps(y, _mm512_fmadd_ps(lo, scale, y0));
            _mm512_storeu_ps(y.add(16), _mm512_fmadd_ps(hi, scale, y1));
        }
    }
}
