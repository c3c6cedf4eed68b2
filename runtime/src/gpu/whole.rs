//! Whole layers in one dispatch, for a single row: workgroups wait for each other on the device in
//! place of dispatches that do. Nothing promises that they can: how many run at the same time is found
//! out when a session is made, results and time are compared with those of the other way, and a pass
//! whose workgroups did not all come through is run again the other way.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use shaders::params::{Stage, Whole as WholeParams};
use shaders::{Attention, Kernel, LayerMatrix, Many, Messages, WholeLayer};

use super::buffers::{Buffers, Which, cache_format, device_slots};
use super::device::Device;
use super::layer::Maker;
use super::ops::{NormOps, Op};
use super::pipelines::Compiled;
use super::region::{Bound, Region};
use super::slots::Slots;
use super::stretch::{Homes, Shape, Stretch};
use super::{Gpu, GpuError};
use crate::batch::{Batch, Row};
use crate::model::Model;

/// A stretch of layers.
pub(super) struct StretchOps {
    pub(super) layers: Range<usize>,
    /// All of it for a single row, where this device and these layers lend themselves to that.
    pub(super) whole: Option<WholeOp>,
}

/// What does a stretch in one dispatch, asked for before its weights are there.
pub(super) struct WholeKernel {
    shape: WholeLayer,
    kernel: Kernel,
    compiled: Compiled,
}

/// A stretch in one dispatch.
pub(super) struct WholeOp {
    op: Op,
    /// The same for the token of each slot.
    slots: Vec<Op>,
    /// Finds out how many workgroups of it run at the same time.
    probe: Op,
    shape: WholeLayer,
    /// The most invocations that a subgroup has here.
    subgroup: usize,
}

/// A model's layers, a dispatch for each stretch of them.
pub(super) struct Whole {
    /// Not yet, while they are compared with separate operations.
    pub(super) used: bool,
    /// Workgroups that run at the same time.
    pub(super) at_once: u32,
    /// The norm after the last layer, of all rows' x.
    pub(super) last_norm: NormOps,
    /// Stretches that were sent so far.
    sent: AtomicU32,
    pub(super) staging: wgpu::Buffer,
}

impl StretchOps {
    /// For layers that were uploaded to where the stretch has room for them.
    pub(super) fn new(maker: &Maker<'_>, stretch: Stretch, kernel: Option<WholeKernel>) -> Self {
        let parts = stretch.homes.as_ref().zip(kernel);
        let whole =
            parts.map(|(homes, kernel)| WholeOp::new(maker, &stretch.layers, homes, kernel));
        StretchOps { layers: stretch.layers, whole }
    }
}

impl WholeKernel {
    /// `None` where this device or these layers do not lend themselves to that.
    pub(super) fn new(maker: &Maker<'_>, stretch: &Stretch) -> Option<Self> {
        let homes = stretch.homes.as_ref()?;
        phases(maker)?;
        let normed = maker.model.weights().layers[stretch.layers.start].qk_norm.is_some();
        let shape = whole_layer(maker, normed, homes)?;
        let kernel = shape.kernel();
        let compiled = maker.device.pipeline_or_not(&kernel);
        Some(WholeKernel { shape, kernel, compiled })
    }
}

/// See [`WholeLayer::phases`].
fn phases(maker: &Maker<'_>) -> Option<Vec<u32>> {
    let c = maker.model.config();
    let is_global: Vec<_> = c.layers.iter().map(|l| l.window.is_none()).collect();
    WholeLayer::phases(&is_global)
}

