//! When the GPU fails at work: the CPU goes on.
//!
//! A lost device takes its keys and values with it, so the session remembers what each sequence was
//! fed, and feeds it to the CPU. What was said until then stands; the same tokens in the same
//! places are read again, images whole.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Session;
use crate::batch::Batch;
use crate::error::RuntimeError;
use crate::gpu::GpuError;
use crate::prompt::Prompt;

/// What the cache holds, by sequence.
pub(super) struct History {
    /// Who is told of a failure.
    tell: fn(&GpuError),
    /// `None`: a sequence was cut within an image, whose rows had seen each other. It can't be read
    /// again as it was.
    fed: Option<Vec<Prompt>>,
}

impl History {
    pub(super) fn new(tell: fn(&GpuError), sequences: usize) -> Self {
        History { tell, fed: Some(vec![Prompt::new(); sequences]) }
    }

    /// A batch went through the model.
    pub(super) fn record(&mut self, batch: &Batch) {
        let Some(fed) = &mut self.fed else { return };
        let mut images = batch.images().iter().peekable();
        let mut at = 0;
        while let Some(row) = batch.rows.get(at) {
            match images.next_if(|i| i.start == at) {
                Some(i) => {
                    fed[row.seq].push_image(row.token, i.image.clone());
                    at += i.image.len();
                }
                None => {
                    fed[row.seq].push(row.token);
                    at += 1;
                }
            }
        }
    }

    /// A sequence was cut to `len` positions.
    pub(super) fn truncate(&mut self, seq: usize, len: usize) {
        let Some(fed) = &mut self.fed else { return };
        match fed[seq].as_slice().whole(len) == len.min(fed[seq].len()) {
            true => fed[seq].truncate(len),
            false => self.fed = None,
        }
    }
}

impl Session {
    /// The GPU has failed: without it from here on, once the CPU has read again what the cache
    /// held (the batch that failed not included).
    ///
    /// # Errors
    /// The failure itself where it can't be made good; [`RuntimeError::Cancelled`] when `cancel`
    /// becomes true between two batches: the cache then holds what was read until then.
    pub(super) fn fail_over(
        &mut self,
        failure: GpuError,
        cancel: Option<&AtomicBool>,
    ) -> Result<(), RuntimeError> {
        let Some(History { tell, fed: Some(fed) }) = self.history.take() else {
            return Err(failure.into());
        };
        tell(&failure);
        self.gpu = None;
        for seq in 0..fed.len() {
            self.cache.truncate(seq, 0);
        }
        for (seq, fed) in fed.iter().enumerate() {
            let mut rest = fed.as_slice();
            while !rest.is_empty() {
                if cancel.is_some_and(|c| c.load(Ordering::Relaxed)) {
                    return Err(RuntimeError::Cancelled);
                }
                let part;
                (part, rest) = rest.split_at(rest.whole(self.cpu.max_rows()));
                self.run(seq, part, |_| false, cancel)?;
            }
        }
        Ok(())
    }
}
