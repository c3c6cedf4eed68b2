//! Handing out the parts of an operation to whichever thread is free.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// What has been taken of one thread's share of an operation: a number of parts from its front (the
/// low half) and from its back (the high half). On a cache line of its own: while nobody steals, only
/// its owner touches it.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Taken(AtomicU64);

impl Taken {
    /// Nothing is taken yet.
    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Takes of a share of `len` parts: what `size` makes of the number that is left, from the back or
    /// the front. Counted from the front of the share; `None` when nothing is left.
    #[inline]
    fn take(&self, len: usize, back: bool, size: impl Fn(usize) -> usize) -> Option<Range<usize>> {
        // Relaxed: what is handed out was published by a barrier before.
        let mut taken = self.0.load(Ordering::Relaxed);
        loop {
            let (from_front, from_back) = (taken as u32 as usize, (taken >> 32) as usize);
            let left = len - from_front - from_back;
            if left == 0 {
                return None;
            }
            let n = size(left);
            let now = taken + ((n as u64) << if back { 32 } else { 0 });
            match self.0.compare_exchange_weak(taken, now, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) if back => return Some(len - from_back - n..len - from_back),
                Ok(_) => return Some(from_front..from_front + n),
                Err(other) => taken = other,
            }
        }
    }
}

/// An iterator over the parts of `0..n` that one thread gets. All threads that share the counters
/// (which start at nothing taken) get all of them, each once.
pub(crate) struct Claims<'a> {
    /// One a thread.
    taken: &'a [Taken],
    n: usize,
    how: How,
}

enum How {
    Shrinking { most: usize },
    Shares { index: usize, exhausted: usize, most: usize },
}

/// The parts of `0..n` that thread `index` of `threads` begins with.
pub(crate) fn share(n: usize, index: usize, threads: usize) -> Range<usize> {
    n * index / threads..n * (index + 1) / threads
}

impl<'a> Claims<'a> {
    /// From front to back, `most` at a time, and towards the end fewer and fewer, so that threads finish
    /// together however fast they are (guided self-scheduling, Polychronopoulos and Kuck 1987).
    pub(crate) fn shrinking(taken: &'a [Taken], n: usize, most: usize) -> Self {
        Claims { taken, n, how: How::Shrinking { most } }
    }

    /// An equal share for every thread, which it goes through from front to back, so that each reads
    /// one stream through memory, at most `most` at a time; who is done takes from the backs of the others.
    pub(crate) fn shares(taken: &'a [Taken], n: usize, index: usize, most: usize) -> Self {
        Claims { taken, n, how: How::Shares { index, exhausted: 0, most } }
    }

    /// How many parts after this claim, the last one, the same thread goes on with, unless others take them.
    pub(crate) fn after(&self, claim: &Range<usize>) -> usize {
        match self.how {
            How::Shares { index, exhausted: 0, .. } => {
                share(self.n, index, self.taken.len()).end - claim.end
            }
            _ => 0,
        }
    }
}

impl Iterator for Claims<'_> {
    type Item = Range<usize>;

    #[inline]
    fn next(&mut self) -> Option<Range<usize>> {
        let threads = self.taken.len();
        match &mut self.how {
            How::Shrinking { most } => {
                let share = |left: usize| (left / threads).clamp(1, *most);
                self.taken[0].take(self.n, false, share)
            }
            How::Shares { index, exhausted, most } => {
                while *exhausted < threads {
                    let of = (*index + *exhausted) % threads;
                    let share = share(self.n, of, threads);
                    // Half of what is left, again and again: the others find something to take
                    // until the end, and then only a little is left that one may wait for.
                    let half = |left: usize| match threads {
                        1 => left.min(*most),
                        _ => left.div_ceil(2).min(*most),
                    };
                    let claim = self.taken[of].take(share.len(), *exhausted > 0, half);
                    if let Some(claim) = claim {
                        return Some(share.start + claim.start..share.start + claim.end);
                    }
                    *exhausted += 1;
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(threads: usize) -> Vec<Taken> {
        (0..threads).map(|_| Taken::default()).collect()
    }

    #[test]
    fn everything_is_claimed_once_whoever_claims() {
        for threads in [1, 2, 5] {
            for n in [0, 1, 2, 3, 17, 432] {
                for shares in [false, true] {
                    let taken = taken(threads);
                    let claims = |i| match shares {
                        true => Claims::shares(&taken, n, i, n.min(20)),
                        false => Claims::shrinking(&taken, n, 8),
                    };
                    let mut all: Vec<usize> = std::thread::scope(|s| {
                        let each: Vec<_> = (0..threads)
                            .map(|i| s.spawn(move || claims(i).flatten().collect::<Vec<_>>()))
                            .collect();
                        each.into_iter().flat_map(|t| t.join().unwrap()).collect()
                    });
                    all.sort_unstable();
                    assert!(all.into_iter().eq(0..n), "{threads} threads, {n}, shares {shares}");
                }
            }
        }
    }

    #[test]
    fn the_last_claims_are_small() {
        let taken = taken(2);
        let sizes: Vec<usize> = Claims::shrinking(&taken, 40, 8).map(|c| c.len()).collect();
        assert_eq!(sizes, [8, 8, 8, 8, 4, 2, 1, 1]);
    }

    #[test]
    fn a_share_is_one_stream_and_shrinking_pieces_of_it_can_be_stolen() {
        let taken = taken(2);
        let mut own = Claims::shares(&taken, 100, 1, 100);
        assert_eq!(own.next(), Some(50..75));
        assert_eq!(own.next(), Some(75..88));
        let other: Vec<_> = Claims::shares(&taken, 100, 0, 100).collect();
        assert!(other.is_sorted_by_key(|c| c.start >= 50), "its own share first");
        let stolen: Vec<_> = other.into_iter().filter(|c| c.start >= 50).collect();
        assert_eq!(stolen[0], 94..100);
        assert!(stolen.is_sorted_by(|a, b| a.start == b.end));
        assert_eq!(own.next(), None);
    }

    #[test]
    fn what_comes_after_a_claim_is_known_within_a_share() {
        let taken = taken(2);
        let mut own = Claims::shares(&taken, 100, 0, 8);
        let mut seen = vec![];
        while let Some(claim) = own.next() {
            seen.push((claim.clone(), own.after(&claim)));
        }
        assert_eq!(seen[..3], [(0..8, 42), (8..16, 34), (16..24, 26)]);
        assert!(seen.iter().all(|(claim, after)| claim.len() <= 8 && *after <= 50 - claim.len()));
        // From the back of the other share: nobody knows what comes.
        assert!(seen.iter().all(|(claim, after)| claim.start < 50 || *after == 0));
        let all = Claims::shrinking(&taken, 100, 8);
        assert_eq!(all.after(&(0..8)), 0);
    }
}
