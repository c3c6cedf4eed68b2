//! Weights asked for before they are wanted. Between two matmuls the threads wait for each other and
//! go through norms and softmaxes, microseconds in which memory would have nothing to do, and a stream
//! that begins cold waits for its first lines.

use quant::Matrix;
use quant::kernels::ask_for;

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
