//! One layer on the device: its weights, its cache and its operations.

use shaders::params::Norm;
use shaders::{Many, Matmul, Output};

use super::attend::AttendOps;
use super::buffers::{Buffers, Which, cache_buffer, cache_bytes};
use super::device::Device;
use super::error::GpuError;
use super::matrix::{DeviceMatrix, device_bytes, stacks};
use super::ops::{Ends, InBytes, MatOp, NormBefore, NormEnds, NormOps, NormedOp};
use super::stretch::Stretch;
use crate::config::GemmaConfig;
use crate::kv_cache::KvCache;
use crate::model::Model;
use crate::weights::Layer;

/// A layer's operations. Those after attention work on the rows that are wanted in the last layer.
pub(super) struct DeviceLayer {
    /// 0 for sliding layers, 1 for global ones: which of the two splits of attention.
    pub(super) kind: usize,
    /// After the residual before it.
    pub(super) attn_norm: NormOps,
    pub(super) qkv: MatOp,
    pub(super) attend: AttendOps,
    pub(super) attn_out: MatOp,
    pub(super) ffn_norm: NormOps,
    pub(super) gate_up: MatOp,
    pub(super) down: MatOp,
    /// The norms with the matmuls after them, qkv and gate_up, for a single row; not in the last layer.
    pub(super) normed: Option<[NormedOp; 2]>,
}

impl DeviceLayer {
    /// Has that compiled which prompts and answers will use, with up to `most` rows at once: the rest while
    /// weights are on their way.
    fn prepare_for(&self, device: &Device, most: usize) {
        // Short prompts may have smaller tiles than long ones.
        let many = [Matmul::FEW + 1, most].map(|n| n.min(most));
        let many: Vec<_> = many.into_iter().filter(|&n| n > Matmul::FEW).collect();
        let all = [&[1], &many[..]].concat();
        let normed = self.normed.is_some();
        for (matmul, with_norm) in
            [(&self.qkv, true), (&self.gate_up, true), (&self.attn_out, false), (&self.down, false)]
        {
            matmul.prepare_for(device, if normed && with_norm { &many } else { &all });
        }
    }
}

/// Bytes of a layer's weights and cache on a device.
pub(super) fn layer_bytes(layer: &Layer, c: &GemmaConfig, cache: &KvCache) -> u64 {
    stacks(layer).iter().map(|(matrices, _)| device_bytes(matrices)).sum::<u64>()
        + 2 * cache_bytes(c, cache, layer.index)
}

/// What all layers share while they are made.
pub(super) struct Maker<'a> {
    pub(super) device: &'a Device,
    pub(super) model: &'a Model,
    pub(super) cache: &'a KvCache,
    pub(super) buffers: &'a Buffers,
    /// Which RoPE (at most two in a model) each layer uses.
    pub(super) table_of_layer: &'a [usize],
    /// The most rows of a pass.
    pub(super) max_rows: usize,
}

impl<'b> Maker<'b> {
    /// A norm's weights, padded with zeros.
    pub(super) fn weight(&self, values: &[f32]) -> wgpu::Buffer {
        let mut padded = values.to_vec();
        padded.resize(self.buffers.widths.hidden, 0.0);
        self.device.floats("norm", &padded)
    }

    pub(super) fn norm(
        &self,
        which: Which,
        post: Option<&[f32]>,
        weight: Option<&[f32]>,
    ) -> NormOps {
        let (post, weight) = (post.map(|w| self.weight(w)), weight.map(|w| self.weight(w)));
        let x = &self.buffers.x[which as usize];
        NormOps::new(self.device, &self.norm_ends(x), post.as_ref(), weight.as_ref())
    }

