//! What the threads of a tower keep from one matmul of an image to the next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use quant::kernels::Scratch;

/// Scratch of one thread. Grows to what is needed and stays.
#[derive(Default)]
pub(super) struct Own {
    pub(super) kernels: Scratch,
    /// Results on their way to where they belong.
    pub(super) y: Vec<f32>,
}

/// The scratch of all threads.
pub(super) struct Workers {
    own: Vec<Mutex<Own>>,
    inputs: AtomicU64,
}

impl Workers {
    /// For the threads of the pool that this is called in.
    pub(super) fn new() -> Self {
        let own = (0..rayon::current_num_threads()).map(|_| Mutex::default()).collect();
        Workers { own, inputs: AtomicU64::new(1) }
    }

    /// This thread's.
    pub(super) fn own(&self) -> MutexGuard<'_, Own> {
        let index = rayon::current_thread_index().unwrap_or(0) % self.own.len();
        // Whoever panicked while it had this left nothing behind that the next one relies on.
        self.own[index].lock().unwrap_or_else(|e| e.into_inner())
    }

    /// `n` numbers for activations that kernels have not seen: the first of them.
    pub(super) fn inputs(&self, n: usize) -> u64 {
        self.inputs.fetch_add(n as u64, Ordering::Relaxed)
    }
}
