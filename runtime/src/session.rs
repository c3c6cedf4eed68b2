//! A model with a cache: tokens in, logits out.

#[cfg(feature = "gpu")]
mod failover;
mod next;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quant::kernels::Kernels;

use crate::batch::{Batch, Row};
use crate::cpu::{Before, Cpu, default_threads};
use crate::error::RuntimeError;
use crate::kv_cache::{KvCache, KvType};
use crate::model::Model;
use crate::prompt::PromptSlice;

/// How a session is set up.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Positions that each sequence can hold. `None`: what the model was trained for, up to 32768.
    pub context: Option<usize>,
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// Threads. `None`: see [`default_threads`].
    pub threads: Option<usize>,
    /// Sequences that the cache holds.
    pub sequences: usize,
    /// Rows that go through the model at once when a prompt is read.
    pub batch: usize,
    /// Instruction set.
    pub kernels: Kernels,
    /// Run on this device. `None`: on the CPU.
    #[cfg(feature = "gpu")]
    pub gpu: Option<Arc<crate::gpu::Device>>,
    /// Layers that go on the device, the first ones; the CPU does the others. `None`: all of them,
    /// or as many as its memory holds.
    #[cfg(feature = "gpu")]
    pub gpu_layers: Option<usize>,
    /// Called when the device fails at work (it is lost, has no more memory, refuses a shader): the
    /// session then goes on on the CPU, which reads again what the cache held. `None`: such a
    /// failure is returned.
    #[cfg(feature = "gpu")]
    pub on_gpu_failure: Option<fn(&crate::gpu::GpuError)>,
    /// Called when the device goes on at work, but in another way than it began, with what is to be said of
    /// it. What is to be said from the beginning is in [`Gpu::notes`](crate::gpu::Gpu::notes).
    #[cfg(feature = "gpu")]
    pub on_gpu_note: Option<fn(&str)>,
    /// Called while weights go to the device, with the bytes of the file that are there and those
    /// that will be. It begins again where less turns out to fit.
    #[cfg(feature = "gpu")]
    pub on_upload: Option<fn(usize, usize)>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            context: None,
            kv_type: KvType::F16,
            threads: None,
            sequences: 1,
            batch: 512,
            kernels: Kernels::detect(),
            #[cfg(feature = "gpu")]
            gpu: None,
            #[cfg(feature = "gpu")]
            gpu_layers: None,
            #[cfg(feature = "gpu")]
            on_gpu_failure: None,
            #[cfg(feature = "gpu")]
            on_gpu_note: None,
            #[cfg(feature = "gpu")]
            on_upload: None,
        }
    }
}

/// The context that is used when none is asked for is not larger than this.
const DEFAULT_CONTEXT: usize = 32768;

/// A model, its KV cache and the threads that run it.
pub struct Session {
    model: Arc<Model>,
    cpu: Cpu,
    #[cfg(feature = "gpu")]
    gpu: Option<crate::gpu::Gpu>,
    /// What a failing GPU would take with it, where the CPU is to go on.
    #[cfg(feature = "gpu")]
    history: Option<failover::History>,
    cache: KvCache,
    batch: Batch,
}

