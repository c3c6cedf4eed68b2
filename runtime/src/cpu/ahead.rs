//! Memory asked for before it is wanted. Between two matmuls the threads wait for each other and
//! go through norms and softmaxes, microseconds in which memory would have nothing to do, and a stream
//! that begins cold waits for its first lines. What norms and softmaxes themselves read has been displaced by
//! the weights since the last layer, so it is asked for towards the end of the matmul before.

use quant::Matrix;
use quant::kernels::{ask_for, ask_for_line};

/// Bytes that are asked for of one matrix: what memory delivers between two matmuls.
const BYTES: usize = 16 << 10;
/// Bytes of a step: few enough not to be late when the wait is over.
const STEP: usize = 256;

/// What is still to be asked for, of at most two matrices.
#[derive(Default)]
pub(super) struct Ahead<'a> {
    streams: [&'a [u8]; 2],
}

impl<'a> Ahead<'a> {
    /// Adds the weights from `row` on.
    pub(super) fn ask(&mut self, w: Matrix<'a>, row: usize) {
        let bytes = &w.data()[(row * w.row_bytes()).min(w.data().len())..];
        let free = self.streams.iter_mut().find(|s| s.is_empty());
        *free.expect("at most two matrices") = &bytes[..BYTES.min(bytes.len())];
    }

    /// Asks for a little.
    #[inline]
    pub(super) fn step(&mut self) {
        for stream in &mut self.streams {
            let (now, later) = stream.split_at(STEP.min(stream.len()));
            ask_for(now);
            *stream = later;
        }
    }

    /// Asks for all that is left.
    pub(super) fn rest(self) {
        self.streams.into_iter().for_each(ask_for);
    }
}

/// What is read between two matmuls: at most four pieces.
#[derive(Default)]
pub(super) struct Between {
    pieces: [Piece; 4],
    n: usize,
}

/// Bytes that are never read by way of this address.
#[derive(Clone, Copy)]
struct Piece {
    at: *const u8,
    bytes: usize,
}

impl Default for Piece {
    fn default() -> Self {
        Piece { at: std::ptr::null(), bytes: 0 }
    }
}

impl Between {
    /// With these as well.
    pub(super) fn with<T>(mut self, numbers: *const [T]) -> Self {
        self.pieces[self.n] = Piece { at: numbers.cast(), bytes: numbers.len() * size_of::<T>() };
        self.n += 1;
        self
    }

    /// Asks for all of it.
    pub(super) fn ask(&self) {
        for piece in &self.pieces[..self.n] {
            for line in 0..piece.bytes.div_ceil(64) {
                ask_for_line(piece.at.wrapping_add(64 * line));
            }
        }
    }
}
