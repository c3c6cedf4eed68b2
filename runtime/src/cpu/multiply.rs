//! Matmuls as one thread has its part of them: claims of output features, activations in the form that the
//! kernels read, memory asked for ahead.
//!
//! SAFETY, for access to shared buffers: see [`worker`](super::worker). Columns belong to the thread that
//! claimed them.

use std::ops::Range;

use quant::Matrix;
use quant::codec::QK;
use quant::kernels::{Packing, Rows};

use super::SMALL;
use super::ahead::{Ahead, Between};
use super::buffers::{Quantized, packed_rows};
use super::claims::{Claims, share};
use super::shared::SharedBuf;
use super::worker::Worker;
use crate::weights::WeightMatrix;

/// Rows of a strip of the kernels.
const STRIP: usize = 16;

/// Rows that a tile kernel works on at once, at most: so many are claimed of a matmul of many tokens.
pub(super) const CLAIM: usize = 128;

/// Rows between one whose results are written and the one whose place is asked for.
pub(super) const WRITE_AHEAD: usize = 8;

/// The most tokens for which each thread goes through weights from front to back, so that those to come can be asked
/// for. With more, reading them takes a small part of the time.
const STREAMED: usize = 64;

/// Claims of so small a part of a thread's share are the last ones.
const LAST: usize = 4;

/// A matrix and the column of the output where its features begin.
pub(super) type Placed<'w> = (&'w WeightMatrix, usize);

impl<'a> Worker<'a> {
    /// How `cols` activations of the rows are laid out for the tiles of all of these matrices; `None`
    /// where they are read as they are, or by each in its own way.
    pub(super) fn packing(&self, readers: &[&WeightMatrix], cols: usize) -> Option<Packing> {
        if !self.split || self.row_tile() == 1 {
            return None;
        }
        let of = |w: &WeightMatrix| self.cpu.kernels.packing(w.dtype, self.active.len(), cols);
        let packing = of(readers.first()?)?;
        readers.iter().all(|w| of(w) == Some(packing)).then_some(packing)
    }

    /// Hands out the parts `0..n` of an operation, each to one thread; for many tokens at most `most` at a
    /// time. Every operation that does so multiplies one set of activations.
    pub(super) fn claim(&mut self, n: usize, most: usize) -> Claims<'a> {
        let threads = self.cpu.threads;
        let taken = &self.cpu.claims[self.claims * threads..][..threads];
        self.claims += 1;
        self.scratch.set_input(self.pass.number << 16 | self.claims as u64);
        let tokens = self.active.len();
        if tokens <= SMALL {
            Claims::shares(taken, n, self.index, n)
        } else if tokens <= STREAMED {
            Claims::shares(taken, n, self.index, most)
        } else {
            Claims::shrinking(taken, n, most)
        }
    }

    /// Waits for the other threads at the end of an operation. Meanwhile it asks memory for where its
    /// share of the next operation's weights begins: `side_by_side` matrices of which it takes the same
    /// rows, or else one after the other.
    pub(super) fn wait_and_ask(&self, next: &[&WeightMatrix], side_by_side: bool) {
        let mut ahead = Ahead::default();
        if self.active.len() <= STREAMED {
            let unit = if side_by_side { QK } else { STRIP };
            let parts = |w: &WeightMatrix| w.rows.div_ceil(unit);
            let total =
                if side_by_side { parts(next[0]) } else { next.iter().map(|w| parts(w)).sum() };
            let mut first = share(total, self.index, self.cpu.threads).start;
            for w in next {
                if first < parts(w) {
                    ahead.ask(self.view(w), first * unit);
                    if !side_by_side {
                        break;
                    }
                } else {
                    first -= parts(w);
                }
            }
        }
        self.cpu.barrier.wait_and(|| ahead.step());
        ahead.rest();
    }

    /// h or a for the next matmul, in the form in which it was left.
    ///
    /// # Safety
    /// It was written before a barrier, and is next written after another.
    pub(super) unsafe fn input<'b>(
        &self,
        quantized: &'b Quantized,
        x: &'b SharedBuf<f32>,
    ) -> Rows<'b>
    where
        'a: 'b,
    {
        // SAFETY: the caller's.
        unsafe {
            match self.packing {
                Some(packing) => packed_rows(&self.cpu.shared.packed, packing),
                None => quantized.rows(x, self.active.len()),
            }
        }
    }

    pub(super) fn view(&self, w: &WeightMatrix) -> Matrix<'a> {
        w.view(self.pass.file)
    }

    /// out[t][column + r] = input[t] · w[r] for every matrix, then `finish` on each finished piece. Towards the
    /// end of it a few rows' threads ask for what they read `between` this and the next matmul.
    pub(super) fn matmul(
        &mut self,
        matrices: &[Placed<'_>],
        input: Rows<'_>,
        out: &SharedBuf<f32>,
        ld: usize,
        between: Between,
        finish: impl Fn(&mut [f32]),
    ) {
        let parts = |w: &WeightMatrix| w.rows.div_ceil(STRIP);
        let total = matrices.iter().map(|(w, _)| parts(w)).sum();
        let mut asked = self.active.len() > SMALL;
        let mut claims = self.claim(total, CLAIM / STRIP);
        while let Some(claim) = claims.next() {
            self.scratch.set_coming(claims.after(&claim) * STRIP);
            if !asked && claim.len() * self.cpu.threads * LAST <= total {
                asked = true;
                between.ask();
            }
            let mut before = 0; // strips of the matrices before this one
            for &(w, column) in matrices {
                let here = parts(w);
                let from = claim.start.clamp(before, before + here) - before;
                let to = claim.end.clamp(before, before + here) - before;
                before += here;
                let rows = from * STRIP..(to * STRIP).min(w.rows);
                if !rows.is_empty() {
                    self.multiply(w, rows, input, out, column, ld, &finish);
                }
            }
        }
    }

    /// [`Worker::matmul`] of some rows of one matrix.
    #[allow(clippy::too_many_arguments)]
    fn multiply(
        &mut self,
        w: &WeightMatrix,
        rows: Range<usize>,
        input: Rows<'_>,
        out: &SharedBuf<f32>,
        column: usize,
        ld: usize,
        finish: &impl Fn(&mut [f32]),
    ) {
        let (n, len, first) = (self.active.len(), rows.len(), column + rows.start);
        if n == 1 {
            // SAFETY: these columns belong to the claim.
            let y = unsafe { out.write(first..first + len) };
            self.cpu.kernels.matmul(self.view(w), rows, input, y, len, self.scratch);
            finish(y);
            return;
        }
        self.tile.resize(self.tile.len().max(n * len), 0.0);
        self.cpu.kernels.matmul(self.view(w), rows, input, self.tile, len, self.scratch);
        finish(&mut self.tile[..n * len]);
        for (t, from) in self.tile.chunks_exact(len).take(n).enumerate() {
            let at = t * ld + first;
            out.ask_to_write(at + WRITE_AHEAD * ld..at + WRITE_AHEAD * ld + len);
            // SAFETY: these columns belong to the claim.
            unsafe { out.write(at..at + len) }.copy_from_slice(from);
        }
    }
}
