//! Plain Rust: the oracle, and what CPUs run that no other file is for.

// Fixed-length loops over several arrays at once, so that they are compiled to vectors.
#![allow(clippy::needless_range_loop)]

use super::{Blocks, FixedJob, NORM, PANEL, TILE};

/// One block of some rows, to be packed.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) x: &'a [f32],
    pub(super) ld: usize,
    /// Values of a row.
    pub(super) n: usize,
    pub(super) rows: usize,
    /// Rows of the group.
    pub(super) group: usize,
}

/// Inlined into functions compiled for an instruction set, hence without closures; the chunks are
/// as long as the widest vectors.
#[inline(always)]
pub(super) fn pack(block: Block<'_>, q: &mut [i16], scale: &mut [f32]) {
    let Block { x, ld, n, rows, group } = block;
    let words: &mut [[i16; 2]] = q.as_chunks_mut::<2>().0;
    scale[rows..].fill(0.0);
    if rows < group || n < 2 * words.len() / group {
        words.fill([0; 2]);
    }
    for (r, scale) in scale.iter_mut().enumerate().take(rows) {
        let x = &x[r * ld..][..n];
        let s = block_scale(x);
        // A block of zeros, or of values too small to divide by.
        let inverse = if s >= f32::MIN_POSITIVE { 1.0 / s } else { 0.0 };
        *scale = s;
        let (chunks, rest) = x.as_chunks::<16>();
        let mut at = r;
        for chunk in chunks {
            let mut quants = [0i16; 16];
            for i in 0..16 {
                quants[i] = round(chunk[i] * inverse);
            }
            for pair in quants.as_chunks::<2>().0 {
                words[at] = *pair;
                at += group;
            }
        }
        for pair in rest.chunks(2) {
            words[at] = [round(pair[0] * inverse), pair.get(1).map_or(0, |v| round(v * inverse))];
            at += group;
        }
    }
}

/// The nearest whole number, ties to even, of a magnitude below 2²²: adding 1.5 · 2²³ leaves it in
/// the lowest bits.
#[inline(always)]
fn round(x: f32) -> i16 {
    (x + 12_582_912.0).to_bits() as i16
}

/// The smallest scale for which quants fit 16 bits and their norm is at most `NORM`.
#[inline(always)]
fn block_scale(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<16>();
    let mut squares = [0.0f32; 16];
    let mut largest = [0u32; 16];
    for chunk in chunks {
        let mut s = squares;
        for i in 0..16 {
            s[i] += chunk[i] * chunk[i];
        }
        squares = s;
        let mut l = largest;
        for i in 0..16 {
            l[i] = l[i].max(chunk[i].to_bits() & 0x7fff_ffff);
        }
        largest = l;
    }
    for (i, v) in rest.iter().enumerate() {
        squares[i] += v * v;
        largest[i] = largest[i].max(v.to_bits() & 0x7fff_ffff);
    }
    let (mut sum, mut max) = (0.0f32, 0.0f32);
    for i in 0..16 {
        sum += squares[i];
        max = max.max(f32::from_bits(largest[i]));
    }
    let (by_norm, by_size) = (sum.sqrt() / NORM, max / 32_767.0);
    if by_norm > by_size { by_norm } else { by_size }
}

/// See [`Kernels::multiply_fixed`](super::Kernels::multiply_fixed).
#[inline(always)]
pub(super) fn multiply(job: &FixedJob<'_>, y: &mut [f32], ld: usize, add: bool) {
    let Blocks { len, count } = job.blocks;
    for r in 0..job.rows {
        let (tile, row) = (r / TILE * job.tile_blocks, r % TILE);
        let y = &mut y[r * ld..][..PANEL];
        if !add {
            y.fill(0.0);
        }
        for b in 0..count {
            let words = &job.tiles[(tile + b) * len * TILE..][..len * TILE];
            let scale = job.tile_scale[(tile + b) * TILE + row];
            let panel = &job.panel[b * len * PANEL..][..len * PANEL];
            let mut sums = [0i32; PANEL];
            for (p, w) in panel.as_chunks::<{ 2 * PANEL }>().0.iter().zip(words.chunks(2 * TILE)) {
                let (a, b) = (i32::from(w[2 * row]), i32::from(w[2 * row + 1]));
                for i in 0..PANEL {
                    let products = i32::from(p[2 * i]) * a + i32::from(p[2 * i + 1]) * b;
                    sums[i] = sums[i].wrapping_add(products);
                }
            }
            let scales = &job.panel_scale[b * PANEL..][..PANEL];
            for i in 0..PANEL {
                y[i] += sums[i] as f32 * scales[i] * scale;
            }
        }
    }
}
