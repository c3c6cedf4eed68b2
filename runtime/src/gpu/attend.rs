//! A layer's rotation and attention, with their buffers bound.

use shaders::params::{Attend, Rope as RopeParams};
use shaders::{Attention, CacheFormat, Kernel, Rope};

use super::buffers::{Which, cache_format, device_slots};
use super::device::Device;
use super::layer::Maker;
use super::ops::{InBytes, Op};
use super::region::{Bound, Region};
use crate::weights::Layer;

/// What stands between a layer's q, k and v and its attention's result.
pub(super) struct AttendOps {
    /// Norm, RoPE, and the keys and values into the cache.
    pub(super) rope: Op,
    /// Attention of few rows, then of many of one sequence.
    pub(super) attend: [AttendOp; 2],
    /// Both of these of a single row.
    pub(super) with_rope: Option<Op>,
    /// Puts parts of the positions together.
    pub(super) merge: Op,
    /// Is the result of few rows left in bytes as well?
    pub(super) in_bytes: InBytes,
}

/// Attention, with the heads and rows of a workgroup.
pub(super) struct AttendOp {
    pub(super) heads: usize,
    pub(super) rows: usize,
    pub(super) op: Op,
}

impl AttendOp {
    fn new(device: &Device, shape: Attention, kernel: &Kernel, buffers: &[&dyn Bound]) -> Self {
        let op = Op::new(device, kernel, buffers);
        AttendOp { heads: shape.heads, rows: shape.rows, op }
    }
}

impl AttendOps {
    /// For a layer whose keys and values lie in `k` and `v`. Attention works on the rows `which`;
    /// with `int8` its result is wanted in bytes.
    pub(super) fn new(
        maker: &Maker<'_>,
        layer: &Layer,
        which: Which,
        [k, v]: [&Region; 2],
        int8: bool,
    ) -> Self {
        let (device, b, c) = (maker.device, maker.buffers, maker.model.config());
        let cache = cache_format(maker.cache);
        let slots = device_slots(maker.cache, layer.index);
        let kind = usize::from(layer.config.window.is_none());

        let r = device.uniform(&RopeParams {
            heads: c.heads as u32,
            kv_heads: c.kv_heads as u32,
            slots: slots as u32,
            table: maker.table_of_layer[layer.index] as u32,
            eps: c.rms_eps,
            query_scale: c.query_scale,
            ..Default::default()
        });
        // Weights of queries' norm, then of keys'.
        let norms =
            layer.qk_norm.as_ref().map(|(q, k)| device.floats("norm", &[&q[..], k].concat()));
        let kernel = Rope { head_dim: c.head_dim, normed: norms.is_some(), cache };
        let mut buffers: Vec<&dyn Bound> = vec![&r, &b.rows[0], &b.angles, &b.qkv, &b.q, k, v];
        buffers.extend(norms.iter().map(|norms| norms as &dyn Bound));
        let rope = Op::new(device, &kernel.kernel(), &buffers);

        let p = device.uniform(&Attend {
            heads: c.heads as u32,
            kv_heads: c.kv_heads as u32,
            slots: slots as u32,
            window: layer.config.window.unwrap_or(0) as u32,
            stride: b.widths.a as u32,
            softcap: c.attn_softcap.unwrap_or(0.0),
            ..Default::default()
        });
        let (pass, rows) = (&b.pass[which as usize][kind], &b.rows[which as usize]);
        let buffers: [&dyn Bound; 8] = [&p, pass, rows, &b.q, k, v, &b.a, &b.parts];
        let shape = |many| {
            let (heads, rows) = Attention::shape(c.heads / c.kv_heads, many);
            Attention { head_dim: c.head_dim, heads, rows, cache }
        };
        let one = Attention { heads: 1, ..shape(false) };
        let lanes = device.features.subgroup.and_then(|least| one.lanes(least as usize));
        let int8 = int8 && lanes.is_some() && c.head_dim.is_multiple_of(32);
        let bytes = b.prepared.as_ref().filter(|_| int8).map(|to| to.bound());
        let with_bytes = |mut buffers: Vec<_>| {
            buffers.extend(bytes.into_iter().flatten());
            buffers
        };
        let few = match lanes {
            Some(lanes) => {
                AttendOp::new(device, one, &one.one(lanes, int8), &with_bytes(buffers.to_vec()))
            }
            None => AttendOp::new(device, shape(false), &shape(false).kernel(), &buffers),
        };
        // Cooperative matrices take more rows at once.
        let many = match (device.features.matrix, shape(true).by_matrices()) {
            (Some((16, workgroup)), Some(by)) => {
                AttendOp::new(device, by, &by.matrix(workgroup as usize), &buffers[..7])
            }
            _ => AttendOp::new(device, shape(true), &shape(true).kernel(), &buffers),
        };
        let limit = device.device.limits().max_storage_buffers_per_shader_stage as usize;
        let fits = cache == CacheFormat::F16 && limit >= Attention::ROPE_BUFFERS;
        let with_rope = lanes.filter(|_| fits).map(|lanes| {
            let kernel = one.with_rope(lanes, norms.is_some(), int8);
            let mut buffers: Vec<&dyn Bound> =
                vec![&p, &r, pass, &b.rows[0], &b.angles, &b.qkv, k, v, &b.a, &b.parts];
            buffers.extend(norms.iter().map(|norms| norms as &dyn Bound));
            Op::new(device, &kernel, &with_bytes(buffers))
        });
        let merge = shaders::merge(c.head_dim, int8);
        let merge = Op::new(device, &merge, &with_bytes(vec![&p, pass, &b.parts, &b.a]));
        let in_bytes = if int8 { InBytes::One } else { InBytes::Never };
        AttendOps { rope, attend: [few, many], with_rope, merge, in_bytes }
    }
}
