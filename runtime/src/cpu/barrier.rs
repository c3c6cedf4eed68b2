//! Where the threads of a forward pass meet: spin for a while, then let others run, then sleep.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A reusable barrier for a fixed number of threads.
///
/// Between two operations of a token there are microseconds: a thread that slept would wake too
/// late, so it spins. A thread that is waited for longer than an operation can take has lost its
/// core to another program. Then the best that the others can do is to leave theirs: only onto a core
/// that is free does the system move it.
pub(crate) struct Barrier {
    threads: usize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    broken: AtomicBool,
    /// Threads that sleep or are about to.
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    woken: Condvar,
}

/// Turns of the spin loop before yielding; around 20 µs.
const SPINS: u32 = 1 << 11;
/// How long a thread yields before it sleeps.
const PATIENCE: Duration = Duration::from_micros(200);
/// A sleeping thread looks up this often, should another have panicked.
const NAP: Duration = Duration::from_millis(100);

impl Barrier {
    pub(crate) fn new(threads: usize) -> Self {
        Barrier {
            threads,
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    /// Waits until every thread has called it. What a thread wrote before is visible to all after.
    ///
    /// # Panics
    /// When another thread panicked and will never arrive.
    #[inline]
    pub(crate) fn wait(&self) {
        self.wait_and(|| {});
    }

    /// As [`Barrier::wait`]; does something useful at every turn of the loop that waits.
    #[inline]
    pub(crate) fn wait_and(&self, mut meanwhile: impl FnMut()) {
        if self.threads == 1 {
            return;
        }
        let generation = self.generation.load(Ordering::Relaxed);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            // Sequentially consistent, as in `sleep`: either this thread sees the sleeper, or the
            // sleeper sees the generation.
            self.generation.store(generation.wrapping_add(1), Ordering::SeqCst);
            if self.sleepers.load(Ordering::SeqCst) > 0 {
                let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
                self.woken.notify_all();
            }
            return;
        }
        for _ in 0..SPINS {
            if self.generation.load(Ordering::Acquire) != generation {
                return;
            }
            meanwhile();
            std::hint::spin_loop();
        }
        self.wait_long(generation);
    }

    #[cold]
    fn wait_long(&self, generation: usize) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            std::thread::yield_now();
            if self.generation.load(Ordering::Acquire) != generation {
                return;
            }
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.generation.load(Ordering::SeqCst) == generation {
            assert!(!self.broken.load(Ordering::Relaxed), "another thread panicked");
            held = match self.woken.wait_timeout(held, NAP) {
                Ok((held, _)) => held,
                Err(e) => e.into_inner().0,
            };
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_leaves_before_all_have_come_and_sleepers_wake() {
        let (barrier, counter) = (Barrier::new(3), AtomicUsize::new(0));
        std::thread::scope(|s| {
            for i in 0..3 {
                let (barrier, counter) = (&barrier, &counter);
                s.spawn(move || {
                    for round in 1..=60 {
                        // Now and then somebody is so late that the others sleep.
                        if round % 20 == i {
                            std::thread::sleep(Duration::from_millis(3));
                        }
                        counter.fetch_add(1, Ordering::Relaxed);
                        barrier.wait();
                        assert_eq!(counter.load(Ordering::Relaxed), 3 * round);
                        barrier.wait();
                    }
                });
            }
        });
        assert_eq!(barrier.sleepers.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_panic_reaches_those_who_wait() {
        let barrier = Barrier::new(2);
        std::thread::scope(|s| {
            let waiting = s.spawn(|| barrier.wait());
            let broken = s.spawn(|| {
                let _guard = barrier.guard();
                panic!("on purpose");
            });
            assert!(broken.join().is_err() && waiting.join().is_err());
        });
    }
}
