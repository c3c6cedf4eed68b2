//! The CPU backend: SIMD kernels inside one SPMD region a batch.
//!
//! rayon owns the threads. A forward pass is one `broadcast`: every thread runs the same
//! [`forward`](crate::forward::forward) and they meet at a spinning barrier five or six times a
//! layer; a fork and join per matmul would cost microseconds, hundreds of times a token.

mod ahead;
mod attend;
pub(crate) mod attention;
mod barrier;
mod buffers;
mod claims;
mod multiply;
pub(crate) mod ops;
mod rope;
pub(crate) mod shared;
pub(crate) mod simd;
mod topology;
mod worker;

use std::sync::Mutex;

use quant::kernels::Kernels;

use crate::batch::Batch;
use crate::config::{GemmaConfig, Rope};
use crate::error::RuntimeError;
use crate::forward::forward_part;
use crate::kv_cache::KvCache;
use crate::model::Model;
use barrier::Barrier;
use buffers::{RowBufs, Shared};
use claims::Taken;
use shared::SharedBuf;
pub use topology::default_threads;
use worker::{Pass, ThreadState, Worker};

/// Up to this many rows, every thread computes norms and quantization for itself.
const SMALL: usize = 8;

/// Layers that another backend did, and the residual stream that they left, `[rows, hidden]`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Before<'a> {
    pub(crate) layers: usize,
    pub(crate) x: &'a [f32],
}

/// Threads and buffers for forward passes of up to a fixed number of rows.
pub struct Cpu {
    kernels: Kernels,
    threads: usize,
    max_rows: usize,
    pool: rayon::ThreadPool,
    barrier: Barrier,
    /// For each operation of a pass that hands out work, what each thread's share has lost already.
    claims: Vec<Taken>,
    shared: Shared,
    batch_rows: RowBufs,
    states: Vec<Mutex<ThreadState>>,
    /// The different RoPEs of the model (at most two) and which one each layer uses.
    ropes: Vec<Rope>,
    rope_of_layer: Vec<usize>,
    all_rows: Vec<usize>,
    /// Passes so far.
    passes: u64,
    /// Where copies of the residual stream go, `[layers + 1, rows, hidden]`, while someone wants them.
    tap: Option<SharedBuf<f32>>,
}

impl Cpu {
    /// A backend for `config` with `threads` threads, for batches of up to `max_rows` rows.
    ///
    /// # Errors
    /// [`RuntimeError::Memory`] or [`RuntimeError::Threads`].
    pub fn new(
        config: &GemmaConfig,
        kernels: Kernels,
        threads: usize,
        max_rows: usize,
    ) -> Result<Self, RuntimeError> {
        let threads = threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("lapidary-{i}"))
            .build()
            .map_err(|e| RuntimeError::Threads { threads, why: e.to_string() })?;
        let ropes = config.ropes();
        let rope_of_layer = config
            .layers
            .iter()
            .map(|l| ropes.iter().position(|r| *r == l.rope).expect("it is one of them"))
            .collect();
        let bytes = max_rows * (config.ffn + config.q_dim() + config.hidden) * 9;
        let no_memory = || RuntimeError::Memory { what: "activations", bytes };
        let states = (0..threads)
            .map(|_| {
                Some(Mutex::new(ThreadState {
                    rows: RowBufs::new(config, SMALL)?,
                    scratch: Default::default(),
                    tile: Vec::new(),
                    tile2: Vec::new(),
                    attention: Default::default(),
                    queries: Vec::new(),
                    visible: Vec::new(),
                }))
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(no_memory)?;
        Ok(Cpu {
            kernels,
            threads,
            max_rows,
            pool,
            barrier: Barrier::new(threads),
            // Per layer: qkv, attention, its projection, gate and up, down. Then the head.
            claims: (0..(config.layers.len() * 5 + 1) * threads)
                .map(|_| Taken::default())
                .collect(),
            shared: Shared::new(config, max_rows, SMALL, threads).ok_or_else(no_memory)?,
            batch_rows: RowBufs::new(config, max_rows).ok_or_else(no_memory)?,
            states,
            ropes,
            rope_of_layer,
            all_rows: (0..max_rows).collect(),
            passes: 0,
            tap: None,
        })
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Rows that a batch can have.
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// The kernels in use.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Runs a checked batch through the layers that were not run `before`; keys and values go into
    /// `cache`. Returns the logits of the wanted rows, `[wanted, vocab]`.
    pub(crate) fn forward(
        &mut self,
        model: &Model,
        batch: &Batch,
        cache: &KvCache,
        before: Before<'_>,
    ) -> Result<&[f32], RuntimeError> {
        let n = batch.rows.len();
        assert!(n <= self.max_rows, "batches are cut to size before");
        let logits = batch.wanted.len() * model.weights().vocab();
        self.shared
            .logits
            .reserve(logits)
            .ok_or(RuntimeError::Memory { what: "logits", bytes: logits * 4 })?;
        self.claims.iter().for_each(Taken::reset);
        self.passes += 1;
        let cpu = &*self;
        let pass = Pass {
            number: self.passes,
            file: model.bytes(),
            config: model.config(),
            weights: model.weights(),
            batch,
            cache,
            all_rows: &cpu.all_rows[..n],
            before,
        };
        cpu.pool.broadcast(|ctx| {
            let _guard = cpu.barrier.guard();
            let mut state = cpu.states[ctx.index()].lock().expect("a thread's own state");
            let layers = before.layers..pass.weights.layers.len();
            let mut worker = Worker::new(cpu, pass, ctx.index(), &mut state);
            forward_part(&mut worker, pass.weights, layers);
        });
        Ok(self.logits(logits))
    }

    /// As [`Cpu::forward`], for a batch whose rows all want logits; returns the residual stream
    /// after the embedding and after each layer, `[layers + 1, rows, hidden]`, zeros where another
    /// backend was `before`.
    pub(crate) fn residuals(
        &mut self,
        model: &Model,
        batch: &Batch,
        cache: &KvCache,
        before: Before<'_>,
    ) -> Result<Vec<f32>, RuntimeError> {
        let c = model.config();
        let floats = (c.layers.len() + 1) * batch.rows.len() * c.hidden;
        let no_memory = RuntimeError::Memory { what: "residual streams", bytes: floats * 4 };
        self.tap = Some(SharedBuf::zeroed(floats).ok_or(no_memory)?);
        let result = self.forward(model, batch, cache, before).map(|_| ());
        let copies = self.tap.take().map(|mut t| t.get().to_vec()).unwrap_or_default();
        result.map(|()| copies)
    }

    /// The first `n` logits of the last pass.
    pub(crate) fn logits(&mut self, n: usize) -> &[f32] {
        &self.shared.logits.get()[..n]
    }
}
