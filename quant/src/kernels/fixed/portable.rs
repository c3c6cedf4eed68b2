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
    scale[rows..].fill(0.0);
    let mut inverse = [0.0f32; PANEL];
    for r in 0..rows {
        scale[r] = block_scale(&x[r * ld..][..n]);
        inverse[r] = inverse_of(scale[r]);
    }
    match group {
        TILE => interleave::<TILE>(block, &inverse[..rows], q),
        _ => interleave::<PANEL>(block, &inverse[..rows], q),
    }
}

/// Values of a row that are rounded together.
const CHUNK: usize = 16;

/// Rounds rows and writes their pairs in turns, `[len / 2][G][2]`.
#[inline(always)]
fn interleave<const G: usize>(block: Block<'_>, inverse: &[f32], q: &mut [i16]) {
    let Block { x, ld, n, .. } = block;
    let words: &mut [[[i16; 2]; G]] = q.as_chunks_mut::<2>().0.as_chunks_mut::<G>().0;
    let mut at = 0;
    for words in words.chunks_mut(CHUNK / 2) {
        let mut pairs = [[0u32; CHUNK / 2]; G];
        for (r, inverse) in inverse.iter().enumerate() {
            let row = &x[r * ld..][..n];
            let mut values = [0.0f32; CHUNK];
            match row.get(at..at + CHUNK) {
                Some(row) => values.copy_from_slice(row),
                None => {
                    let rest = &row[at.min(n)..];
                    values[..rest.len()].copy_from_slice(rest);
                }
            }
            let mut rounded = [0u32; CHUNK];
            for i in 0..CHUNK {
                rounded[i] = (values[i] * inverse + ROUND).to_bits();
            }
            for i in 0..CHUNK / 2 {
                pairs[r][i] = pair_of(rounded[2 * i], rounded[2 * i + 1]);
            }
        }
        for (i, words) in words.iter_mut().enumerate() {
            let mut column = [0u32; G];
            for r in 0..G {
                column[r] = pairs[r][i];
            }
            for r in 0..G {
                words[r] = [column[r] as i16, (column[r] >> 16) as i16];
            }
        }
        at += CHUNK;
    }
}

/// 1.5 · 2²³: added to a magnitude below 2²² it leaves the nearest whole number, ties to even, in the
/// lowest bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// The 16-bit numbers in the lowest bits of two words.
#[inline(always)]
pub(super) fn pair_of(low: u32, high: u32) -> u32 {
    (low & 0xffff) | (high << 16)
}

/// What a value is multiplied with to be a quant. A block of zeros, or of values too small to divide by,
/// becomes zeros.
#[inline(always)]
pub(super) fn inverse_of(scale: f32) -> f32 {
    if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 }
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
    fold::<8>(&mut squares, &mut largest);
    fold::<4>(&mut squares, &mut largest);
    fold::<2>(&mut squares, &mut largest);
    fold::<1>(&mut squares, &mut largest);
    scale_of(squares[0], f32::from_bits(largest[0]))
}

/// Takes the second half of `2 W` lanes into the first.
#[inline(always)]
fn fold<const W: usize>(squares: &mut [f32; 16], largest: &mut [u32; 16]) {
    for i in 0..W {
        squares[i] += squares[i + W];
        largest[i] = largest[i].max(largest[i + W]);
    }
}

/// The smallest scale of values with this sum of squares, the largest of which has this size.
#[inline(always)]
pub(super) fn scale_of(squares: f32, largest: f32) -> f32 {
    let (by_norm, by_size) = (squares.sqrt() / NORM, largest / 32_767.0);
    if by_norm > by_size { by_norm } else { by_size }
}

/// See [`Kernels::multiply_fixed`](super::Kernels::multiply_fixed).
#[inline(always)]
pub(super) fn multiply(job: &FixedJob<'_>, y: &mut [f32], ld: usize, add: bool) {
    let Blocks { len, count } = job.blocks;
    for r in 0..job.rows {
        let (tile, row) = (r / TILE, r % TILE);
        let y = &mut y[r * ld..][..PANEL];
        if !add {
            y.fill(0.0);
        }
        for b in 0..count {
            let words = &job.tiles[tile * job.tile_words + b * len * TILE..][..len * TILE];
            let scale = job.tile_scale[tile * job.tile_scales + b * TILE + row];
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