impl WholeOp {
    fn new(maker: &Maker<'_>, layers: &Range<usize>, homes: &Homes, made: WholeKernel) -> Self {
        let (device, b, c) = (maker.device, maker.buffers, maker.model.config());
        let all = &maker.model.weights().layers;
        let WholeKernel { shape, kernel, compiled } = made;
        let subgroup = device.device.adapter_info().subgroup_max_size as usize;
        let phases = phases(maker).expect("or else there is no kernel");
        let (mut norms, mut plan) = (Vec::new(), Vec::new());
        let row_bytes = cache_format(maker.cache).row_bytes(c.head_dim);
        for (k, layer) in all[layers.clone()].iter().enumerate() {
            let before = layer.index.checked_sub(1).map(|i| &all[i].post_ffn_norm);
            let own = [&layer.attn_norm, &layer.post_attn_norm, &layer.ffn_norm];
            for values in [before].into_iter().chain(own.map(Some)) {
                let end = norms.len() + b.widths.hidden;
                norms.extend(values.into_iter().flatten());
                norms.resize(end, 0.0);
            }
            let end = norms.len() + 2 * c.head_dim;
            norms.extend(layer.qk_norm.iter().flat_map(|(q, k)| q.iter().chain(k)));
            norms.resize(end, 0.0);
            plan.push(Stage {
                slots: device_slots(maker.cache, layer.index) as u32,
                window: layer.config.window.unwrap_or(0) as u32,
                table: maker.table_of_layer[layer.index] as u32,
                phase: phases[layer.index],
                cache_row: homes.cache_row(k, row_bytes),
                ..Default::default()
            });
        }
        let norms = device.floats("norms", &norms);
        let plan = device.floats("plan", bytemuck::cast_slice(&plan));
        let bytes = shape.message_bytes() as u64;
        let messages = b.messages.get_or_init(|| device.storage("messages", bytes));
        let op = |probe, row: &dyn Bound, angles: &dyn Bound| {
            let w = device.uniform(&WholeParams {
                cols: c.hidden as u32,
                layers: layers.len() as u32,
                residual: u32::from(layers.start > 0),
                probe,
                eps: c.rms_eps,
                query_scale: c.query_scale,
                softcap: c.attn_softcap.unwrap_or(0.0),
                unused: 0,
            });
            let [sliding, global] = &b.pass[Which::All as usize];
            let mut buffers: Vec<&dyn Bound> =
                vec![&w, sliding, global, &plan, row, angles, &norms, &b.x[0], &b.o];
            buffers.push(messages);
            let planes = homes.cache.iter().chain(homes.planes.as_flattened());
            buffers.extend(planes.map(|buffer| buffer as &dyn Bound));
            Op { pipeline: compiled.clone(), group: device.group(&kernel, &buffers) }
        };
        let slot = |i| op(0, &b.slots.row(i), &b.slots.angles(i));
        WholeOp {
            op: op(0, &b.rows[0], &b.angles),
            slots: (0..Slots::MOST).map(slot).collect(),
            probe: op(1, &b.rows[0], &b.angles),
            shape,
            subgroup,
        }
    }

    /// For the row of a pass, or the one in a slot.
    pub(super) fn of(&self, slot: Option<usize>) -> &Op {
        slot.map_or(&self.op, |slot| &self.slots[slot])
    }

    /// How many workgroups it is sent in where so many run at the same time.
    pub(super) fn workgroups(&self, at_once: u32) -> u32 {
        self.shape.workgroups(at_once, self.subgroup)
    }
}

