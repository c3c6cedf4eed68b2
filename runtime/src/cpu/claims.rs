//! Handing out the parts of an operation to whichever thread is free.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An iterator over the parts of `0..n` that one thread gets. All threads that share the counter
/// (which starts at zero) get all of them, each once.
pub(crate) struct Claims<'a> {
    counter: &'a AtomicUsize,
    n: usize,
    /// A claim is what is left divided by this, at least one.
    divisor: usize,
}

impl<'a> Claims<'a> {
    /// One at a time: for parts that are large enough.
    pub(crate) fn single(counter: &'a AtomicUsize, n: usize) -> Self {
        Claims { counter, n, divisor: usize::MAX }
    }

    /// Large claims first, then ever smaller ones (guided self-scheduling, Polychronopoulos & Kuck
    /// 1987): long streams through memory, and threads that finish together.
    pub(crate) fn guided(counter: &'a AtomicUsize, n: usize, threads: usize) -> Self {
        // Alone, there is nobody to finish with.
        Claims { counter, n, divisor: if threads == 1 { 1 } else { 2 * threads } }
    }
}

impl Iterator for Claims<'_> {
    type Item = Range<usize>;

    #[inline]
    fn next(&mut self) -> Option<Range<usize>> {
        // Relaxed: what is claimed was published by a barrier before.
        let mut from = self.counter.load(Ordering::Relaxed);
        while from < self.n {
            let to = from + ((self.n - from) / self.divisor).max(1);
            let claim =
                self.counter.compare_exchange_weak(from, to, Ordering::Relaxed, Ordering::Relaxed);
            match claim {
                Ok(_) => return Some(from..to),
                Err(now) => from = now,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_claimed_once_whoever_claims() {
        for threads in [1, 2, 5] {
            for n in [0, 1, 2, 3, 17, 432] {
                for guided in [false, true] {
                    let counter = AtomicUsize::new(0);
                    let claims = || match guided {
                        true => Claims::guided(&counter, n, threads),
                        false => Claims::single(&counter, n),
                    };
                    let mut all: Vec<usize> = std::thread::scope(|s| {
                        let each: Vec<_> = (0..threads)
                            .map(|_| s.spawn(|| claims().flatten().collect::<Vec<_>>()))
                            .collect();
                        each.into_iter().flat_map(|t| t.join().unwrap()).collect()
                    });
                    all.sort_unstable();
                    assert!(all.into_iter().eq(0..n), "{threads} threads, {n}, guided {guided}");
                }
            }
        }
    }

    #[test]
    fn guided_claims_shrink() {
        let counter = AtomicUsize::new(0);
        let sizes: Vec<usize> = Claims::guided(&counter, 100, 2).map(|c| c.len()).collect();
        assert_eq!(sizes[0], 25);
        assert!(sizes.is_sorted_by(|a, b| a >= b) && sizes.ends_with(&[1, 1, 1]));
        let counter = AtomicUsize::new(0);
        assert_eq!(Claims::guided(&counter, 100, 1).count(), 1);
    }
}