impl Session {
    /// Sets up a cache and threads for a model.
    ///
    /// # Errors
    /// [`RuntimeError::Memory`], [`RuntimeError::KvType`] or [`RuntimeError::Threads`]; with a GPU
    /// also `RuntimeError::Gpu`.
    pub fn new(model: Arc<Model>, options: &SessionOptions) -> Result<Self, RuntimeError> {
        let config = model.config();
        let context = options.context.unwrap_or(config.context_length.min(DEFAULT_CONTEXT)).max(1);
        let rows = options.batch.clamp(1, context);
        let threads = options.threads.unwrap_or_else(default_threads);
        let cpu = Cpu::new(config, options.kernels, threads, rows)?;
        let cache = KvCache::new(config, options.kv_type, options.sequences.max(1), context, rows)?;
        #[cfg(feature = "gpu")]
        let gpu = match &options.gpu {
            Some(device) => {
                let (device, layers) = (device.clone(), options.gpu_layers);
                let tell = options.on_upload.unwrap_or(|_, _| {});
                let mut gpu = crate::gpu::Gpu::new(device, &model, &cache, rows, layers, tell)?;
                gpu.on_note(options.on_gpu_note);
                Some(gpu)
            }
            None => None,
        };
        #[cfg(feature = "gpu")]
        let tell = options.on_gpu_failure.filter(|_| gpu.is_some());
        Ok(Session {
            model,
            cpu,
            #[cfg(feature = "gpu")]
            gpu,
            #[cfg(feature = "gpu")]
            history: tell.map(|tell| failover::History::new(tell, cache.sequences())),
            cache,
            batch: Batch::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The cache.
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// The backend.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// The GPU that the model runs on, where it does, and has not failed.
    #[cfg(feature = "gpu")]
    pub fn gpu(&self) -> Option<&crate::gpu::Gpu> {
        self.gpu.as_ref()
    }

    /// The first `n` logits of the last pass.
    fn logits(&mut self, n: usize) -> &[f32] {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu.as_ref().filter(|gpu| gpu.has_all()) {
            return gpu.logits(n);
        }
        self.cpu.logits(n)
    }

    /// Forgets positions from `len` on; see [`KvCache::truncate`]. Returns how many are left.
    pub fn truncate(&mut self, seq: usize, len: usize) -> usize {
        let left = self.cache.truncate(seq, len);
        #[cfg(feature = "gpu")]
        if let Some(history) = &mut self.history {
            history.truncate(seq, left);
        }
        left
    }

    /// Has sequence `to` hold the first `len` positions of `from`, in place of what it held. Returns how
    /// many it then holds: none where a GPU has the model, whose cache isn't copied, or where a ring no
    /// longer holds what they would need (see [`KvCache::truncate`]).
    ///
    /// # Panics
    /// When there are no such sequences.
    pub fn copy(&mut self, from: usize, to: usize, len: usize) -> usize {
        let len = len.min(self.cache.len(from));
        if !self.copies() || self.cache.kept(from, len) < len {
            return self.truncate(to, 0);
        }
        self.cache.copy(from, to, len);
        len
    }

    /// Does [`Session::copy`] copy anything?
    pub fn copies(&self) -> bool {
        #[cfg(feature = "gpu")]
        if self.gpu.is_some() {
            return false;
        }
        true
    }

    /// Runs one batch of at most [`Cpu::max_rows`] rows, of any sequences. Returns the logits of
    /// its wanted rows, `[wanted, vocab]`.
    ///
    /// # Errors
    /// [`RuntimeError::Token`], [`RuntimeError::Sequence`], [`RuntimeError::Position`],
    /// [`RuntimeError::ImageWidth`] or [`RuntimeError::ContextFull`], before anything is computed.
    ///
    /// # Panics
    /// When the rows of an image are of different sequences.
    pub fn forward(&mut self, batch: &Batch) -> Result<&[f32], RuntimeError> {
        self.compute(batch, None)?;
        Ok(self.logits(batch.wanted.len() * self.model.weights().vocab()))
    }

    /// As [`Session::forward`], the logits left where [`Session::logits`] finds them. `cancel` can
    /// end what a failed GPU leaves to be done again.
    fn compute(&mut self, batch: &Batch, cancel: Option<&AtomicBool>) -> Result<(), RuntimeError> {
        check(&self.model, &self.cache, batch)?;
        self.advance(batch);
        #[cfg(feature = "gpu")]
        if let Some(gpu) = &mut self.gpu {
            match gpu.forward(&self.model, batch) {
                Ok(out) => {
                    if !gpu.has_all() {
                        let before = Before { layers: gpu.layers(), x: &out };
                        self.cpu.forward(&self.model, batch, &self.cache, before)?;
                    }
                    if let Some(history) = &mut self.history {
                        history.record(batch);
                    }
                    return Ok(());
                }
                Err(failure) => {
                    self.fail_over(failure, cancel)?;
                    self.advance(batch);
                }
            }
        }
        let _ = cancel;
        self.cpu.forward(&self.model, batch, &self.cache, Before::default())?;
        Ok(())
    }

    /// The cache is about to hold these rows.
    fn advance(&mut self, batch: &Batch) {
        for row in &batch.rows {
            self.cache.set_len(row.seq, row.pos + 1);
        }
    }

    /// Appends tokens and images to a sequence, in batches that cut no image, and returns the
    /// logits after the last position, `[vocab]` (empty when there are none).
    ///
    /// # Errors
    /// As [`Session::forward`]; [`RuntimeError::ImageTooLong`] or [`RuntimeError::ImageWidth`];
    /// [`RuntimeError::Cancelled`] when `cancel` becomes true between two batches (what was read
    /// until then stays in the cache).
    pub fn append<'p>(
        &mut self,
        seq: usize,
        prompt: impl Into<PromptSlice<'p>>,
        cancel: &AtomicBool,
    ) -> Result<&[f32], RuntimeError> {
        self.append_tail(seq, prompt, 1, cancel)
    }

    /// As [`Session::append`], with the logits after each of the last `tail` positions,
    /// `[tail, vocab]`. More than one is for few tokens: all must fit one batch.
    ///
    /// # Errors
    /// As [`Session::append`].
    ///
    /// # Panics
    /// When `tail` is more than one and there are more positions than fit one batch.
    pub fn append_tail<'p>(
        &mut self,
        seq: usize,
        prompt: impl Into<PromptSlice<'p>>,
        tail: usize,
        cancel: &AtomicBool,
    ) -> Result<&[f32], RuntimeError> {
        let mut rest = prompt.into();
        let (max, tail) = (self.cpu.max_rows(), tail.min(rest.len()));
        assert!(tail <= 1 || rest.whole(max) == rest.len(), "a tail of {tail} rows spans batches");
        self.fits(seq, rest)?;
        while !rest.is_empty() {
            if cancel.load(Ordering::Relaxed) {
                return Err(RuntimeError::Cancelled);
            }
            let part;
            (part, rest) = rest.split_at(rest.whole(max));
            let wanted = |at| rest.is_empty() && at + tail >= part.len();
            self.run(seq, part, wanted, Some(cancel))?;
        }
        let vocab = self.model.weights().vocab();
        Ok(self.logits(tail * vocab))
    }

    /// Appends tokens and images to a sequence and hands the logits of every position to `each`, in
    /// pieces of `[positions, vocab]`.
    ///
    /// # Errors
    /// As [`Session::append`].
    pub fn append_all_logits<'p, E: From<RuntimeError>>(
        &mut self,
        seq: usize,
        prompt: impl Into<PromptSlice<'p>>,
        mut each: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        /// Rows in a piece: 64 rows of a 262144-word vocabulary are 64 MiB. An image is a piece.
        const PIECE: usize = 64;
        let mut rest = prompt.into();
        self.fits(seq, rest)?;
        while !rest.is_empty() {
            let at = match rest.whole(PIECE.min(self.cpu.max_rows())) {
                0 => rest.images().next().map_or(rest.len(), |(_, image)| image.len()),
                at => at,
            };
            let part;
            (part, rest) = rest.split_at(at);
            self.run(seq, part, |_| true, None)?;
            let vocab = self.model.weights().vocab();
            each(self.logits(part.len() * vocab))?;
        }
        Ok(())
    }

