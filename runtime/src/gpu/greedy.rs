//! Greedy decoding: the device chooses the likeliest token and embeds it itself, so that the passes of
//! the next tokens are encoded and sent while this one runs. Only tokens are read back. Where a token's
//! layers are whole, several tokens go in one submission: a submission costs more than the CPU's time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use shaders::params::Norm;

use super::buffers::Buffers;
use super::device::Device;
use super::encode::Encoder;
use super::matrix::DeviceMatrix;
use super::ops::{BestOp, Op};
use super::region::{Bound, Region};
use super::slots::Slots;
use super::whole::finished;
use super::{Gpu, GpuError};
use crate::batch::{Batch, Row};
use crate::forward::forward;
use crate::model::Model;

/// What choosing tokens takes.
pub(super) struct Greedy {
    /// The head, and the best of some of its rows each.
    parts: Parts,
    /// The best of these: for the row of a pass, or the one in a slot.
    last: Op,
    slots: Vec<Op>,
    /// Do these leave the embedding of the token that they found in x?
    embeds: bool,
    /// How many stretches of layers came through, then the tokens that were chosen.
    chosen: Region,
    /// Two submissions may be on their way back.
    staging: [wgpu::Buffer; 2],
    /// Tokens that were read back and not asked for yet.
    read: VecDeque<u32>,
    /// The row that will be asked for if all goes on as it began, and how many have been.
    next: Option<Row>,
    given: usize,
    ahead: Option<Group>,
    /// How long the last token took, where it is known.
    pace: Option<Duration>,
}

/// What greedy decoding makes of the head and of the embedding.
#[derive(Default)]
pub(super) struct GreedyEnds {
    /// Where the head can leave the best of each of its workgroups.
    pub(super) head: Option<BestOp>,
    /// Where it is one shard.
    pub(super) embedding: Option<Embedding>,
}

/// The embedding, with the parameters that it is read with.
pub(super) struct Embedding {
    pub(super) p: wgpu::Buffer,
    pub(super) matrix: DeviceMatrix,
}

/// How the first step is made.
enum Parts {
    /// By the head itself.
    Head(BestOp),
    /// By 256 workgroups, from its logits.
    Logits(Op),
}

/// The passes of tokens that follow each other, sent before they were asked for.
struct Group {
    /// Position of the first.
    pos: usize,
    count: usize,
    submission: wgpu::SubmissionIndex,
    staging: usize,
    /// Stretches that should have come through by then, where they are one dispatch each.
    expected: Option<u32>,
    /// When the device began with it.
    begun: Instant,
}

impl Greedy {
    pub(super) fn new(device: &Device, b: &Buffers, vocab: usize, ends: GreedyEnds) -> Self {
        let (parts, count, best) = match ends.head {
            Some(head) => {
                let (count, best) = (head.workgroups, head.best.clone());
                (Parts::Head(head), count, best)
            }
            None => {
                let p = device.uniform(&Norm { cols: vocab as u32, ..Default::default() });
                let best = device.storage("best", 256 * 8);
                let op = Op::new(device, &shaders::argmax(), &[&p, &b.logits, &best]);
                (Parts::Logits(op), 256, best)
            }
        };
        let chosen = finished(device, b);
        let embedding = ends.embedding.as_ref();
        // One workgroup sees to all of it: the more invocations it has, the more is asked for at once.
        let most = device.device.limits().max_compute_invocations_per_workgroup as usize;
        let workgroup = [1024, 512].into_iter().find(|n| *n <= most.min(count)).unwrap_or(256);
        let kernel = shaders::argmax_last(count, embedding.map(|e| e.matrix.format()), workgroup);
        let last = |row: &dyn Bound| {
            let mut buffers: Vec<&dyn Bound> = vec![&best, &b.tokens, row, &chosen];
            if let Some(Embedding { p, matrix }) = embedding {
                buffers.push(p);
                buffers.push(&b.x[0]);
                buffers.extend(matrix.shards[0].planes());
            }
            Op::new(device, &kernel, &buffers)
        };
        Greedy {
            parts,
            last: last(&b.rows[0]),
            slots: (0..Slots::MOST).map(|slot| last(&b.slots.row(slot))).collect(),
            embeds: embedding.is_some(),
            chosen,
            staging: [0, 1].map(|_| device.staging((1 + Slots::MOST as u64) * 4)),
            read: VecDeque::new(),
            next: None,
            given: 0,
            ahead: None,
            pace: None,
        }
    }

    /// Other work comes: what was sent ahead is not waited for. (What it stored lies at positions
    /// that are stored again before any row sees them.)
    pub(super) fn forget(&mut self) {
        self.read.clear();
        self.next = None;
        self.given = 0;
        self.ahead = None;
    }
}

impl Gpu {
    /// Positions after the one asked for that [`Gpu::next_greedy`] stores ahead, at most: the rest of
    /// a group, and the group after it.
    pub(crate) fn most_ahead(&self) -> usize {
        if self.has_whole_layers() { 2 * Slots::MOST - 1 } else { 1 }
    }

