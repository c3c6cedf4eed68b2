//! The forward pass, encoded.

use super::Gpu;
use super::attend::AttendOp;
use super::buffers::Which;
use super::layer::DeviceLayer;
use super::ops::{Grid, MatOp, NormOps, Op};
use super::pipelines::Compiled;
use super::whole::Whole;
use crate::backend::Backend;
use crate::config::GemmaConfig;
use crate::weights::{Layer, WeightMatrix};

/// Encodes one pass, operation by operation. Norms and residuals come in the order of the layers
/// and are put off until it is known whether they can go together.
pub(super) struct Encoder<'a> {
    gpu: &'a Gpu,
    config: &'a GemmaConfig,
    pub(super) encoder: wgpu::CommandEncoder,
    pass: Option<wgpu::ComputePass<'static>>,
    /// Rows of the batch, and of them those that are wanted.
    counts: [usize; 2],
    which: Which,
    /// Are all rows of one sequence?
    together: bool,
    /// Does every row see what is before it and itself, nothing after it?
    causal: bool,
    splits: [[u32; 2]; 2],
    /// Norms done so far (two a layer), and is there a residual to be added first?
    norms: usize,
    residual: bool,
    /// Was a norm left to the matmul after it?
    left: bool,
    /// Stretches of layers are one dispatch each: of a single row whose logits are wanted.
    whole: Option<&'a Whole>,
    /// Where that row is, if it is one of several tokens that are sent together.
    pub(super) slot: Option<usize>,
    /// Does x hold its embedding already?
    pub(super) embedded: bool,
    /// Where copies of the residual stream go.
    tap: Option<&'a wgpu::Buffer>,
    work: f64,
    pub(super) dispatches: usize,
}

/// What the batch looks like, as far as the encoder needs to know.
pub(super) struct Shape {
    pub(super) counts: [usize; 2],
    pub(super) together: bool,
    pub(super) causal: bool,
    /// By [`Which`], then for sliding and global layers.
    pub(super) splits: [[u32; 2]; 2],
}

impl<'a> Encoder<'a> {
    pub(super) fn new(
        gpu: &'a Gpu,
        config: &'a GemmaConfig,
        shape: &Shape,
        tap: Option<&'a wgpu::Buffer>,
    ) -> Self {
        let single = shape.counts == [1, 1] && shape.causal && tap.is_none();
        Encoder {
            gpu,
            whole: gpu.whole.as_ref().filter(|whole| single && whole.used),
            config,
            encoder: gpu.device.device.create_command_encoder(&Default::default()),
            pass: None,
            slot: None,
            embedded: false,
            counts: shape.counts,
            which: Which::All,
            together: shape.together,
            causal: shape.causal,
            splits: shape.splits,
            norms: 0,
            residual: false,
            left: false,
            tap,
            work: 0.0,
            dispatches: 0,
        }
    }

    /// Rows at this point of the pass.
    fn n(&self) -> usize {
        self.counts[self.which as usize]
    }

    fn run(&mut self, compiled: &Compiled, group: &wgpu::BindGroup, grid: Grid) {
        if grid.contains(&0) {
            return;
        }
        let profile = self.gpu.device.profile.as_ref();
        if let Some(profile) = profile {
            if profile.is_full() {
                self.submit();
            }
            self.pass = Some(profile.pass(&mut self.encoder, &compiled.name, grid));
        }
        let encoder = &mut self.encoder;
        let pass = self.pass.get_or_insert_with(|| {
            encoder.begin_compute_pass(&Default::default()).forget_lifetime()
        });
        self.gpu.device.dispatch(pass, compiled, group, grid);
        if profile.is_some() {
            self.pass = None;
        }
        self.dispatches += 1;
    }

    pub(super) fn op(&mut self, op: &Op, grid: [usize; 3]) {
        self.run(&op.pipeline, &op.group, grid.map(|g| g as u32));
    }