    /// Appends `tokens` to a sequence and returns the residual stream after the embedding and after
    /// each layer, `[layers + 1, positions, hidden]`: where two models part.
    ///
    /// # Errors
    /// As [`Session::forward`]; [`RuntimeError::ContextFull`] also when there are more tokens than
    /// [`Cpu::max_rows`].
    pub fn residuals(&mut self, seq: usize, tokens: &[u32]) -> Result<Vec<f32>, RuntimeError> {
        self.fits(seq, tokens.into())?;
        if tokens.len() > self.cpu.max_rows() {
            let capacity = self.cpu.max_rows();
            return Err(RuntimeError::ContextFull { needed: tokens.len(), capacity });
        }
        let start = self.cache.len(seq);
        let mut batch = Batch::default();
        for (i, &token) in tokens.iter().enumerate() {
            // All rows want logits, so that the last layer keeps all of them.
            batch.push(Row { token, seq, pos: start + i }, true);
        }
        check(&self.model, &self.cache, &batch)?;
        self.advance(&batch);
        #[cfg(feature = "gpu")]
        if let Some(gpu) = &mut self.gpu {
            match gpu.residuals(&self.model, &batch) {
                Ok(mut first) => {
                    if !gpu.has_all() {
                        let depth = batch.rows.len() * self.model.config().hidden;
                        let x = &first[gpu.layers() * depth..];
                        let before = Before { layers: gpu.layers(), x };
                        let all = self.cpu.residuals(&self.model, &batch, &self.cache, before)?;
                        first.extend_from_slice(&all[first.len()..]);
                    }
                    if let Some(history) = &mut self.history {
                        history.record(&batch);
                    }
                    return Ok(first);
                }
                Err(failure) => {
                    self.fail_over(failure, None)?;
                    self.advance(&batch);
                }
            }
        }
        self.cpu.residuals(&self.model, &batch, &self.cache, Before::default())
    }

