//! What a pass works on, allocated once a session.

use std::sync::{Mutex, OnceLock};

use shaders::params::{Pass, Row};
use shaders::{COLS_PAD, CacheFormat, HEAD_PAD, MAX_PARTS};

use super::device::Device;
use super::error::GpuError;
use super::prepare::Prepared;
use super::region::Region;
use super::slots::Slots;
use crate::config::GemmaConfig;
use crate::kv_cache::{KvCache, KvType};

/// Rows whose attention may be split.
pub(super) const SPLIT_ROWS: usize = 8;

/// Which rows an operation is for: all of the batch, or those whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    All = 0,
    Wanted = 1,
}

/// The widths of rows, padded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widths {
    pub(super) hidden: usize,
    pub(super) qkv: usize,
    pub(super) q: usize,
    pub(super) a: usize,
    pub(super) g: usize,
}

impl Widths {
    fn new(c: &GemmaConfig) -> Self {
        Widths {
            hidden: c.hidden.next_multiple_of(COLS_PAD),
            qkv: c.q_dim() + 2 * c.kv_dim(),
            q: c.heads * c.head_dim.next_multiple_of(HEAD_PAD),
            a: c.q_dim().next_multiple_of(COLS_PAD),
            g: c.ffn.next_multiple_of(COLS_PAD),
        }
    }
}

/// The buffers of a pass; names as in [`Backend`](crate::backend::Backend).
pub(super) struct Buffers {
    pub(super) widths: Widths,
    pub(super) tokens: wgpu::Buffer,
    /// Cosines and sines of each row's position, `[n, 2 tables, head_dim]`.
    pub(super) angles: wgpu::Buffer,
    /// By [`Which`].
    pub(super) rows: [wgpu::Buffer; 2],
    /// In place of both, where tokens are sent several at a time.
    pub(super) slots: Slots,
    /// By [`Which`].
    pub(super) x: [wgpu::Buffer; 2],
    /// One row of x: where it goes from a layer's first half to its second, where norms are made
    /// together with the matmuls after them.
    pub(super) x_between: wgpu::Buffer,
    /// By [`Which`], then for sliding and for global layers: they differ in the splits.
    pub(super) pass: [[PassBuffer; 2]; 2],
    /// For the head, which takes some wanted rows at a time.
    pub(super) head_pass: PassBuffer,
    pub(super) h: wgpu::Buffer,
    pub(super) qkv: wgpu::Buffer,
    pub(super) q: wgpu::Buffer,
    pub(super) a: wgpu::Buffer,
    /// Unnormalised parts of attention.
    pub(super) parts: wgpu::Buffer,
    pub(super) o: wgpu::Buffer,
    pub(super) g: wgpu::Buffer,
    /// h or a as matmuls want it.
    pub(super) prepared: Option<Prepared>,
    /// g as matmuls want it: it may be written while h is read.
    pub(super) prepared_g: Option<Prepared>,
    /// `[logit_rows, vocab]`
    pub(super) logits: wgpu::Buffer,
    pub(super) logit_rows: usize,
    /// What the workgroups of a whole layer tell each other, once there is such a layer.
    pub(super) messages: OnceLock<wgpu::Buffer>,
    /// What is read back goes through here.
    pub(super) staging: wgpu::Buffer,
}

/// What a pass is told, on the device. Most passes of an answer are told the same.
pub(super) struct PassBuffer {
    buffer: wgpu::Buffer,
    /// What is there once all that was sent has arrived.
    there: Mutex<Pass>,
}

impl PassBuffer {
    /// Has it there for the passes that are submitted from now on.
    pub(super) fn send(&self, queue: &wgpu::Queue, pass: Pass) {
        let mut there = self.there.lock().unwrap_or_else(|e| e.into_inner());
        if *there != pass {
            queue.write_buffer(&self.buffer, 0, bytemuck::bytes_of(&pass));
            *there = pass;
        }
    }
}

impl std::ops::Deref for PassBuffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.buffer
    }
}

/// Bytes of logits on the device.
const LOGITS: u64 = 64 << 20;

impl Buffers {
    pub(super) fn new(device: &Device, c: &GemmaConfig, vocab: usize, max_rows: usize) -> Self {
        let rows = max_rows.max(SPLIT_ROWS);
        let w = Widths::new(c);
        let floats = |label: &str, n: usize| device.storage(label, (rows * n * 4) as u64);
        let pass = || PassBuffer {
            buffer: device.uniform(&Pass::default()),
            there: Mutex::new(Pass::default()),
        };
        let fit = LOGITS.min(device.max_binding) as usize / (vocab * 4);
        let logit_rows = fit.clamp(1, rows);
        let back = (logit_rows * vocab).max(rows * w.hidden) as u64 * 4;
        Buffers {
            widths: w,
            tokens: floats("tokens", 1),
            angles: floats("angles", 2 * c.head_dim),
            rows: [0, 1].map(|_| floats("rows", size_of::<Row>() / 4)),
            slots: Slots::new(device, c.head_dim),
            x: [0, 1].map(|_| floats("x", w.hidden)),
            x_between: device.storage("x between", (w.hidden * 4) as u64),
            pass: [0, 1].map(|_| [0, 1].map(|_| pass())),
            head_pass: pass(),
            h: floats("h", w.hidden),
            qkv: floats("qkv", w.qkv),
            q: floats("q", w.q),
            a: floats("a", w.a),
            parts: device
                .storage("parts", (SPLIT_ROWS * c.heads * MAX_PARTS * (c.head_dim + 2) * 4) as u64),
            o: floats("o", w.hidden),
            g: floats("g", w.g),
            prepared: Prepared::new(device, rows, w.hidden.max(w.a)),
            prepared_g: Prepared::new(device, rows, w.g),
            logits: device.storage("logits", (logit_rows * vocab * 4) as u64),
            logit_rows,
            messages: OnceLock::new(),
            staging: device.staging(back),
        }
    }
}

/// How keys and values lie on the device.
pub(super) fn cache_format(cache: &KvCache) -> CacheFormat {
    match cache.kv_type {
        KvType::F16 => CacheFormat::F16,
        KvType::F32 => CacheFormat::F32,
        KvType::Q8_0 => CacheFormat::Q8_0,
    }
}

/// Slots of each head and sequence on the device: as on the CPU, or a few more, so that 16 positions
/// from a multiple of 16 on lie side by side.
pub(super) fn device_slots(cache: &KvCache, layer: usize) -> usize {
    cache.slots(layer).next_multiple_of(16)
}

/// Bytes of keys or values of one layer: `[seq][kv_head][slot]` of rows as [`CacheFormat`] lays them out.
pub(super) fn cache_bytes(c: &GemmaConfig, cache: &KvCache, layer: usize) -> u64 {
    let row = cache_format(cache).row_bytes(c.head_dim);
    let rows = cache.sequences() * c.kv_heads * device_slots(cache, layer);
    (rows as u64).saturating_mul(row as u64)
}

/// A buffer for them.
pub(super) fn cache_buffer(
    device: &Device,
    c: &GemmaConfig,
    cache: &KvCache,
    layer: usize,
) -> Result<Region, GpuError> {
    let bytes = cache_bytes(c, cache, layer);
    if bytes > device.max_binding {
        return Err(GpuError::Limit {
            device: device.name().into(),
            what: "the KV cache of a layer",
            bytes,
            limit: device.max_binding,
        });
    }
    Ok(Region::new(device, "cache", bytes))
}