    pub(super) fn multiply(&mut self, op: &MatOp, n: usize) {
        if n > 0 {
            let gpu = self.gpu;
            op.encode(&gpu.device, n, |pipeline, group, grid| self.run(pipeline, group, grid));
        }
    }

    fn layer(&self, layer: &Layer) -> &'a DeviceLayer {
        &self.gpu.layers[layer.index]
    }

    /// Does attention make queries and keys itself? For a single row whose logits are wanted, as when
    /// an answer is written.
    fn attends_with_rope(&self, layer: &Layer) -> bool {
        self.causal && self.counts == [1, 1] && self.layer(layer).attend.with_rope.is_some()
    }

    /// The norm's operations: two a layer, then the output's.
    fn norm_ops(&self, index: usize) -> &'a NormOps {
        match self.gpu.layers.get(index / 2) {
            Some(layer) if index.is_multiple_of(2) => &layer.attn_norm,
            Some(layer) => &layer.ffn_norm,
            None => &self.gpu.last_norm,
        }
    }

    /// Adds a residual that was put off.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.residual) {
            let ops = self.norm_ops(self.norms);
            let op = ops.residual.as_ref().expect("a residual comes after a layer's output");
            self.op(op, [self.n(), 1, 1]);
        }
    }

    /// Has the number of stretches of layers that came through copied to where [`Gpu::came_through`] reads
    /// it, if those are one dispatch each; returns what it should be.
    pub(super) fn note_finished(&mut self) -> Option<u32> {
        let whole = self.whole?;
        self.end_pass();
        Some(whole.copy(&self.gpu.buffers, &mut self.encoder))
    }

    /// What that number should be.
    pub(super) fn expected(&self) -> Option<u32> {
        self.whole.map(Whole::expected)
    }

    pub(super) fn end_pass(&mut self) {
        self.pass = None;
    }

    /// Submits what was encoded so far once it is much.
    fn breathe(&mut self, work: f64) {
        self.work += work;
        let device = &self.gpu.device;
        if self.work <= device.most_work() {
            return;
        }
        self.work = 0.0;
        if !device.doubts_reads() {
            self.submit();
            return;
        }
        self.end_pass();
        let buffers = &self.gpu.buffers;
        let (x, to) = (&buffers.x[self.which as usize], &buffers.staging);
        device.leave_word(&mut self.encoder, x, to);
        self.submit();
        if let Err(e) = device.wait_for_word(to) {
            device.note(e.to_string());
        }
    }

    pub(super) fn submit(&mut self) -> wgpu::SubmissionIndex {
        self.end_pass();
        let profile = self.gpu.device.profile.as_ref();
        if let Some(profile) = profile {
            profile.resolve(&mut self.encoder);
        }
        let fresh = self.gpu.device.device.create_command_encoder(&Default::default());
        let done = std::mem::replace(&mut self.encoder, fresh);
        let submission = self.gpu.device.queue.submit([done.finish()]);
        if let Some(profile) = profile {
            // A device that fails says so to whoever waits for this pass.
            let _ = profile.collect(&self.gpu.device);
        }
        submission
    }

    /// The norm before a matmul was left to it.
    fn normed(&mut self, layer: &Layer, half: usize) -> bool {
        let left = std::mem::take(&mut self.left);
        if left {
            let ops = self.layer(layer).normed.as_ref().expect("it was left to these");
            self.op(&ops[half].op, [ops[half].workgroups, 1, 1]);
        }
        left
    }

    fn norm_next(&mut self) {
        // A layer leaves both of its norms to the matmuls after them, or none: x goes from one buffer to
        // another and ends where it began.
        let layer = self.gpu.layers.get(self.norms / 2);
        let single = self.counts == [1, 1] && self.tap.is_none();
        if single && layer.is_some_and(|l| l.normed.is_some()) {
            self.left = true;
            self.residual = false;
            self.norms += 1;
            return;
        }
        let ops = self.norm_ops(self.norms);
        let op = match std::mem::take(&mut self.residual) {
            true => ops.after.as_ref().expect("a residual comes after a layer's output"),
            false => ops.alone.as_ref().expect("every norm has a weight"),
        };
        self.op(op, [self.n(), 1, 1]);
        self.norms += 1;
    }
}