    fn norm_ends(&self, x: &'b wgpu::Buffer) -> NormEnds<'b> {
        let b = self.buffers;
        let prepared = b.prepared.as_ref();
        NormEnds { p: self.norm_params(), x, o: &b.o, h: &b.h, prepared }
    }

    pub(super) fn norm_params(&self) -> Norm {
        let c = self.model.config();
        Norm {
            cols: c.hidden as u32,
            stride: (self.buffers.widths.hidden / 4) as u32,
            eps: c.rms_eps,
            unused: 0,
        }
    }

    /// Uploads a layer of a stretch and binds its operations.
    pub(super) fn layer(&self, layer: &Layer, stretch: &Stretch) -> Result<DeviceLayer, GpuError> {
        let (device, b, w) = (self.device, self.buffers, self.buffers.widths);
        let (c, weights) = (self.model.config(), self.model.weights());
        let last = layer.index + 1 == weights.layers.len();
        // Rows after attention.
        let after = if last { Which::Wanted } else { Which::All };
        let kind = usize::from(layer.config.window.is_none());
        // From x, to y: rows that follow each other by so many floats.
        let ends = |which: Which, (x, x_stride): (&'b _, _), (y, y_stride): (&'b _, _)| Ends {
            pass: &b.pass[which as usize][0],
            x,
            x_stride,
            prepared: b.prepared.as_ref(),
            in_bytes: InBytes::Never,
            y,
            y_stride,
            y_bytes: None,
        };
        let multiply =
            |m: &DeviceMatrix, output, ends: &Ends<'_>| MatOp::new(device, m, output, 0.0, ends);
        let (in_stretch, stacks) = (layer.index - stretch.layers.start, stacks(layer));
        let upload = |m: usize| {
            let (matrices, stack) = &stacks[m];
            let home = stretch.homes.as_ref().map(|homes| homes.matrix(in_stretch, m));
            DeviceMatrix::upload_to(device, self.model.bytes(), matrices, *stack, home)
        };
        let (qkv_matrix, o) = (upload(0)?, upload(1)?);
        let (up_matrix, down_matrix) = (upload(2)?, upload(3)?);
        let before = layer.index.checked_sub(1).map(|i| &weights.layers[i].post_ffn_norm[..]);
        let own_cache = || cache_buffer(device, c, self.cache, layer.index);
        let [k, v] = match &stretch.homes {
            Some(homes) => homes.cache(in_stretch),
            None => [own_cache()?, own_cache()?],
        };
        let int8 = device.features.few(o.format()) == Many::Int8;
        let attend = AttendOps::new(self, layer, after, [&k, &v], int8);
        // The norms leave h in bytes as well, and one row of GELU(gate) · up is left in bytes where
        // the next matmul reads them.
        let in_bytes = InBytes::Always;
        let qkv_ends = Ends { in_bytes, ..ends(Which::All, (&b.h, w.hidden), (&b.qkv, w.qkv)) };
        let y_bytes = b
            .prepared_g
            .as_ref()
            .filter(|_| device.features.few(down_matrix.format()) == Many::Int8);
        let up_ends = Ends { in_bytes, y_bytes, ..ends(after, (&b.h, w.hidden), (&b.g, w.g)) };
        let gate_up = multiply(&up_matrix, Output::Glu, &up_ends);
        let down_ends = Ends {
            prepared: b.prepared_g.as_ref(),
            in_bytes: if gate_up.leaves_bytes() { InBytes::One } else { InBytes::Never },
            ..ends(after, (&b.g, w.g), (&b.o, w.hidden))
        };
        let qkv = multiply(&qkv_matrix, Output::Plain, &qkv_ends);
        // From x to the buffer between, and back.
        let x = &b.x[Which::All as usize];
        let (attn, ffn) = (self.weight(&layer.attn_norm), self.weight(&layer.ffn_norm));
        let post = [before, Some(&layer.post_attn_norm[..])].map(|w| w.map(|w| self.weight(w)));
        let norm =
            |x, post, weight, x_out| NormBefore { ends: self.norm_ends(x), post, weight, x_out };
        let first = norm(x, post[0].as_ref(), &attn, &b.x_between);
        let second = norm(&b.x_between, post[1].as_ref(), &ffn, x);
        let normed = qkv.normed(device, &qkv_matrix, &qkv_ends, &first);
        let normed = normed.zip(gate_up.normed(device, &up_matrix, &up_ends, &second));
        let normed = normed.filter(|_| !last).map(|(qkv, gate_up)| [qkv, gate_up]);
        let out_ends =
            Ends { in_bytes: attend.in_bytes, ..ends(after, (&b.a, w.a), (&b.o, w.hidden)) };
        let layer = DeviceLayer {
            kind,
            attn_norm: self.norm(Which::All, before, Some(&layer.attn_norm)),
            qkv,
            attend,
            attn_out: multiply(&o, Output::Plain, &out_ends),
            ffn_norm: self.norm(after, Some(&layer.post_attn_norm), Some(&layer.ffn_norm)),
            gate_up,
            down: multiply(&down_matrix, Output::Plain, &down_ends),
            normed,
        };
        layer.prepare_for(device, self.max_rows);
        Ok(layer)
    }
}
