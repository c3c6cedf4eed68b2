//! AVX-512 with VNNI: 512-bit `vpdpwssd`, 32 products and additions an instruction.

#![allow(clippy::needless_range_loop)] // see `Tile::run`

use std::arch::x86_64::*;

use super::portable::{self, Block};
use super::{FixedJob, PANEL, TILE};
use crate::kernels::Avx512Vnni;

/// How far ahead of its use a tile is asked for, in words: tiles stream, panels stay.
const AHEAD: usize = 2048;

pub(super) fn pack(_: Avx512Vnni, block: Block<'_>, q: &mut [i16], scale: &mut [f32]) {
    // SAFETY: the token proves the features.
    unsafe { pack_wide(block, q, scale) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn pack_wide(block: Block<'_>, q: &mut [i16], scale: &mut [f32]) {
    portable::pack(block, q, scale);
}

/// `job` was checked.
pub(super) fn multiply(_: Avx512Vnni, job: &FixedJob<'_>, y: &mut [f32], ld: usize, add: bool) {
    for first in (0..job.rows).step_by(TILE) {
        let rows = TILE.min(job.rows - first);
        let at = first / TILE * job.tile_blocks * TILE;
        let tile = Tile {
            tile: job.tiles[at * job.blocks.len..].as_ptr(),
            tile_scale: job.tile_scale[at..].as_ptr(),
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
                    for (t, acc) in acc.iter_mut().enumerate() {
                        let x = _mm512_set1_epi32(x.add(2 * t).cast::<i32>().read_unaligned());
                        acc[0] = _mm512_dpwssd_epi32(acc[0], w[0], x);
                        acc[1] = _mm512_dpwssd_epi32(acc[1], w[1], x);
                    }
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
