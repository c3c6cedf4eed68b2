//! Intel's matrix unit (AMX) with bf16: many tokens of activations that were laid out as bf16, with weights
//! of any block format unpacked to it. Everything else is done with AVX-512.
//!
//! The unit multiplies bytes twice as fast, but sums of bytes have to leave it for every scale: once in 32
//! columns, 16 × 16 of them, through memory. That takes four times as long as the products
//! (quant/benches/NOTES.md). As bf16, weights take their scales with them. Rounding both factors to 8 bits
//! costs less than int8 activations do: each is off by 2⁻⁹ of itself at most, not by 2⁻⁸ of the largest
//! of 32.

mod detect;
mod tile;
mod unpack;

pub(super) use detect::available;

use std::ops::Range;

use super::avx512::{self, Strip};
use super::packing::tiles;
use super::prefetch::prefetch_slice_l2;
use super::sweep::At;
use super::{AmxBf16, Job, Packed, Scratch};
use crate::codec::QK;
use tile::{Call, LINE, Lot, SIDE, STRIP_STEP};

/// The most tokens of a tile, and up to how many are not multiplied in tiles.
pub(super) const TILE: (usize, usize) = (SIDE, 12);

/// Rows that are multiplied together: two strips.
const PAIR: usize = 2 * SIDE;
/// The most steps that are taken at once: each time, results are read and written again.
const STEPS: usize = 108;
/// What the weights of a pass over the tokens may take of the second-level cache.
const PANELS: usize = 448 << 10;

impl AmxBf16 {
    pub(super) fn matmul(self, job: Job<'_>, scratch: &mut Scratch) {
        let Some(packed) = job.x.packed else { return self.avx512().matmul(job, scratch) };
        avx512::with_format!(job.w.dtype(), F => {
            // SAFETY: the token proves the features and the leave; `job` was checked, and its weights are `F`'s.
            unsafe {
                multiply::<F>(job, packed, scratch);
                tile::release();
            }
        });
    }

    /// Products of tiles back to back; the number of operations.
    pub(super) fn peak(self) -> f64 {
        // SAFETY: the token proves the features and the leave.
        unsafe { tile::peak() }
    }

    /// Rounds whole blocks of 32 activations to bf16, the `t`-th token of a tile of `tokens`.
    pub(super) fn pack(self, x: &[f32], (t, tokens): (usize, usize), out: &mut [u8]) {
        assert!(
            x.len().is_multiple_of(QK) && out.len() == x.len() / QK * tokens * LINE && t < tokens
        );
        // SAFETY: the token proves the features, and `out` has a line for each of the token's blocks.
        unsafe { unpack::round(x, t * LINE, tokens * LINE, out) }
    }
}

/// # Safety
/// The matrix unit, leave to use it, AVX-512 with BF16; `job` is what its documentation says, its weights
/// are `F`'s, and `packed` is what [`AmxBf16::pack`] made.
unsafe fn multiply<F: Strip>(job: Job<'_>, packed: Packed<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, ld } = job;
    // What the tile registers are laid out for: tokens and rows.
    let mut shape = ([0; 2], [0; 2]);
    let (r00, unit) = (rows.start, F::BLOCK_LEN.max(QK));
    for piece in tiles(x.cols / unit, STEPS * QK / unit) {
        let columns = piece.start * unit..piece.end * unit;
        let steps = columns.len() / QK;
        let block = |c: usize| c / F::BLOCK_LEN * F::BLOCK_BYTES;
        let of_row = block(columns.start)..block(columns.end);
        let pair_bytes = 2 * steps * STRIP_STEP;
        let pass = (PANELS / pair_bytes).clamp(1, 8) * PAIR;
        let panels = scratch.panel.at_least(pass / PAIR * pair_bytes);
        for p0 in rows.clone().step_by(pass) {
            let end = rows.end.min(p0 + pass);
            let pairs = || (p0..end).step_by(PAIR).map(|r0| r0..end.min(r0 + PAIR));
            for (of, panel) in pairs().zip(panels.chunks_mut(pair_bytes)) {
                let stride = of.len().div_ceil(SIDE) * STRIP_STEP;
                for (r0, panel) in of.step_by(SIDE).zip(panel.chunks_mut(STRIP_STEP)) {
                    let at = At::strip(w, r0, end, &mut scratch.spare).skip(of_row.start);
                    // SAFETY: the rows hold these steps, and the panel has room for them.
                    unsafe { unpack::unpack::<F>(at, steps, panel.as_mut_ptr(), stride) };
                }
            }
            let of_tokens = tiles(x.n, SIDE);
            let count = of_tokens.len();
            let mut of_tokens = of_tokens.enumerate();
            while let Some((i, first)) = of_tokens.next() {
                let second = of_tokens.next().map_or(first.end..first.end, |(_, tile)| tile);
                // The rows of the next pass, a few at a time.
                let next = |i: usize| end + i * pass / count;
                for r in next(i)..next(i + 2).min(rows.end) {
                    prefetch_slice_l2(&w.row(r)[of_row.clone()]);
                }
                for (of, panel) in pairs().zip(panels.chunks(pair_bytes)) {
                    let y = y.as_mut_ptr();
                    let lot = |tokens: &Range<usize>| Lot {
                        pack: packed.bytes[packed.packing.place(tokens, columns.clone())].as_ptr(),
                        tokens: tokens.len(),
                        y: y.wrapping_add(tokens.start * ld + of.start - r00),
                    };
                    let call = Call {
                        lots: [lot(&first), lot(&second)],
                        panel: panel.as_ptr(),
                        rows: [of.len().min(SIDE), of.len().saturating_sub(SIDE)],
                        steps,
                        ld,
                        add: columns.start > 0,
                    };
                    let now = (call.lots.map(|lot| lot.tokens), call.rows);
                    // SAFETY: see above; `y` has room for these tokens' results of these rows (`Job`), and
                    // the registers are laid out for them.
                    unsafe {
                        if now != shape {
                            shape = now;
                            tile::configure(now.0, now.1);
                        }
                        tile::multiply(&call);
                    }
                }
            }
        }
    }
}
