//! Weights that are read once, for a few tokens, in the order in which a core reads memory fastest.

use std::ops::Range;

use super::cache;
use super::prefetch::prefetch_l2;
use crate::Matrix;

/// Places that a core reads from at once, where that is faster than one.
const STREAMS: usize = 4;

/// Asks for `bytes` bytes in equal steps, while as many that lie before them are multiplied: from front to back, or
/// ([`cache::has_many_streams`]) in several places at once.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    places: usize,
    /// Bytes from one place to the next.
    part: usize,
    /// Bytes of a step in each place.
    step: usize,
}

impl Ask {
    pub(super) fn new(bytes: usize, steps: usize) -> Self {
        let places = if cache::has_many_streams() { STREAMS } else { 1 };
        let part = bytes.div_ceil(places);
        Ask { places, part, step: part.div_ceil(steps) }
    }

    /// Asks for step `i` of the bytes from `p` on. Past the end of the weights it does no harm.
    #[inline(always)]
    pub(super) fn step(self, p: *const u8, i: usize) {
        for line in i * self.step / 64..((i + 1) * self.step).div_ceil(64) {
            for place in 0..self.places {
                prefetch_l2(p.wrapping_add(place * self.part + 64 * line));
            }
        }
    }
}

/// How rows of weights are multiplied with one token.
pub(super) trait Multiply {
    /// A piece of the token, laid out for it.
    type Acts;

    /// The results of some rows, which are read side by side.
    ///
    /// # Safety
    /// The rows are among those of `w`, whose type and columns are those that `acts` are laid out for; this CPU
    /// has the instruction set.
    unsafe fn rows<const N: usize>(
        w: Matrix<'_>,
        rows: [usize; N],
        acts: &[Self::Acts],
    ) -> [f32; N];
}

/// Sets `y` to the results of `rows`: from front to back, or ([`cache::has_many_streams`]) in as many parts side
/// by side.
///
/// # Safety
/// As for [`Multiply::rows`].
#[inline(always)]
pub(super) unsafe fn in_streams<M: Multiply>(
    w: Matrix<'_>,
    rows: Range<usize>,
    acts: &[M::Acts],
    y: &mut [f32],
) {
    let part = if cache::has_many_streams() { rows.len() / STREAMS } else { 0 };
    for i in 0..part {
        let mut at = [rows.start + i; STREAMS];
        for (s, at) in at.iter_mut().enumerate() {
            *at += s * part;
        }
        // SAFETY: passed on.
        let sums = unsafe { M::rows(w, at, acts) };
        for (s, sum) in sums.into_iter().enumerate() {
            y[s * part + i] = sum;
        }
    }
    let done = STREAMS * part;
    for (r, y) in (rows.start + done..rows.end).zip(&mut y[done..]) {
        // SAFETY: passed on.
        [*y] = unsafe { M::rows(w, [r], acts) };
    }
}
