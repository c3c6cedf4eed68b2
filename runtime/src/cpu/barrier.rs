//! Where the threads of a forward pass meet: spin for a while, then let others run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A reusable barrier for a fixed number of threads.
///
/// Between two operations of a token there are microseconds: a thread that slept would wake too
/// late. Where more threads run than there are cores, spinning would be worse than sleeping, so a
/// thread that has waited for long yields.
pub(crate) struct Barrier {
    threads: usize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    broken: AtomicBool,
}

/// Turns of the spin loop before yielding; around 20 µs.
const SPINS: u32 = 1 << 11;

impl Barrier {
    pub(crate) fn new(threads: usize) -> Self {
        Barrier {
            threads,
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// Waits until every thread has called it. What a thread wrote before is visible to all after.
    ///
    /// # Panics
    /// When another thread panicked and will never arrive.
    #[inline]
    pub(crate) fn wait(&self) {
        if self.threads == 1 {
            return;
        }
        let generation = self.generation.load(Ordering::Relaxed);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.store(generation.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.generation.load(Ordering::Acquire) == generation {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                assert!(!self.broken.load(Ordering::Relaxed), "another thread panicked");
                std::thread::yield_now();
            }
        }
    }

    /// Held while a thread runs: if it unwinds, the others are told instead of waiting for ever.
    pub(crate) fn guard(&self) -> Guard<'_> {
        Guard(self)
    }
}

pub(crate) struct Guard<'a>(&'a Barrier);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
        }
    }
}
