//! In which order weights are read, and how they are asked for ahead of their use, so that a core reads memory as
//! fast as it can.

use std::ops::Range;

use super::cache;
use super::prefetch::prefetch_l2;
use crate::Matrix;

/// Places that a core reads from at once, where that is faster than one.
const STREAMS: usize = 4;

/// Bytes of a line of the caches.
const LINE: usize = 64;

/// How a run of bytes is asked for in equal steps, while as many that lie before them are multiplied: from front to
/// back, or ([`cache::has_many_streams`]) in several places at once.
#[derive(Clone, Copy)]
pub(super) struct Run {
    places: usize,
    /// Bytes from one place to the next.
    apart: usize,
    /// Bytes of a step in each place.
    step: usize,
}

impl Run {
    pub(super) fn new(bytes: usize, steps: usize) -> Self {
        let places = if cache::has_many_streams() { STREAMS } else { 1 };
        let apart = bytes.div_ceil(places);
        Run { places, apart, step: apart.div_ceil(steps) }
    }

    /// Asks for step `i` of the bytes from `p` on. Past the end of the weights it does no harm.
    #[inline(always)]
    pub(super) fn step(self, p: *const u8, i: usize) {
        for line in i * self.step / LINE..((i + 1) * self.step).div_ceil(LINE) {
            for place in 0..self.places {
                prefetch_l2(p.wrapping_add(place * self.apart + line * LINE));
            }
        }
    }
}

/// The same for rows that may be wanted in part, by a kernel that is called several times meanwhile: it knows itself
/// where it is. (For whole rows and one call [`Run`] is 3 to 5% faster: it has less to keep.)
///
/// Few lines at a time, as a core has only some twenty on their way: a burst would be waited for.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    /// What is asked for next, in the first place.
    at: *const u8,
    /// Where the bytes of this row end that are wanted.
    end: *const u8,
    /// Bytes of a row that are wanted.
    len: usize,
    /// Bytes from one row to the next.
    stride: usize,
    /// Steps that are left.
    left: usize,
    /// Lines of a step, in each place.
    lines: usize,
    places: usize,
    /// Bytes from one place to the next.
    apart: usize,
}

impl Ask {
    /// `len` bytes of each of `rows` rows, of which the first begins at `first` and the others `stride` bytes apart, in
    /// `steps` steps, or a few less. No step goes beyond a row, unless rows are wanted whole. Nothing is read: any
    /// address will do.
    pub(super) fn new(
        first: *const u8,
        rows: usize,
        len: usize,
        stride: usize,
        steps: usize,
    ) -> Self {
        let places = match cache::has_many_streams() && rows.is_multiple_of(STREAMS) {
            true => STREAMS,
            false => 1,
        };
        let (rows, apart) = (rows / places, rows / places * stride);
        // Whole rows are one run of bytes.
        let (rows, len) = if len == stride { (1, rows * len) } else { (rows, len) };
        let lines = len.div_ceil(LINE).div_ceil((steps / rows.max(1)).max(1));
        let left = if lines == 0 { 0 } else { rows * len.div_ceil(lines * LINE) };
        Ask { at: first, end: first.wrapping_add(len), len, stride, left, lines, places, apart }
    }

    /// Is there something left to ask for?
    pub(super) fn is_open(&self) -> bool {
        self.left > 0
    }

    /// Asks for what belongs to the next step, if there is one.
    #[inline(always)]
    pub(super) fn step(&mut self) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        for line in 0..self.lines {
            for place in 0..self.places {
                prefetch_l2(self.at.wrapping_add(place * self.apart + line * LINE));
            }
        }
        self.at = self.at.wrapping_add(self.lines * LINE);
        if self.at >= self.end {
            self.at = self.end.wrapping_add(self.stride.wrapping_sub(self.len));
            self.end = self.at.wrapping_add(self.len);
        }
    }
}

/// How rows of weights are multiplied with one token, or several.
pub(super) trait Multiply<const T: usize> {
    /// A piece of the tokens, laid out for it.
    type Acts;

    /// The results of some rows, which are read side by side, by token.
    ///
    /// # Safety
    /// The rows are among those of `w`, whose type and columns are those that `acts` are laid out for; this CPU
    /// has the instruction set.
    unsafe fn rows<const N: usize>(
        w: Matrix<'_>,
        rows: [usize; N],
        acts: &[Self::Acts],
    ) -> [[f32; N]; T];
}

/// Sets `y`, `[T, rows]` with rows `ld` apart, to the results of `rows`: from front to back, or
/// ([`cache::has_many_streams`]) in as many parts side by side.
///
/// # Safety
/// As for [`Multiply::rows`].
#[inline(always)]
pub(super) unsafe fn in_streams<M: Multiply<T>, const T: usize>(
    w: Matrix<'_>,
    rows: Range<usize>,
    acts: &[M::Acts],
    y: &mut [f32],
    ld: usize,
) {
    let part = if cache::has_many_streams() { rows.len() / STREAMS } else { 0 };
    for i in 0..part {
        let mut at = [rows.start + i; STREAMS];
        for (s, at) in at.iter_mut().enumerate() {
            *at += s * part;
        }
        // SAFETY: passed on.
        let sums = unsafe { M::rows(w, at, acts) };
        for (t, sums) in sums.into_iter().enumerate() {
            for (s, sum) in sums.into_iter().enumerate() {
                y[t * ld + s * part + i] = sum;
            }
        }
    }
    for i in STREAMS * part..rows.len() {
        // SAFETY: passed on.
        let sums = unsafe { M::rows(w, [rows.start + i], acts) };
        for (t, [sum]) in sums.into_iter().enumerate() {
            y[t * ld + i] = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that are asked for in each of `steps` steps, by where they begin.
    fn asked(mut ask: Ask, steps: usize) -> Vec<Vec<usize>> {
        (0..steps)
            .map(|_| {
                let (at, lines) = (ask.at as usize, if ask.left > 0 { ask.lines } else { 0 });
                ask.step();
                (0..ask.places * lines)
                    .map(|i| at + i % ask.places * ask.apart + i / ask.places * LINE)
                    .collect()
            })
            .collect()
    }

    #[test]
    fn all_that_is_wanted_is_asked_for_in_equal_steps() {
        for (rows, len, stride, steps) in [
            (16, 576, 576, 32),
            (32, 576, 576, 107),
            (13, 360, 360, 20),
            (32, 2880, 5760, 400),
            (3, 100, 210, 4),
            (16, 1280, 2560, 21),
            (32, 360, 720, 33),
            (16, 18, 18, 1000),
        ] {
            let first = 1 << 20 | 18;
            let steps = asked(Ask::new(first as *const u8, rows, len, stride, steps), steps);
            let mut lines = steps.concat();
            let most = steps.iter().map(Vec::len).max().expect("steps");
            assert!(most <= lines.len().div_ceil(steps.len()) + STREAMS, "{most} lines in a step");
            lines.sort_unstable();
            for byte in (0..rows).flat_map(|r| (0..len).map(move |i| first + r * stride + i)) {
                let before = lines.partition_point(|&line| line <= byte);
                assert!(before > 0 && byte < lines[before - 1] + LINE, "byte {}", byte - first);
            }
            // What is asked for in vain: the rest of a step, a row in each place.
            let needed = rows * len.div_ceil(LINE);
            assert!(lines.len() < needed + rows * most, "{} for {needed}", lines.len());
        }
        let nothing = Ask::new(std::ptr::null(), 0, 576, 576, 10);
        assert!(asked(nothing, 10).concat().is_empty());
    }
}
