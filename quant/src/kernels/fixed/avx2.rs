//! 256 bits: `vpdpwssd` where the CPU has it, `vpmaddwd` and an addition elsewhere.

#![allow(clippy::needless_range_loop)] // loops over fixed tiles

use std::arch::x86_64::*;

use super::columns::{self, Columns};
use super::portable::{self, Block};
use super::{FixedJob, PANEL, TILE};
use crate::kernels::isa::Encoding;
use crate::kernels::{Avx2, AvxVnni};

/// Rows that are multiplied with a panel at once: 12 sums leave 4 of 16 registers.
const ROWS: usize = 3;
/// Vectors of a panel's pairs.
const VECTORS: usize = PANEL / 8;

pub(super) fn pack(_: Avx2, block: Block<'_>, q: &mut [i16], scale: &mut [f32]) {
    // SAFETY: the token proves the features.
    unsafe { pack_wide(block, q, scale) }
}

#[target_feature(enable = "avx2,fma")]
fn pack_wide(block: Block<'_>, q: &mut [i16], scale: &mut [f32]) {
    portable::pack(block, q, scale);
}

pub(super) fn pack_columns(_: Avx2, block: Columns<'_>, q: &mut [i16], scale: &mut [f32]) {
    // SAFETY: the token proves the features.
    unsafe { pack_columns_wide(block, q, scale) }
}

#[target_feature(enable = "avx2,fma")]
fn pack_columns_wide(block: Columns<'_>, q: &mut [i16], scale: &mut [f32]) {
    columns::pack(block, q, scale);
}

/// `job` was checked.
pub(super) fn multiply(_: Avx2, job: &FixedJob<'_>, y: &mut [f32], ld: usize, add: bool) {
    // SAFETY: the token proves the features.
    unsafe { madd(job, y, ld, add) }
}

/// As [`multiply`].
pub(super) fn multiply_vnni(isa: AvxVnni, job: &FixedJob<'_>, y: &mut [f32], ld: usize, add: bool) {
    // SAFETY: the token proves the features of the encoding that it names.
    unsafe {
        match isa.encoding() {
            Encoding::Vex => vex(job, y, ld, add),
            Encoding::Evex => evex(job, y, ld, add),
        }
    }
}

/// A kernel for one way of adding the products of two vectors of pairs to a sum.
macro_rules! kernel {
    ($name:ident, $features:literal, |$sum:ident, $w:ident, $x:ident| $dot:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(job: &FixedJob<'_>, y: &mut [f32], ld: usize, add: bool) {
            let len = job.blocks.len;
            for first in (0..job.rows).step_by(ROWS) {
                let (tile, row) = (first / TILE, first % TILE);
                for b in 0..job.blocks.count {
                    let mut acc = [[_mm256_setzero_si256(); VECTORS]; ROWS];
                    // SAFETY: the job was checked: panel and tile hold this block's pairs, and
                    // scales for them.
                    unsafe {
                        let mut panel = job.panel.as_ptr().add(b * len * PANEL);
                        let words = tile * job.tile_words + b * len * TILE + 2 * row;
                        let mut words = job.tiles.as_ptr().add(words);
                        for _ in 0..len / 2 {
                            for r in 0..ROWS {
                                let word = words.add(2 * r).cast::<i32>().read_unaligned();
                                let $x = _mm256_set1_epi32(word);
                                for v in 0..VECTORS {
                                    let $w = _mm256_loadu_si256(panel.add(16 * v).cast());
                                    let $sum = acc[r][v];
                                    acc[r][v] = $dot;
                                }
                            }
                            panel = panel.add(2 * PANEL);
                            words = words.add(2 * TILE);
                        }
                        let rows = job.rows - first;
                        for (r, acc) in acc.iter().enumerate() {
                            if r >= rows {
                                break;
                            }
                            let scale = tile * job.tile_scales + b * TILE + row + r;
                            let scale = _mm256_set1_ps(*job.tile_scale.as_ptr().add(scale));
                            for (v, sum) in acc.iter().enumerate() {
                                let panel = job.panel_scale.as_ptr().add(b * PANEL + 8 * v);
                                let sum =
                                    _mm256_mul_ps(_mm256_cvtepi32_ps(*sum), _mm256_loadu_ps(panel));
                                let y = y.as_mut_ptr().add((first + r) * ld + 8 * v);
                                let before = match b > 0 || add {
                                    true => _mm256_loadu_ps(y),
                                    false => _mm256_setzero_ps(),
                                };
                                _mm256_storeu_ps(y, _mm256_fmadd_ps(sum, scale, before));
                            }
                        }
                    }
                }
            }
        }
    };
}

kernel!(madd, "avx2,fma", |sum, w, x| _mm256_add_epi32(sum, _mm256_madd_epi16(w, x)));
kernel!(vex, "avx2,fma,avxvnni", |sum, w, x| _mm256_dpwssd_avx_epi32(sum, w, x));
kernel!(evex, "avx2,fma,avx512vnni,avx512vl", |sum, w, x| _mm256_dpwssd_epi32(sum, w, x));
