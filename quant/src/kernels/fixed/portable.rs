//! Plain Rust: the oracle, and what CPUs run that no other file is for.

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
        let (pairs, rest) = x.as_chunks::<2>();
        let (chunks, pairs) = pairs.as_chunks::<8>();
        let mut at = r;
        for chunk in chunks {
            let mut quants = [[0i16; 2]; 8];
            for (q, pair) in quants.iter_mut().zip(chunk) {
                *q = [round(pair[0] * inverse), round(pair[1] * inverse)];
            }
            for q in quants {
                words[at] = q;
                at += group;
            }
        }
        for pair in pairs {
            words[at] = [round(pair[0] * inverse), round(pair[1] * inverse)];
            at += group;
        }
        if let [last] = rest {
            words[at] = [round(last * inverse), 0];
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
    let mut largest = [0.0f32; 16];
    for chunk in chunks {
        for i in 0..16 {
            squares[i] += chunk[i] * chunk[i];
            largest[i] = if chunk[i].abs() > largest[i] { chunk[i].abs() } else { largest[i] };
        }
    }
    for (i, v) in rest.iter().enumerate() {
        squares[i] += v * v;
        largest[i] = if v.abs() > largest[i] { v.abs() } else { largest[i] };
    }
    let (mut sum, mut max) = (0.0f32, 0.0f32);
    for i in 0..16 {
        sum += squares[i];
        max = if largest[i] > max { largest[i] } else { max };
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
