//! The operations of a pass, with their buffers bound: made once a session, encoded every token.

use std::sync::OnceLock;

use shaders::params::{Mat, Norm};
use shaders::{Kernel, Matmul, Output};

use super::device::Device;
use super::matrix::{DeviceMatrix, Shard};

/// Workgroups of a dispatch.
pub(super) type Grid = [u32; 3];

/// A kernel with its buffers.
pub(super) struct Op {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) group: wgpu::BindGroup,
}

impl Op {
    pub(super) fn new(device: &Device, kernel: &Kernel, buffers: &[&wgpu::Buffer]) -> Self {
        Op { pipeline: device.pipeline(kernel), group: device.group(kernel, buffers) }
    }
}

/// Where a matmul's rows come from and go to.
pub(super) struct Ends<'a> {
    /// How many rows, and where they begin.
    pub(super) pass: &'a wgpu::Buffer,
    /// Rows of `x_stride` floats.
    pub(super) x: &'a wgpu::Buffer,
    pub(super) x_stride: usize,
    /// Rows of `y_stride` floats.
    pub(super) y: &'a wgpu::Buffer,
    pub(super) y_stride: usize,
}

/// `y = x · Wᵀ`, one dispatch a shard.
pub(super) struct MatOp {
    matmul: Matmul,
    /// Invocations along a row of weights, for few rows of x.
    pub(super) lanes: usize,
    shards: Vec<(wgpu::BindGroup, usize)>,
    /// For up to 1, 2, 4 and 8 rows, then for many: compiled when first asked for.
    pipelines: [OnceLock<wgpu::ComputePipeline>; 5],
}

impl MatOp {
    /// `softcap` is for [`Output::Softcap`].
    pub(super) fn new(
        device: &Device,
        matrix: &DeviceMatrix,
        output: Output,
        softcap: f32,
        ends: &Ends<'_>,
    ) -> Self {
        let matmul = Matmul { format: matrix.format(), output };
        let kernel = matmul.tiled();
        let bind = |shard: &Shard| {
            let p = device.uniform(&Mat {
                rows: shard.rows as u32,
                pieces: matrix.layout.pieces() as u32,
                x_stride: (ends.x_stride / 4) as u32,
                y_stride: ends.y_stride as u32,
                y_offset: match output {
                    Output::Glu => shard.first_row / 2,
                    _ => shard.first_row,
                } as u32,
                first_row: shard.first_row as u32,
                scale: softcap,
                unused: 0,
            });
            let mut buffers = vec![&p, ends.pass, ends.x, ends.y];
            buffers.extend(shard.planes());
            (device.group(&kernel, &buffers), shard.rows)
        };
        MatOp {
            matmul,
            lanes: Matmul::lanes(matrix.shards[0].rows, matrix.layout.pieces()),
            shards: matrix.shards.iter().map(bind).collect(),
            pipelines: Default::default(),
        }
    }

    /// Hands `run` the dispatches for `n` rows of x.
    pub(super) fn encode(
        &self,
        device: &Device,
        n: usize,
        mut run: impl FnMut(&wgpu::ComputePipeline, &wgpu::BindGroup, Grid),
    ) {
        let few = n <= Matmul::FEW;
        let tokens = n.next_power_of_two();
        let slot = if few { tokens.trailing_zeros() as usize } else { 4 };
        let pipeline = self.pipelines[slot].get_or_init(|| {
            device.pipeline(&match few {
                true => self.matmul.few(tokens, self.lanes),
                false => self.matmul.tiled(),
            })
        });
        for (group, rows) in &self.shards {
            let grid = match few {
                true => [rows.div_ceil(Matmul::rows_of_workgroup(self.lanes)), 1],
                false => [rows.div_ceil(Matmul::TILE), n.div_ceil(Matmul::TILE)],
            };
            run(pipeline, group, [grid[0] as u32, grid[1] as u32, 1]);
        }
    }
}

/// The three ways a norm comes: alone, after a residual, and the residual alone.
pub(super) struct NormOps {
    pub(super) alone: Option<Op>,
    pub(super) after: Option<Op>,
    pub(super) residual: Option<Op>,
}

/// What [`NormOps`] work on.
pub(super) struct NormEnds<'a> {
    pub(super) p: Norm,
    pub(super) x: &'a wgpu::Buffer,
    pub(super) o: &'a wgpu::Buffer,
    pub(super) h: &'a wgpu::Buffer,
}

impl NormOps {
    /// `post` is the weight of the residual before, `weight` that of the norm.
    pub(super) fn new(
        device: &Device,
        ends: &NormEnds<'_>,
        post: Option<&wgpu::Buffer>,
        weight: Option<&wgpu::Buffer>,
    ) -> Self {
        let p = device.uniform(&ends.p);
        let make = |post: Option<&wgpu::Buffer>, weight: Option<&wgpu::Buffer>| {
            let mut buffers = vec![&p, ends.x];
            buffers.extend(post.map(|w| [ends.o, w]).into_iter().flatten());
            buffers.extend(weight.map(|w| [w, ends.h]).into_iter().flatten());
            Op::new(device, &shaders::norm(post.is_some(), weight.is_some()), &buffers)
        };
        NormOps {
            alone: weight.map(|w| make(None, Some(w))),
            after: post.zip(weight).map(|(p, w)| make(Some(p), Some(w))),
            residual: post.map(|p| make(Some(p), None)),
        }
    }
}
