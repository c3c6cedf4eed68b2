//! Passes: what is sent, what is run, what is read back.

use rayon::prelude::*;
use shaders::params::{Pass, Row};

use super::buffers::{SPLIT_ROWS, Which};
use super::encode::{Encoder, Shape};
use super::{Gpu, GpuError};
use crate::batch::Batch;
use crate::config::{GemmaConfig, angles_at};
use crate::forward::{forward, forward_part};
use crate::model::Model;

impl Gpu {
    /// Runs a checked batch. With the whole model here the logits of the wanted rows are then in
    /// [`Gpu::logits`]; else returns the residual stream after the layers here, `[rows, hidden]`.
    pub(crate) fn forward(&mut self, model: &Model, batch: &Batch) -> Result<Vec<f32>, GpuError> {
        let device = self.device.clone();
        self.greedy.forget();
        device.guarded("a pass", || match self.has_all() {
            true => self.pass(model, batch).map(|()| Vec::new()),
            false => self.first_layers(model, batch),
        })
    }

    /// The first `n` logits of the last pass.
    pub(crate) fn logits(&self, n: usize) -> &[f32] {
        &self.logits[..n]
    }

    pub(super) fn pass(&mut self, model: &Model, batch: &Batch) -> Result<(), GpuError> {
        let (wanted, vocab) = (batch.wanted.len(), model.weights().vocab());
        let mut logits = std::mem::take(&mut self.logits);
        logits.resize(logits.len().max(wanted * vocab), 0.0);
        let mut run = || loop {
            let shape = self.send(model, batch, true);
            let (dispatches, expected) =
                self.encode(model, &shape, &mut logits[..wanted * vocab])?;
            self.dispatches = dispatches;
            if self.came_through(expected)? {
                return Ok(());
            }
        };
        let done = run();
        self.logits = logits;
        done
    }

    /// Encodes and runs a pass; the number of its dispatches, and of the stretches of layers that should
    /// have come through by then, if they are one dispatch each.
    fn encode(
        &self,
        model: &Model,
        shape: &Shape,
        out: &mut [f32],
    ) -> Result<(usize, Option<u32>), GpuError> {
        let vocab = model.weights().vocab();
        let mut encoder = Encoder::new(self, model.config(), shape, None);
        forward(&mut encoder, model.weights());
        let head = self.head.as_ref().expect("the whole model is here");
        let expected = encoder.note_finished();
        // Logits in pieces that fit their buffer: the first goes with the rest of the pass.
        let piece = self.buffers.logit_rows;
        for (i, out) in out.chunks_mut(piece * vocab).enumerate() {
            let n = out.len() / vocab;
            self.send_head(i * piece, n);
            encoder.multiply(head, n);
            self.copy_back(&mut encoder, &self.buffers.logits, out)?;
        }
        encoder.submit();
        Ok((encoder.dispatches, expected))
    }

    fn first_layers(&mut self, model: &Model, batch: &Batch) -> Result<Vec<f32>, GpuError> {
        let (width, hidden) = (self.buffers.widths.hidden, model.config().hidden);
        let shape = self.send(model, batch, true);
        let mut encoder = Encoder::new(self, model.config(), &shape, None);
        forward_part(&mut encoder, model.weights(), 0..self.layers.len());
        encoder.settle();
        let mut padded = vec![0.0; batch.rows.len() * width];
        self.copy_back(&mut encoder, &self.buffers.x[0], &mut padded)?;
        self.dispatches = encoder.dispatches;
        Ok(unpad(&padded, width, hidden))
    }

    /// Ends and runs what was encoded and reads the beginning of a buffer.
    fn copy_back(
        &self,
        encoder: &mut Encoder<'_>,
        from: &wgpu::Buffer,
        out: &mut [f32],
    ) -> Result<(), GpuError> {
        encoder.end_pass();
        let to = &self.buffers.staging;
        encoder.encoder.copy_buffer_to_buffer(from, 0, to, 0, out.len() as u64 * 4);
        encoder.submit();
        self.device.read(to, out)
    }

    /// As [`Gpu::forward`], for a batch whose rows all want logits; returns the residual stream
    /// after the embedding and after each layer here, `[layers + 1, rows, hidden]`.
    pub(crate) fn residuals(&mut self, model: &Model, batch: &Batch) -> Result<Vec<f32>, GpuError> {
        let device = self.device.clone();
        self.greedy.forget();
        device.guarded("a pass", || {
            let (width, hidden) = (self.buffers.widths.hidden, model.config().hidden);
            let rows = (self.layers.len() + 1) * batch.rows.len();
            let bytes = (rows * width * 4) as u64;
            let copies = device.storage("residual streams", bytes);
            let staging = device.staging(bytes);
            let shape = self.send(model, batch, true);
            let mut encoder = Encoder::new(self, model.config(), &shape, Some(&copies));
            forward_part(&mut encoder, model.weights(), 0..self.layers.len());
            encoder.end_pass();
            encoder.encoder.copy_buffer_to_buffer(&copies, 0, &staging, 0, bytes);
            encoder.submit();
            let mut padded = vec![0.0; rows * width];
            device.read(&staging, &mut padded)?;
            Ok(unpad(&padded, width, hidden))
        })
    }

    /// Sends which of the wanted rows the head is for: `n` from `first` on.
    pub(super) fn send_head(&self, first: usize, n: usize) {
        let pass = Pass { n: n as u32, first: first as u32, splits: 1, unused: 0 };
        self.buffers.head_pass.send(&self.device.queue, pass);
    }

    /// Cosines and sines of a position, `[2 tables, head_dim]`.
    fn angles(&self, c: &GemmaConfig, pos: usize, out: &mut [f32]) {
        for (rope, out) in self.ropes.iter().zip(out.chunks_exact_mut(c.head_dim)) {
            angles_at(rope, pos, out);
        }
    }