/// How the layers of a stretch are done.
fn whole_layer(maker: &Maker<'_>, normed: bool, homes: &Homes) -> Option<WholeLayer> {
    let (device, c, w) = (maker.device, maker.model.config(), maker.buffers.widths);
    let limits = device.device.limits();
    let (format, cache) = (homes.shape.layouts[0].format, cache_format(maker.cache));
    let subgroup = device.features.subgroup? as usize;
    let most = device.device.adapter_info().subgroup_max_size as usize;
    let fits = device.features.few(format) == Many::Int8
        && c.head_dim.is_multiple_of(32)
        && limits.max_storage_buffers_per_shader_stage as usize >= WholeLayer::BUFFERS;
    let attention = Attention { head_dim: c.head_dim, heads: 1, rows: 1, cache };
    // What lies half a head apart is in another invocation, or in the same one.
    let turns = |lanes: &usize| matches!(c.head_dim / 8 / lanes, 1 | 2 | 4);
    let lanes = attention.lanes(subgroup).filter(|lanes| fits && turns(lanes))?;
    let of = |m: usize, rows: usize| {
        let Shape { rows: all, layouts } = homes.shape;
        LayerMatrix::new(all[m] / rows, rows, layouts[m].pieces(), subgroup)
    };
    let layer = WholeLayer {
        format,
        heads: c.heads,
        kv_heads: c.kv_heads,
        head_dim: c.head_dim,
        normed,
        capped: c.attn_softcap.is_some(),
        hidden: w.hidden,
        ffn: w.g,
        matrices: [of(0, 1), of(1, 1), of(2, 2), of(3, 1)],
        lanes,
        workgroup: 0,
    };
    let sizes = [512, 256, 128].map(|workgroup| WholeLayer { workgroup, ..layer });
    let has_room = |layer: &WholeLayer| {
        layer.workgroup >= layer.least_invocations(most)
            && layer.workgroup <= limits.max_compute_invocations_per_workgroup as usize
            && layer.workgroup_bytes() <= limits.max_compute_workgroup_storage_size as usize
    };
    sizes.into_iter().find(has_room)
}

impl Whole {
    /// Copies how many stretches have come through to where it is read, from a pass that was just encoded;
    /// returns how many there should be.
    pub(super) fn copy(&self, buffers: &Buffers, encoder: &mut wgpu::CommandEncoder) -> u32 {
        let from = word(Messages::FINISHED);
        encoder.copy_buffer_to_buffer(messages(buffers), from, &self.staging, 0, 4);
        self.expected()
    }

