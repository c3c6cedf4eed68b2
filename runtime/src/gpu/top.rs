//! Sampling among the likeliest tokens: the device finds these, and only they are read back. A
//! vocabulary of 262144 words is a megabyte of logits a token otherwise.

use shaders::Top;
use shaders::params::Top as TopParams;

use super::device::Device;
use super::encode::Encoder;
use super::ops::Op;
use super::region::Bound;
use super::{Gpu, GpuError};
use crate::batch::{Batch, Row};
use crate::forward::forward;
use crate::model::Model;
use crate::sampler::Candidate;

/// What finding the `k` likeliest tokens takes.
pub(super) struct TopK {
    pub(super) k: usize,
    /// Each over what the one before it left, with its number of workgroups.
    rounds: Vec<(Op, usize)>,
    found: wgpu::Buffer,
    staging: wgpu::Buffer,
}

impl TopK {
    /// Has that compiled which answers that are not greedy will use.
    pub(super) fn prepare(device: &Device) {
        for kernel in [Top::Logits, Top::Again] {
            device.pipeline(&kernel.kernel());
        }
    }

    /// For the first row of `logits`.
    pub(super) fn new(device: &Device, logits: &wgpu::Buffer, vocab: usize, k: usize) -> Self {
        let mut rounds = Vec::new();
        let (mut from, mut count, mut kernel) = (logits.clone(), vocab, Top::Logits);
        loop {
            let p = TopParams { count: count as u32, k: k as u32, ..Default::default() };
            let groups = count.div_ceil(Top::SLICE);
            let found = device.storage("likeliest", (groups * k * 8) as u64);
            let buffers: [&dyn Bound; 3] = [&device.uniform(&p), &from, &found];
            rounds.push((Op::new(device, &kernel.kernel(), &buffers), groups));
            if groups == 1 {
                let staging = device.staging((k * 8) as u64);
                return TopK { k, rounds, found, staging };
            }
            (from, count, kernel) = (found, groups * k, Top::Again);
        }
    }

    pub(super) fn encode(&self, mut run: impl FnMut(&Op, [usize; 3])) {
        self.rounds.iter().for_each(|(op, groups)| run(op, [*groups, 1, 1]));
    }

    /// Copies what was found to where [`TopK::read`] finds it.
    pub(super) fn copy(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.copy_buffer_to_buffer(&self.found, 0, &self.staging, 0, self.k as u64 * 8);
    }

    pub(super) fn read(&self, device: &Device) -> Result<Vec<Candidate>, GpuError> {
        let mut pairs = vec![0f32; self.k * 2];
        device.read(&self.staging, &mut pairs)?;
        let pair = |p: &[f32]| {
            let logit = Top::logit(p[0].to_bits())?;
            Some(Candidate { id: p[1].to_bits(), logit })
        };
        Ok(pairs.chunks_exact(2).filter_map(pair).collect())
    }
}

impl Gpu {
    /// The `k` likeliest tokens after `row`, in no particular order, with the whole model here.
    pub(crate) fn next_top(
        &mut self,
        model: &Model,
        row: Row,
        k: usize,
    ) -> Result<Vec<Candidate>, GpuError> {
        let device = self.device.clone();
        self.greedy.forget();
        device.guarded("a pass", || {
            let vocab = model.weights().vocab();
            if self.top.as_ref().is_none_or(|top| top.k != k) {
                self.top = Some(TopK::new(&device, &self.buffers.logits, vocab, k));
            }
            let mut batch = Batch::default();
            batch.push(row, true);
            loop {
                let shape = self.send(model, &batch, true);
                self.send_head(0, 1);
                let mut encoder = Encoder::new(self, model.config(), &shape, None);
                forward(&mut encoder, model.weights());
                encoder.multiply(self.head.as_ref().expect("the whole model is here"), 1);
                let top = self.top.as_ref().expect("made above");
                top.encode(|op, grid| encoder.op(op, grid));
                encoder.end_pass();
                top.copy(&mut encoder.encoder);
                let expected = encoder.note_finished();
                encoder.submit();
                let dispatches = encoder.dispatches;
                self.dispatches = dispatches;
                let found = self.top.as_ref().expect("made above").read(&device)?;
                if self.came_through(expected)? {
                    return Ok(found);
                }
            }
        })
    }
}
