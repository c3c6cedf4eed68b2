//! Packing of what is summed down the columns: rows of numbers whose columns are the tiles' rows.
//!
//! Plain Rust, inlined into functions compiled for an instruction set, hence without closures; loops over
//! arrays of fixed length are compiled to vectors.

#![allow(clippy::needless_range_loop)]

use super::TILE;
use super::portable::{ROUND, inverse_of, pair_of, scale_of};

/// A block whose columns are packed.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) x: &'a [f32],
    pub(super) ld: usize,
    /// Values of a column.
    pub(super) n: usize,
    /// How many columns.
    pub(super) columns: usize,
    /// Values of a packed block, of which those past `n` are zeros.
    pub(super) len: usize,
}

/// Packs tile after tile.
#[inline(always)]
pub(super) fn pack(block: Columns<'_>, q: &mut [i16], scale: &mut [f32]) {
    let Columns { columns, len, .. } = block;
    scale.fill(0.0);
    for (side, scale) in scale[..columns].chunks_mut(SIDE).enumerate() {
        scales(block, side * SIDE, scale);
    }
    let tiles = q.chunks_exact_mut(len * TILE).zip(scale.as_chunks::<TILE>().0);
    for (t, (q, scale)) in tiles.enumerate() {
        let at = t * TILE;
        let q = q.as_chunks_mut().0;
        match columns - at {
            TILE.. => tile::<true>(block, at, q, scale),
            _ => tile::<false>(block, at, q, scale),
        }
    }
}

/// Columns whose scales are found together.
const SIDE: usize = 256;

/// The scales of the columns from `at` on.
#[inline(always)]
fn scales(block: Columns<'_>, at: usize, scale: &mut [f32]) {
    let (mut squares, mut largest) = ([0.0f32; SIDE], [0.0f32; SIDE]);
    let (squares, largest) = (&mut squares[..scale.len()], &mut largest[..scale.len()]);
    for row in block.x.chunks(block.ld).take(block.n) {
        let row = &row[at..][..scale.len()];
        // As many as there are: a loop of fixed length would be unrolled, and no longer be one of vectors.
        for ((s, l), x) in squares.iter_mut().zip(largest.iter_mut()).zip(row) {
            *s += x * x;
            *l = if x.abs() > *l { x.abs() } else { *l };
        }
    }
    for ((scale, s), l) in scale.iter_mut().zip(squares).zip(largest) {
        *scale = scale_of(*s, *l);
    }
}

/// Packs the columns from `at` on, as many as a tile has if `FULL`.
#[inline(always)]
fn tile<const FULL: bool>(
    block: Columns<'_>,
    at: usize,
    words: &mut [[i16; 2 * TILE]],
    scale: &[f32; TILE],
) {
    let Columns { x, ld, n, columns, .. } = block;
    let mut inverse = [0.0f32; TILE];
    for j in 0..TILE {
        inverse[j] = inverse_of(scale[j]);
    }
    for (pair, words) in words.iter_mut().enumerate() {
        let mut rows = [[0.0f32; TILE]; 2];
        for k in 0..2 {
            let i = 2 * pair + k;
            if i < n {
                let row = &x[i * ld + at..];
                if FULL {
                    rows[k] = *row.first_chunk().expect("as many as there are");
                } else {
                    rows[k][..columns - at].copy_from_slice(&row[..columns - at]);
                }
            }
        }
        let (mut low, mut high) = ([0u32; TILE], [0u32; TILE]);
        for j in 0..TILE {
            low[j] = (rows[0][j] * inverse[j] + ROUND).to_bits();
        }
        for j in 0..TILE {
            high[j] = (rows[1][j] * inverse[j] + ROUND).to_bits();
        }
        let mut pairs = [0u32; TILE];
        for j in 0..TILE {
            pairs[j] = pair_of(low[j], high[j]);
        }
        for j in 0..TILE {
            words[2 * j] = pairs[j] as i16;
            words[2 * j + 1] = (pairs[j] >> 16) as i16;
        }
    }
}
