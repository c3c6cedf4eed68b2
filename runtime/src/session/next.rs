//! One token more, with what follows chosen on a device: next to nothing is read back.

use std::sync::atomic::AtomicBool;

use super::Session;
use crate::error::RuntimeError;
use crate::sampler::{Candidate, Sampler};

impl Session {
    /// Appends a token and draws the one after it, where a GPU can choose that itself, or those that the
    /// draw depends on. `None`, and nothing appended, where it can't.
    ///
    /// # Errors
    /// As [`Session::next_greedy`], and those of the sampler.
    pub fn draw_next(
        &mut self,
        seq: usize,
        token: u32,
        sampler: &mut Sampler,
        cancel: &AtomicBool,
    ) -> Result<Option<u32>, RuntimeError> {
        if sampler.is_greedy() {
            return self.next_greedy(seq, token, cancel);
        }
        let Some(k) = sampler.top_k(self.model().weights().vocab()) else { return Ok(None) };
        match self.next_top(seq, token, k, cancel)? {
            Some(top) => Ok(Some(sampler.sample_top(&top)?)),
            None => Ok(None),
        }
    }

    /// Appends a token and returns the likeliest one after it, where a GPU can choose that itself:
    /// it then goes on with it before it is asked. `None`, and nothing appended, where it can't.
    ///
    /// # Errors
    /// As [`Session::forward`]; [`RuntimeError::Cancelled`] when `cancel` becomes true while a
    /// failed GPU's work is done again.
    pub fn next_greedy(
        &mut self,
        seq: usize,
        token: u32,
        cancel: &AtomicBool,
    ) -> Result<Option<u32>, RuntimeError> {
        #[cfg(feature = "gpu")]
        if let Some(row) = self.one_more(seq, token)? {
            let len = row.pos + 1;
            let next = self.gpu.as_mut().map(|gpu| {
                // Positions after this one may be stored as well, for now.
                let ahead = self.cache.spare(len).min(gpu.most_ahead());
                self.cache.set_len(seq, len + ahead);
                self.cache.set_len(seq, len);
                gpu.next_greedy(&self.model, row, ahead)
            });
            return self.settle(next, cancel);
        }
        let _ = (seq, token, cancel);
        Ok(None)
    }

    /// Appends a token and returns the `k` likeliest ones after it, in no particular order, where a
    /// GPU can find these itself. `None`, and nothing appended, where it can't.
    ///
    /// # Errors
    /// As [`Session::next_greedy`].
    pub fn next_top(
        &mut self,
        seq: usize,
        token: u32,
        k: usize,
        cancel: &AtomicBool,
    ) -> Result<Option<Vec<Candidate>>, RuntimeError> {
        #[cfg(feature = "gpu")]
        if (1..=shaders::Top::MOST).contains(&k)
            && (k + 1..shaders::Top::IDS).contains(&self.model.weights().vocab())
            && let Some(row) = self.one_more(seq, token)?
        {
            self.cache.set_len(seq, row.pos + 1);
            let next = self.gpu.as_mut().map(|gpu| gpu.next_top(&self.model, row, k));
            return self.settle(next, cancel);
        }
        let _ = (seq, token, k, cancel);
        Ok(None)
    }

    /// The row of one token more, checked, where the whole model is on a GPU.
    #[cfg(feature = "gpu")]
    fn one_more(&mut self, seq: usize, token: u32) -> Result<Option<crate::Row>, RuntimeError> {
        if self.gpu.as_ref().is_none_or(|gpu| !gpu.has_all()) {
            return Ok(None);
        }
        if seq >= self.cache.sequences() {
            return Err(RuntimeError::Sequence { seq, seqs: self.cache.sequences() });
        }
        let row = crate::Row { token, seq, pos: self.cache.len(seq) };
        self.batch.clear();
        self.batch.push(row, true);
        super::check(&self.model, &self.cache, &self.batch)?;
        Ok(Some(row))
    }

    /// What became of [`Session::one_more`]'s row on the GPU.
    #[cfg(feature = "gpu")]
    fn settle<T>(
        &mut self,
        done: Option<Result<T, crate::gpu::GpuError>>,
        cancel: &AtomicBool,
    ) -> Result<Option<T>, RuntimeError> {
        match done {
            None => Ok(None),
            Some(Ok(next)) => {
                if let Some(history) = &mut self.history {
                    history.record(&self.batch);
                }
                Ok(Some(next))
            }
            Some(Err(failure)) => {
                self.fail_over(failure, Some(cancel))?;
                Ok(None)
            }
        }
    }
}