    /// Parts of attention over `rows`, for layers of a kind.
    fn splits(&self, c: &GemmaConfig, rows: &[Row], kind: usize) -> u32 {
        // A single global layer that is whole has as many as the others (`WholeLayer::phases`).
        let lone =
            self.has_whole_layers() && c.layers.iter().filter(|l| l.window.is_none()).count() == 1;
        split(c, rows, if lone { 0 } else { kind })
    }

    /// Sends what the device needs to know of `n` tokens that follow each other, from `first` on, where
    /// layers are whole; which token that one is unless the device has `chained` it to what was before.
    pub(super) fn send_slots(
        &self,
        model: &Model,
        first: crate::batch::Row,
        n: usize,
        chained: bool,
    ) -> Shape {
        let (c, b, queue) = (model.config(), &self.buffers, &self.device.queue);
        if !chained {
            queue.write_buffer(&b.tokens, 0, bytemuck::bytes_of(&first.token));
        }
        let token = |slot: usize| {
            let pos = first.pos + slot;
            let mut angles = vec![0.0; 2 * c.head_dim];
            self.angles(c, pos, &mut angles);
            let row = Row {
                seq: first.seq as u32,
                pos: pos as u32,
                end: pos as u32 + 1,
                place: slot as u32,
            };
            (row, angles)
        };
        let tokens: Vec<_> = (0..n).map(token).collect();
        b.slots.send(queue, &tokens);
        // All of them have their attention in as many parts as the last one.
        let last = [tokens[n - 1].0];
        let splits = [0, 1].map(|kind| self.splits(c, &last, kind));
        for (pass, splits) in b.pass[Which::All as usize].iter().zip(splits) {
            pass.send(queue, Pass { n: 1, splits, ..Default::default() });
        }
        Shape { counts: [1, 1], together: true, causal: true, splits: [splits; 2] }
    }

    /// Sends what the device needs to know of a batch; not its tokens where the device has them.
    pub(super) fn send(&self, model: &Model, batch: &Batch, with_tokens: bool) -> Shape {
        let (c, b, queue) = (model.config(), &self.buffers, &self.device.queue);
        let n = batch.rows.len();
        assert!(n <= self.max_rows, "batches are cut to size before");
        // Rows that come as they are get a token that no shard of the embedding holds.
        let embedded = |i: usize| self.has_all() && batch.features(i).is_none();
        let token = |i: usize| if embedded(i) { batch.rows[i].token } else { u32::MAX };
        let tokens: Vec<u32> = (0..n).map(token).collect();
        if with_tokens {
            queue.write_buffer(&b.tokens, 0, bytemuck::cast_slice(&tokens));
        }
        let mut x = vec![0.0; c.hidden];
        for i in (0..n).filter(|&i| !embedded(i)) {
            match batch.features(i) {
                Some(features) => x.copy_from_slice(features),
                None => model.embedding(batch.rows[i].token, &mut x),
            }
            let at = (i * b.widths.hidden * 4) as u64;
            queue.write_buffer(&b.x[0], at, bytemuck::cast_slice(&x));
        }
        let mut angles = vec![0.0; n * 2 * c.head_dim];
        let of_row = |(row, out): (&crate::batch::Row, &mut [f32])| self.angles(c, row.pos, out);
        match n {
            1 => of_row((&batch.rows[0], &mut angles)),
            _ => batch
                .rows
                .par_iter()
                .zip(angles.par_chunks_exact_mut(2 * c.head_dim))
                .for_each(of_row),
        }
        queue.write_buffer(&b.angles, 0, bytemuck::cast_slice(&angles));
        let row = |place: usize| {
            let r = &batch.rows[place];
            Row {
                seq: r.seq as u32,
                pos: r.pos as u32,
                end: batch.sees_to(place) as u32,
                place: place as u32,
            }
        };
        let rows =
            [(0..n).map(row).collect::<Vec<_>>(), batch.wanted.iter().map(|&i| row(i)).collect()];
        let mut splits = [[1; 2]; 2];
        for which in [Which::All, Which::Wanted] {
            let (rows, which) = (&rows[which as usize], which as usize);
            queue.write_buffer(&b.rows[which], 0, bytemuck::cast_slice(rows));
            for (kind, splits) in splits[which].iter_mut().enumerate() {
                *splits = self.splits(c, rows, kind);
                let n = rows.len() as u32;
                let pass = Pass { n, splits: *splits, ..Default::default() };
                b.pass[which][kind].send(queue, pass);
            }
        }
        Shape {
            counts: [n, batch.wanted.len()],
            causal: (0..n).all(|i| batch.sees_to(i) == batch.rows[i].pos + 1),
            together: batch.rows.iter().all(|r| r.seq == batch.rows[0].seq),
            splits,
        }
    }
}

/// Parts of the positions for attention in sliding (0) or global (1) layers: enough of them to keep
/// a GPU busy with one token's few heads. Many rows keep it busy as they are.
pub(super) fn split(c: &GemmaConfig, rows: &[Row], kind: usize) -> u32 {
    /// Positions in a part.
    const PART: usize = 128;
    if rows.len() > SPLIT_ROWS {
        return 1;
    }
    let window = match kind {
        0 => c.layers.iter().filter_map(|l| l.window).max().unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    let seen = rows.iter().map(|r| (r.end as usize).min(window)).max().unwrap_or(1);
    seen.div_ceil(PART).clamp(1, shaders::MAX_PARTS) as u32
}

/// Rows of `width` floats, the first `hidden` of each.
fn unpad(padded: &[f32], width: usize, hidden: usize) -> Vec<f32> {
    padded.chunks_exact(width).flat_map(|row| &row[..hidden]).copied().collect()
}