    /// How many should have come through once all that was encoded is done.
    pub(super) fn expected(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// A stretch was encoded.
    pub(super) fn count(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
}

impl Gpu {
    /// Sees whether whole layers work here, and pay: against separate operations, a few tokens each way,
    /// in turns, as a device may only be waking up.
    pub(super) fn try_whole(&mut self, model: &Model, last_norm: NormOps) -> Result<(), GpuError> {
        /// How long that takes, but for the first turn, and where whole layers seem not to pay: a GPU
        /// that slept is slow for half a second, and whole layers are slower then than the others.
        const LONG: Duration = Duration::from_millis(100);
        const IN_DOUBT: Duration = Duration::from_millis(600);
        let all: Option<Vec<_>> = self.stretches.iter().map(|s| s.whole.as_ref()).collect();
        let Some(all) = all else { return Ok(()) };
        // A driver may not take so large a kernel.
        let refused = all.iter().find_map(|whole| whole.op.pipeline.wait().err());
        if let Some(why) = refused.map(|caught| caught.why.clone()) {
            self.without_whole(&why);
            return Ok(());
        }
        self.whole = Some(Whole {
            used: false,
            at_once: self.at_once()?,
            last_norm,
            sent: AtomicU32::new(0),
            staging: self.device.staging(16),
        });
        let mut logits = [const { Vec::new() }; 2];
        for (used, logits) in [false, true].into_iter().zip(&mut logits) {
            if self.uses_whole(used) {
                self.pass(model, &one_row(model, 0).0)?;
                *logits = self.logits(model.weights().vocab()).to_vec();
            }
        }
        if !alike(&logits[0], &logits[1]) {
            self.without_whole("in one dispatch they come out otherwise");
        }
        // In software they are used where somebody asks for them.
        if !self.device.is_real() {
            return Ok(());
        }
        let mut shortest = [Duration::MAX; 2];
        let begun = Instant::now();
        while begun.elapsed() < if shortest[1] >= shortest[0] { IN_DOUBT } else { LONG } {
            for (used, shortest) in [false, true].into_iter().zip(&mut shortest) {
                // Workgroups may have waited in vain.
                if !self.uses_whole(used) {
                    return Ok(());
                }
                *shortest = self.shortest(model)?.min(*shortest);
            }
        }
        if shortest[1] >= shortest[0] {
            self.whole = None;
        }
        Ok(())
    }

    /// Uses whole layers from now on, or does not; false where there are none.
    fn uses_whole(&mut self, used: bool) -> bool {
        self.whole.as_mut().map(|whole| whole.used = used).is_some()
    }

    /// The shortest time that one of a few tokens takes.
    fn shortest(&mut self, model: &Model) -> Result<Duration, GpuError> {
        let mut shortest = Duration::MAX;
        for pos in 1..4 {
            let start = Instant::now();
            self.next_greedy(model, one_row(model, pos).1, 0)?;
            shortest = shortest.min(start.elapsed());
        }
        Ok(shortest)
    }

    /// How many workgroups of the layers' kernel run at the same time.
    fn at_once(&self) -> Result<u32, GpuError> {
        /// More than any device has at once.
        const MANY: u32 = 4096;
        let (device, messages) = (&self.device, messages(&self.buffers));
        let whole = self.stretches[0].whole.as_ref().expect("all layers have one");
        let mut encoder = device.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        whole.probe.dispatch(device, &mut pass, [MANY, 1, 1]);
        drop(pass);
        let staging = device.staging(16);
        encoder.copy_buffer_to_buffer(messages, word(Messages::SEEN), &staging, 0, 4);
        encoder.clear_buffer(messages, 0, None);
        device.queue.submit([encoder.finish()]);
        let mut seen = [0f32];
        device.read(&staging, &mut seen)?;

        Ok((!seen[0].to_bits()).clamp(1, MANY))
    }

    /// After a pass: did all stretches come through that should have, if they are one dispatch each?
    pub(super) fn came_through(&mut self, expected: Option<u32>) -> Result<bool, GpuError> {
        let (Some(expected), Some(whole)) = (expected, &self.whole) else { return Ok(true) };
        let mut found = [0f32];
        self.device.read(&whole.staging, &mut found)?;
        Ok(self.as_expected(found[0].to_bits(), expected))
    }

    /// Did as many come through as should have? Where they did not, layers are separate operations from now
    /// on.
    pub(super) fn as_expected(&mut self, found: u32, expected: u32) -> bool {
        if found != expected {
            self.without_whole("their workgroups did not all run at the same time");
        }
        found == expected
    }

    fn without_whole(&mut self, why: &str) {
        self.whole = None;
        let note = format!("a token's layers are separate operations: {why}");
        if let Some(tell) = self.tell_note {
            tell(&note);
        }
        self.notes.push(note);
    }
}

/// Where the number of stretches that came through is found, where layers may be whole, and after it the
/// tokens that were chosen.
pub(super) fn finished(device: &Device, buffers: &Buffers) -> Region {
    const { assert!(Slots::MOST <= Messages::MOST_CHOSEN) };
    let bytes = word(1 + Slots::MOST);
    match buffers.messages.get() {
        Some(messages) => Region::of(messages, word(Messages::FINISHED), bytes),
        None => Region::new(device, "chosen", bytes),
    }
}

fn messages(buffers: &Buffers) -> &wgpu::Buffer {
    buffers.messages.get().expect("made with the layers")
}

/// Where a word of the messages lies.
fn word(number: usize) -> u64 {
    number as u64 * 4
}

/// A token at a position, whichever token it is.
fn one_row(model: &Model, pos: usize) -> (Batch, Row) {
    let row = Row { seq: 0, token: (model.weights().vocab() / 2 + pos) as u32, pos };
    let mut batch = Batch::default();
    batch.push(row, true);
    (batch, row)
}

/// Are these logits the same but for rounding?
fn alike(a: &[f32], b: &[f32]) -> bool {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) > 0.98 * (dot(a, a) * dot(b, b)).sqrt() || a == b
}
