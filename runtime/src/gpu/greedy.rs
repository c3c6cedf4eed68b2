//! Greedy decoding: the device chooses the likeliest token and embeds it itself, so that the next
//! pass is encoded and sent while this one runs. Only the token is read back.

use shaders::params::Norm;

use super::buffers::Buffers;
use super::device::Device;
use super::encode::Encoder;
use super::ops::Op;
use super::{Gpu, GpuError};
use crate::batch::{Batch, Row};
use crate::forward::forward;
use crate::model::Model;

/// What choosing a token takes.
pub(super) struct Greedy {
    /// The best of each of 256 parts, then of these.
    parts: Op,
    last: Op,
    /// Two tokens may be on their way back, each with the number of stretches of layers that came through.
    staging: [wgpu::Buffer; 2],
    ahead: Option<Ahead>,
}

/// A pass that was sent before its token was asked for.
struct Ahead {
    row: Row,
    submission: wgpu::SubmissionIndex,
    staging: usize,
    /// Stretches that should have come through by then, where they are one dispatch each.
    expected: Option<u32>,
}

impl Greedy {
    pub(super) fn new(device: &Device, b: &Buffers, vocab: usize) -> Self {
        let p = device.uniform(&Norm { cols: vocab as u32, ..Default::default() });
        let best = device.storage("best", 256 * 8);
        Greedy {
            parts: Op::new(device, &shaders::argmax(), &[&p, &b.logits, &best]),
            last: Op::new(device, &shaders::argmax_last(), &[&best, &b.tokens]),
            staging: [0, 1].map(|_| device.staging(8)),
            ahead: None,
        }
    }

    /// Other work comes: what was sent ahead is not waited for. (What it stored lies at a position
    /// that is stored again before any row sees it.)
    pub(super) fn forget(&mut self) {
        self.ahead = None;
    }
}

impl Gpu {
    /// The likeliest token after `row`, with the whole model here. With `more`, the pass of that
    /// token is sent before this one's is waited for.
    pub(crate) fn next_greedy(
        &mut self,
        model: &Model,
        row: Row,
        more: bool,
    ) -> Result<u32, GpuError> {
        let device = self.device.clone();
        device.guarded("a pass", || {
            loop {
                let sent = match self.greedy.ahead.take() {
                    Some(ahead) if ahead.row == row => ahead,
                    _ => self.send_greedy(model, row, false, 0),
                };
                let next = Row { token: 0, pos: row.pos + 1, ..row };
                let ahead = more.then(|| self.send_greedy(model, next, true, 1 - sent.staging));
                let mut back = [0f32; 2];
                let staging = &self.greedy.staging[sent.staging];
                device.read_after(staging, Some(sent.submission), &mut back)?;
                let [token, finished] = back.map(f32::to_bits);
                if sent.expected.is_some_and(|expected| !self.as_expected(finished, expected)) {
                    continue;
                }
                self.greedy.ahead = ahead.map(|a| Ahead { row: Row { token, ..a.row }, ..a });
                return Ok(token);
            }
        })
    }

    /// Sends one token's pass; with `chained` the token is the one that the pass before it chose.
    fn send_greedy(&mut self, model: &Model, row: Row, chained: bool, staging: usize) -> Ahead {
        let mut batch = Batch::default();
        batch.push(row, true);
        let shape = self.send(model, &batch, !chained);
        self.send_head(0, 1);
        let mut encoder = Encoder::new(self, model.config(), &shape, None);
        forward(&mut encoder, model.weights());
        encoder.multiply(self.head.as_ref().expect("the whole model is here"), 1);
        encoder.op(&self.greedy.parts, [256, 1, 1]);
        encoder.op(&self.greedy.last, [1, 1, 1]);
        encoder.end_pass();
        let to = &self.greedy.staging[staging];
        encoder.encoder.copy_buffer_to_buffer(&self.buffers.tokens, 0, to, 0, 4);
        let expected = encoder.copy_finished(to, 4);
        let submission = encoder.submit();
        let dispatches = encoder.dispatches;
        self.dispatches = dispatches;
        Ahead { row, submission, staging, expected }
    }
}