impl Backend for Encoder<'_> {
    fn embed(&mut self) {
        let gpu = self.gpu;
        if self.embedded {
            return;
        }
        for op in &gpu.embed {
            self.op(op, [self.n(), 1, 1]);
        }
    }

    fn whole_layer(&mut self, layer: &Layer) -> bool {
        let Some(whole) = self.whole else { return false };
        // Those of a stretch come with its first one.
        let first = self.gpu.stretches.iter().find(|s| s.layers.start == layer.index);
        if let Some(stretch) = first {
            let stretch = stretch.whole.as_ref().expect("all layers have one");
            let workgroups = self.gpu.device.crowded(stretch.workgroups(whole.at_once));
            self.op(stretch.of(self.slot), [workgroups as usize, 1, 1]);
            whole.count();
        }
        true
    }

    fn norm(&mut self, _weight: &[f32], _readers: &[&WeightMatrix]) {
        self.norm_next();
    }

    fn qkv(&mut self, layer: &Layer) {
        if self.normed(layer, 0) {
            return;
        }
        self.multiply(&self.layer(layer).qkv, self.n());
    }

    fn rope_store(&mut self, layer: &Layer) {
        if self.attends_with_rope(layer) {
            return;
        }
        let heads = self.config.heads + 2 * self.config.kv_heads;
        self.op(&self.layer(layer).attend.rope, [self.n(), heads, 1]);
    }

    fn keep_wanted(&mut self) {
        self.which = Which::Wanted;
        self.op(&self.gpu.gather, [self.n(), 1, 1]);
    }

    fn attend(&mut self, layer: &Layer) {
        let (c, here) = (self.config, self.layer(layer));
        let splits = self.splits[self.which as usize][here.kind] as usize;
        if let Some(op) = here.attend.with_rope.as_ref().filter(|_| self.attends_with_rope(layer)) {
            self.op(op, [c.heads, 1, splits]);
            if splits > 1 {
                self.op(&here.attend.merge, [1, c.heads, 1]);
            }
            return;
        }
        let many = splits == 1 && self.together && self.n() > 1;
        let AttendOp { heads, rows, op } = &here.attend.attend[usize::from(many)];
        self.op(op, [c.heads / heads, self.n().div_ceil(*rows), splits]);
        if splits > 1 {
            self.op(&here.attend.merge, [self.n(), c.heads, 1]);
        }
    }

    fn attn_out(&mut self, layer: &Layer) {
        self.multiply(&self.layer(layer).attn_out, self.n());
    }

    fn residual(&mut self, _post: &[f32]) {
        self.residual = true;
    }

    fn gate_up(&mut self, layer: &Layer) {
        if self.normed(layer, 1) {
            return;
        }
        self.multiply(&self.layer(layer).gate_up, self.n());
    }

    fn down(&mut self, layer: &Layer) {
        self.multiply(&self.layer(layer).down, self.n());
        let matrices =
            [&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down];
        let weights: usize = matrices.iter().map(|m| m.rows * m.cols).sum();
        self.breathe((self.counts[0] * weights) as f64);
    }

    fn tap(&mut self, depth: usize) {
        let Some(copies) = self.tap else { return };
        self.settle();
        self.end_pass();
        let bytes = (self.counts[0] * self.gpu.buffers.widths.hidden * 4) as u64;
        let x = &self.gpu.buffers.x[self.which as usize];
        self.encoder.copy_buffer_to_buffer(x, 0, copies, depth as u64 * bytes, bytes);
    }

    fn head(&mut self, _norm: &[f32]) {
        if let Some(whole) = self.whole {
            let norm = whole.last_norm.after.as_ref().expect("it comes after a layer");
            self.op(norm, [1, 1, 1]);
            return;
        }
        if self.n() > 0 {
            self.norm_next();
        }
    }
}
