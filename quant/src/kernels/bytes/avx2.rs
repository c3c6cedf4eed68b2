//! 256 bits: `vpdpbusd`. Without it there is no fast product of bytes that is exact: `vpmaddubsw`
//! saturates.

#![allow(clippy::needless_range_loop)] // loops over fixed tiles

use std::arch::x86_64::*;

use super::portable::{self, Block};
use super::{BytesJob, PANEL, TILE};
use crate::kernels::isa::Encoding;
use crate::kernels::{Avx2, AvxVnni};

/// Rows that are multiplied with a panel at once: 12 sums leave 4 of 16 registers.
const ROWS: usize = 3;
/// Vectors of a panel's fours.
const VECTORS: usize = PANEL / 8;

pub(super) fn pack(_: Avx2, block: Block<'_>, q: &mut [u8], scale: &mut [f32], start: &mut [i32]) {
    // SAFETY: the token proves the features.
    unsafe { pack_wide(block, q, scale, start) }
}

#[target_feature(enable = "avx2,fma")]
fn pack_wide(block: Block<'_>, q: &mut [u8], scale: &mut [f32], start: &mut [i32]) {
    portable::pack(block, q, scale, start);
}

/// `job` was checked.
pub(super) fn multiply(isa: AvxVnni, job: &BytesJob<'_>, y: &mut [f32], ld: usize, add: bool) {
    // SAFETY: the token proves the features of the encoding that it names.
    unsafe {
        match isa.encoding() {
            Encoding::Vex => vex(job, y, ld, add),
            Encoding::Evex => evex(job, y, ld, add),
        }
    }
}

/// A kernel for one encoding of `vpdpbusd`.
macro_rules! kernel {
    ($name:ident, $features:literal, $dot:ident) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(job: &BytesJob<'_>, y: &mut [f32], ld: usize, add: bool) {
            for first in (0..job.rows).step_by(ROWS) {
                let (group, row) = (first / TILE * job.stride, first % TILE);
                // SAFETY: the job was checked: panel and tile hold `len` values, and scales for
                // them, and `y` the rows.
                unsafe {
                    let mut panel = job.panel.as_ptr();
                    let mut tile = job.tiles.as_ptr().add(group * job.len * TILE + 4 * row);
                    let start = job.tile_start.as_ptr().add(group * TILE + row);
                    let mut acc = [[_mm256_setzero_si256(); VECTORS]; ROWS];
                    for r in 0..ROWS {
                        for v in 0..VECTORS {
                            acc[r][v] = _mm256_set1_epi32(*start.add(r));
                        }
                    }
                    for _ in 0..job.len / 4 {
                        for r in 0..ROWS {
                            let four = tile.add(4 * r).cast::<i32>().read_unaligned();
                            let four = _mm256_set1_epi32(four);
                            for v in 0..VECTORS {
                                let w = _mm256_loadu_si256(panel.add(32 * v).cast());
                                acc[r][v] = $dot(acc[r][v], w, four);
                            }
                        }
                        panel = panel.add(4 * PANEL);
                        tile = tile.add(4 * TILE);
                    }
                    let rows = job.rows - first;
                    for (r, acc) in acc.iter().enumerate() {
                        if r >= rows {
                            break;
                        }
                        let scale = job.tile_scale.as_ptr().add(group * TILE + row + r);
                        let scale = _mm256_set1_ps(*scale);
                        for (v, sum) in acc.iter().enumerate() {
                            let panel = _mm256_loadu_ps(job.panel_scale.as_ptr().add(8 * v));
                            let sum = _mm256_mul_ps(_mm256_cvtepi32_ps(*sum), panel);
                            let y = y.as_mut_ptr().add((first + r) * ld + 8 * v);
                            let before = match add {
                                true => _mm256_loadu_ps(y),
                                false => _mm256_setzero_ps(),
                            };
                            _mm256_storeu_ps(y, _mm256_fmadd_ps(sum, scale, before));
                        }
                    }
                }
            }
        }
    };
}

kernel!(vex, "avx2,fma,avxvnni", _mm256_dpbusd_avx_epi32);
kernel!(evex, "avx2,fma,avx512vnni,avx512vl", _mm256_dpbusd_epi32);