    /// One batch of one sequence, which [`Session::fits`] has seen; `wanted` says which of its rows
    /// want logits.
    fn run(
        &mut self,
        seq: usize,
        part: PromptSlice<'_>,
        wanted: impl Fn(usize) -> bool,
        cancel: Option<&AtomicBool>,
    ) -> Result<(), RuntimeError> {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        let start = self.cache.len(seq);
        let mut images = part.images().peekable();
        for (i, &token) in part.tokens().iter().enumerate() {
            batch.push(Row { token, seq, pos: start + i }, wanted(i));
            if let Some((_, image)) = images.next_if(|(at, image)| at + image.len() == i + 1) {
                batch.place_image(image.clone());
            }
        }
        let result = self.compute(&batch, cancel);
        self.batch = batch;
        result
    }

    /// Is there such a sequence, and room in it and in batches?
    fn fits(&self, seq: usize, more: PromptSlice<'_>) -> Result<(), RuntimeError> {
        if seq >= self.cache.sequences() {
            return Err(RuntimeError::Sequence { seq, seqs: self.cache.sequences() });
        }
        let (needed, capacity) = (self.cache.len(seq) + more.len(), self.cache.context());
        if needed > capacity {
            return Err(RuntimeError::ContextFull { needed, capacity });
        }
        let batch = self.cpu.max_rows();
        match more.images().map(|(_, image)| image.len()).find(|&rows| rows > batch) {
            Some(rows) => Err(RuntimeError::ImageTooLong { rows, batch }),
            None => Ok(()),
        }
    }
}

/// A batch that would be served: known tokens, images that fit the model and lie in one sequence,
/// known sequences, consecutive positions that fit.
fn check(model: &Model, cache: &KvCache, batch: &Batch) -> Result<(), RuntimeError> {
    let (vocab, hidden) = (model.weights().vocab(), model.config().hidden);
    for i in batch.images() {
        if i.image.width() != hidden {
            return Err(RuntimeError::ImageWidth { width: i.image.width(), hidden });
        }
        let rows = &batch.rows[i.start..i.start + i.image.len()];
        assert!(rows.iter().all(|r| r.seq == rows[0].seq), "an image in two sequences");
    }
    let mut next: Vec<(usize, usize)> = Vec::new(); // (sequence, its next position)
    for (i, row) in batch.rows.iter().enumerate() {
        if row.token as usize >= vocab && batch.features(i).is_none() {
            return Err(RuntimeError::Token { id: row.token, vocab });
        }
        if row.seq >= cache.sequences() {
            return Err(RuntimeError::Sequence { seq: row.seq, seqs: cache.sequences() });
        }
        let at = match next.iter().position(|(s, _)| *s == row.seq) {
            Some(at) => at,
            None => {
                next.push((row.seq, cache.len(row.seq)));
                next.len() - 1
            }
        };
        let len = next[at].1;
        if row.pos != len {
            return Err(RuntimeError::Position { seq: row.seq, len, found: row.pos });
        }
        if row.pos >= cache.context() {
            return Err(RuntimeError::ContextFull {
                needed: row.pos + 1,
                capacity: cache.context(),
            });
        }
        next[at].1 += 1;
    }
    Ok(())
}
