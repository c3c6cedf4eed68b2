//! Many tokens: strips of rows, decoded and transposed once, times tiles of tokens.
//!
//! A panel is `[k][2 vectors of rows]` f32. For each `k` a tile loads those two vectors and, one at a
//! time, the tokens' activations `k`, each into all lanes: two multiply-adds a load, sums in registers.

use std::ops::Range;

use super::{FloatIsa, Job, Scratch, Weight};
use crate::kernels::packing::tiles;
use crate::kernels::prefetch::prefetch;

/// Columns of a panel, which then stays in the second-level cache beside a tile's activations.
const COLS: usize = 512;

/// How far ahead of the loads each row is asked for, in bytes.
const AHEAD: usize = 256;

#[inline(always)]
pub(super) fn matmul<I: FloatIsa, W: Weight>(isa: I, job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, ld } = job;
    let strip = 2 * I::WIDTH;
    let panel = scratch.panel.at_least(COLS.min(x.cols.next_multiple_of(I::WIDTH)) * strip * 4);
    let panel: &mut [f32] = bytemuck::cast_slice_mut(panel);
    let mut at = [std::ptr::null(); 32];
    let at = &mut at[..strip];
    for r0 in rows.clone().step_by(strip) {
        let m = strip.min(rows.end - r0);
        // A short strip repeats its last row; what comes of the repetitions is not stored.
        for (r, at) in at.iter_mut().enumerate() {
            *at = w.row(r0 + r.min(m - 1)).as_ptr();
        }
        for c0 in (0..x.cols).step_by(COLS) {
            let cols = c0..x.cols.min(c0 + COLS);
            for half in 0..2 {
                let rows = &at[half * I::WIDTH..][..I::WIDTH];
                // SAFETY: each row has those columns, and the panel room for them.
                unsafe {
                    unpack::<I, W>(isa, rows, cols.clone(), panel[half * I::WIDTH..].as_mut_ptr())
                };
            }
            for of in tiles(x.n, I::TOKENS) {
                let t0 = of.start;
                let tile = Tile {
                    panel: panel.as_ptr(),
                    x: x.x[t0 * x.cols + c0..].as_ptr(),
                    stride: x.cols,
                    cols: cols.len(),
                    y: y[t0 * ld + (r0 - rows.start)..].as_mut_ptr(),
                    ld,
                    rows: m,
                    first: c0 == 0,
                };
                // SAFETY: as the fields say, by the sizes that `Job` promises.
                unsafe { run(isa, tile, of.len()) };
            }
        }
    }
}

/// Decodes and transposes `cols` of a vector of rows, to `[k][2 vectors]` (of which it is one).
///
/// # Safety
/// `rows` must point to `I::WIDTH` rows that have these columns, and the panel must have room.
#[inline(always)]
unsafe fn unpack<I: FloatIsa, W: Weight>(
    isa: I,
    rows: &[*const u8],
    cols: Range<usize>,
    panel: *mut f32,
) {
    let stride = 2 * I::WIDTH;
    let mut k = cols.start;
    while k + I::WIDTH <= cols.end {
        // SAFETY: these columns are there, the caller says.
        unsafe {
            for row in rows {
                prefetch(row.wrapping_add(k * W::BYTES + AHEAD));
            }
            let out = panel.add((k - cols.start) * stride);
            isa.transpose::<W>(rows, k * W::BYTES, out, stride);
        }
        k += I::WIDTH;
    }
    if k < cols.end {
        // The rest of each row, padded to a vector with zeros.
        let mut padded = [[0u8; 64]; 16];
        let mut at = [std::ptr::null(); 16];
        let rest = (cols.end - k) * W::BYTES;
        for ((padded, at), row) in padded.iter_mut().zip(&mut at).zip(rows) {
            // SAFETY: the row has columns up to `cols.end`.
            let row = unsafe { std::slice::from_raw_parts(row.add(k * W::BYTES), rest) };
            padded[..rest].copy_from_slice(row);
            *at = padded.as_ptr();
        }
        // SAFETY: `padded` holds vectors; `COLS` is a multiple of their length, so that a whole one
        // fits the end of the panel.
        unsafe {
            let out = panel.add((k - cols.start) * stride);
            isa.transpose::<W>(&at[..I::WIDTH], 0, out, stride);
        }
    }
}

/// One call of the tile kernel for `N` tokens.
#[derive(Clone, Copy)]
struct Tile {
    /// `cols` times two vectors.
    panel: *const f32,
    /// `N` times `cols` activations, `stride` apart.
    x: *const f32,
    stride: usize,
    cols: usize,
    /// `N` times `rows` results, `ld` apart.
    y: *mut f32,
    ld: usize,
    rows: usize,
    /// Are results to be set, rather than added to?
    first: bool,
}

#[inline(always)]
unsafe fn run<I: FloatIsa>(isa: I, tile: Tile, tokens: usize) {
    // SAFETY: passed on. The guards keep tiles that no part of the tokens asks for from being made.
    unsafe {
        match tokens {
            1 => kernel::<I, 1>(isa, tile),
            2 => kernel::<I, 2>(isa, tile),
            3 => kernel::<I, 3>(isa, tile),
            4 => kernel::<I, 4>(isa, tile),
            5 => kernel::<I, 5>(isa, tile),
            6 => kernel::<I, 6>(isa, tile),
            7 if I::TOKENS >= 7 => kernel::<I, 7>(isa, tile),
            8 if I::TOKENS >= 8 => kernel::<I, 8>(isa, tile),
            9 if I::TOKENS >= 9 => kernel::<I, 9>(isa, tile),
            10 if I::TOKENS >= 10 => kernel::<I, 10>(isa, tile),
            11 if I::TOKENS >= 11 => kernel::<I, 11>(isa, tile),
            12 if I::TOKENS >= 12 => kernel::<I, 12>(isa, tile),
            n => unreachable!("{n} tokens in a tile"),
        }
    }
}

#[inline(always)]
unsafe fn kernel<I: FloatIsa, const N: usize>(isa: I, tile: Tile) {
    let Tile { panel, x, stride, cols, y, ld, rows, first } = tile;
    let mut acc = [[isa.zero(); 2]; N];
    for k in 0..cols {
        // SAFETY: see `Tile`.
        unsafe {
            let w = panel.add(k * 2 * I::WIDTH);
            let w = [isa.load_f32(w.cast()), isa.load_f32(w.add(I::WIDTH).cast())];
            for (t, acc) in acc.iter_mut().enumerate() {
                let x = isa.splat(*x.add(t * stride + k));
                acc[0] = isa.fma(w[0], x, acc[0]);
                acc[1] = isa.fma(w[1], x, acc[1]);
            }
        }
    }
    for (t, acc) in acc.into_iter().enumerate() {
        let mut out = [0.0f32; 32];
        assert!(2 * I::WIDTH <= out.len());
        // SAFETY: `rows` results are there, see `Tile`; `out` holds two vectors.
        unsafe {
            let y = y.add(t * ld);
            let whole = rows == 2 * I::WIDTH;
            let at = if whole { y } else { out.as_mut_ptr() };
            if !whole && !first {
                std::ptr::copy_nonoverlapping(y, at, rows);
            }
            for (half, mut sum) in acc.into_iter().enumerate() {
                let at = at.add(half * I::WIDTH);
                if !first {
                    sum = isa.add(isa.load_f32(at.cast()), sum);
                }
                isa.store(sum, at);
            }
            if !whole {
                std::ptr::copy_nonoverlapping(at, y, rows);
            }
        }
    }
}