    /// The likeliest token after `row`, with the whole model here. The passes of tokens after it, at
    /// up to `ahead` positions, are sent before this one's is waited for.
    pub(crate) fn next_greedy(
        &mut self,
        model: &Model,
        row: Row,
        ahead: usize,
    ) -> Result<u32, GpuError> {
        if self.greedy.next != Some(row) {
            self.greedy.forget();
        }
        if self.greedy.read.is_empty() {
            let device = self.device.clone();
            device.guarded("a pass", || self.read_greedy(model, row, ahead))?;
        }
        let greedy = &mut self.greedy;
        let token = greedy.read.pop_front().expect("one was read at least");
        greedy.given += 1;
        greedy.next = Some(Row { token, pos: row.pos + 1, ..row });
        Ok(token)
    }

    /// Reads the tokens of `row`'s group back, once the group after it has been sent.
    fn read_greedy(&mut self, model: &Model, row: Row, ahead: usize) -> Result<(), GpuError> {
        let end = row.pos + 1 + ahead;
        loop {
            let sent = match self.greedy.ahead.take() {
                Some(sent) => sent,
                None => self.send_greedy(model, row, 1, false, 0),
            };
            let next = Row { token: 0, pos: sent.pos + sent.count, ..row };
            let given = self.greedy.given + sent.count;
            let count = self.group_size(given).min(end.saturating_sub(next.pos));
            let to = 1 - sent.staging;
            let ahead = (count > 0).then(|| self.send_greedy(model, next, count, true, to));
            let mut back = [0f32; 1 + Slots::MOST];
            let staging = &self.greedy.staging[sent.staging];
            self.device.read_after(staging, Some(sent.submission), &mut back)?;
            let [finished, tokens @ ..] = back.map(f32::to_bits);
            if sent.expected.is_some_and(|expected| !self.as_expected(finished, expected)) {
                continue;
            }
            let tokens = &tokens[..sent.count];
            let vocab = model.weights().vocab();
            if let Some(token) = tokens.iter().find(|t| **t as usize >= vocab) {
                return Err(self.device.failed(format!("it chose token {token} of {vocab}")));
            }
            let now = Instant::now();
            let greedy = &mut self.greedy;
            greedy.pace = Some((now - sent.begun) / sent.count as u32);
            greedy.ahead = ahead.map(|group| Group { begun: now, ..group });
            greedy.read.extend(tokens);
            return Ok(());
        }
    }

    /// How many tokens go together after so many were given: no more than those, as an answer may end
    /// with any, and such that a submission is not long. That of a GPU in software may be.
    fn group_size(&self, given: usize) -> usize {
        /// A display wants to be drawn in between, and people see tokens come.
        const LONG: Duration = Duration::from_millis(8);
        if !self.has_whole_layers() {
            return 1;
        }
        let fit = match self.greedy.pace {
            _ if !self.device.is_real() => Slots::MOST,
            Some(pace) => (LONG.as_secs_f64() / pace.as_secs_f64()).round() as usize,
            None => 1,
        };
        fit.min(given).clamp(1, Slots::MOST)
    }

    /// Sends the passes of `count` tokens, more than one only where layers are whole; with `chained` the
    /// first token is the one that the pass before them chose.
    fn send_greedy(
        &mut self,
        model: &Model,
        row: Row,
        count: usize,
        chained: bool,
        staging: usize,
    ) -> Group {
        let whole = self.has_whole_layers();
        let shape = if whole {
            self.send_slots(model, row, count, chained)
        } else {
            let mut batch = Batch::default();
            batch.push(row, true);
            self.send(model, &batch, !chained)
        };
        self.send_head(0, 1);
        let begun = Instant::now();
        let greedy = &self.greedy;
        let mut encoder = Encoder::new(self, model.config(), &shape, None);
        let mut before = 0;
        for slot in 0..count {
            before = encoder.dispatches;
            encoder.slot = whole.then_some(slot);
            encoder.embedded = greedy.embeds && (chained || slot > 0);
            forward(&mut encoder, model.weights());
            match &greedy.parts {
                Parts::Head(head) => encoder.op(&head.op, [head.workgroups, 1, 1]),
                Parts::Logits(parts) => {
                    encoder.multiply(self.head.as_ref().expect("the whole model is here"), 1);
                    encoder.op(parts, [256, 1, 1]);
                }
            }
            encoder.op(if whole { &greedy.slots[slot] } else { &greedy.last }, [1, 1, 1]);
        }
        encoder.end_pass();
        greedy.chosen.copy(&mut encoder.encoder, &greedy.staging[staging]);
        let expected = encoder.expected();
        let submission = encoder.submit();
        let dispatches = encoder.dispatches - before;
        self.dispatches = dispatches;
        Group { pos: row.pos, count, submission, staging, expected, begun }
    }
}
