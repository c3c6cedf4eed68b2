//! AVX-512 with VNNI: 512-bit `vpdpbusd`, 64 products and additions an instruction.

#![allow(clippy::needless_range_loop)] // see `Tile::run`

use std::arch::x86_64::*;

use super::portable::{self, Block};
use super::{BytesJob, PANEL, TILE};
use crate::kernels::Avx512Vnni;
use crate::kernels::operand::{self, each_of_12};

/// How far ahead of its use a tile is asked for, in bytes: tiles stream, panels stay.
const AHEAD: usize = 2048;

pub(super) fn pack(
    _: Avx512Vnni,
    block: Block<'_>,
    q: &mut [u8],
    scale: &mut [f32],
    start: &mut [i32],
) {
    // SAFETY: the token proves the features.
    unsafe { pack_wide(block, q, scale, start) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn pack_wide(block: Block<'_>, q: &mut [u8], scale: &mut [f32], start: &mut [i32]) {
    portable::pack(block, q, scale, start);
}

/// `job` was checked.
pub(super) fn multiply(_: Avx512Vnni, job: &BytesJob<'_>, y: &mut [f32], ld: usize, add: bool) {
    for first in (0..job.rows).step_by(TILE) {
        let rows = TILE.min(job.rows - first);
        let at = first / TILE * job.stride * TILE;
        let tile = Tile {
            tile: job.tiles[at * job.len..].as_ptr(),
            scale: job.tile_scale[at..].as_ptr(),
            start: job.tile_start[at..].as_ptr(),
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
    /// `job.len · TILE` bytes.
    tile: *const i8,
    /// Their scales, and what sums begin with: `TILE` each.
    scale: *const f32,
    start: *const i32,
    /// `rows` (at most TILE) rows of `PANEL` results, `ld` apart.
    y: *mut f32,
    ld: usize,
    rows: usize,
    add: bool,
}

impl Tile {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn run(&self, job: &BytesJob<'_>) {
        let (mut panel, mut x) = (job.panel.as_ptr(), self.tile);
        // SAFETY: panel and tile hold `len` values and scales, and y the rows.
        unsafe {
            let mut acc = [[_mm512_setzero_si512(); 2]; TILE];
            for (t, acc) in acc.iter_mut().enumerate() {
                *acc = [_mm512_set1_epi32(*self.start.add(t)); 2];
            }
            for _ in 0..job.len / 4 {
                let w = [
                    _mm512_loadu_si512(panel.cast()),
                    _mm512_loadu_si512(panel.add(2 * PANEL).cast()),
                ];
                each_of_12!(TILE, T, acc[T] = operand::bytes::<{ 4 * T }>(acc[T], w, x.cast()));
                _mm_prefetch::<_MM_HINT_T0>(x.wrapping_add(AHEAD).cast());
                panel = panel.add(4 * PANEL);
                x = x.add(4 * TILE);
            }
            let scale = job.panel_scale.as_ptr();
            let scale = [_mm512_loadu_ps(scale), _mm512_loadu_ps(scale.add(16))];
            // By index: iterators by value would take the sums through memory, piece by piece.
            if self.rows == TILE {
                for t in 0..TILE {
                    self.row(t, acc[t], scale);
                }
            } else {
                for t in 0..self.rows {
                    self.row(t, acc[t], scale);
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
    unsafe fn row(&self, t: usize, sums: [__m512i; 2], panel: [__m512; 2]) {
        // SAFETY: the row is there, and PANEL floats of it.
        unsafe {
            let (scale, y) = (_mm512_set1_ps(*self.scale.add(t)), self.y.add(t * self.ld));
            let lo = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[0]), panel[0]);
            let hi = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[1]), panel[1]);
            let (mut y0, mut y1) = (_mm512_setzero_ps(), _mm512_setzero_ps());
            if self.add {
                (y0, y1) = (_mm512_loadu_ps(y), _mm512_loadu_ps(y.add(16)));
            }
            _mm512_storeu_ps(y, _mm512_fmadd_ps(lo, scale, y0));
            _mm512_storeu_ps(y.add(16), _mm512_fmadd_ps(hi, scale, y1));
        }
    }
}
