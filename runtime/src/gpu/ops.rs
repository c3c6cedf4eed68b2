//! The operations of a pass, with their buffers bound: made once a session, encoded every token.

use std::sync::OnceLock;

use shaders::params::{Mat, Norm};
use shaders::{Format, Kernel, Many, Matmul, Normed, Output, Prepare};

use super::device::Device;
use super::matrix::{DeviceMatrix, Shard};
use super::pipelines::Compiled;
use super::prepare::Prepared;

/// Workgroups of a dispatch.
pub(super) type Grid = [u32; 3];

/// A kernel with its buffers.
pub(super) struct Op {
    pub(super) pipeline: Compiled,
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
    /// Where rows go that have to be brought into another form first.
    pub(super) prepared: Option<&'a Prepared>,
    /// Does whoever writes `x` leave it there in bytes as well, where the device multiplies bytes?
    pub(super) in_bytes: bool,
    /// Rows of `y_stride` floats.
    pub(super) y: &'a wgpu::Buffer,
    pub(super) y_stride: usize,
}

/// `y = x · Wᵀ`, one dispatch a shard.
pub(super) struct MatOp {
    matmul: Matmul,
    /// Invocations along a row of weights, for few rows of x.
    pub(super) lanes: usize,
    shards: Vec<BoundShard>,
    many: Many,
    /// What brings many rows into the form that they are multiplied in, where they are not in it.
    prepare: Option<(Prepare, Op)>,
    /// Are few rows, too, multiplied in bytes?
    in_bytes: bool,
    x_stride: usize,
    /// For up to 1, 2, 4 and 8 rows, then for many: compiled when first asked for.
    pipelines: [OnceLock<Compiled>; 5],
}

/// A shard with the buffers of a matmul.
struct BoundShard {
    rows: usize,
    few: wgpu::BindGroup,
    many: wgpu::BindGroup,
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
        let many = device.features.many(matrix.format());
        let prepared = many.prepare().map(|form| {
            let prepared = ends.prepared.expect("there are buffers where a format needs them");
            (form, prepared)
        });
        let in_bytes = ends.in_bytes && many == Many::Int8;
        let kernels = [matmul.few(1, 8, device.features.reduce()), matmul.many(many)];
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
                factor: matrix.factor,
            });
            let group = |kernel, x: &[&wgpu::Buffer]| {
                let mut buffers = vec![&p, ends.pass];
                buffers.extend(x);
                buffers.push(ends.y);
                buffers.extend(shard.planes());
                device.group(kernel, &buffers)
            };
            let few = group(&kernels[0], &[ends.x]);
            let many = match prepared {
                Some((_, prepared)) => group(&kernels[1], &prepared.buffers()),
                None => few.clone(),
            };
            // The kernels for few and many rows bind bytes alike.
            let few = if in_bytes { many.clone() } else { few };
            BoundShard { rows: shard.rows, few, many }
        };
        MatOp {
            matmul,
            lanes: Matmul::lanes(matrix.shards[0].rows, matrix.layout.pieces()),
            shards: matrix.shards.iter().map(bind).collect(),
            many,
            in_bytes,
            prepare: prepared.filter(|_| !in_bytes).map(|(form, prepared)| {
                (form, prepared.op(device, form, ends.pass, ends.x, ends.x_stride))
            }),
            x_stride: ends.x_stride,
            pipelines: Default::default(),
        }
    }

    /// Hands `run` the dispatches for `n` rows of x.
    pub(super) fn encode(
        &self,
        device: &Device,
        n: usize,
        mut run: impl FnMut(&Compiled, &wgpu::BindGroup, Grid),
    ) {
        let few = n <= Matmul::FEW;
        let tokens = n.next_power_of_two();
        let reduce = device.features.reduce();
        let slot = if few { tokens.trailing_zeros() as usize } else { 4 };
        let pipeline = self.pipelines[slot].get_or_init(|| {
            device.pipeline(&match few {
                true if self.in_bytes => self.matmul.few_int8(tokens, self.lanes, reduce),
                true => self.matmul.few(tokens, self.lanes, reduce),
                false => self.matmul.many(self.many),
            })
        });
        if let Some((form, op)) = self.prepare.as_ref().filter(|_| !few) {
            let grid = form.grid(n, self.x_stride);
            run(&op.pipeline, &op.group, grid.map(|g| g as u32));
        }
        for shard in &self.shards {
            let (group, grid) = match few {
                true => {
                    let rows = Matmul::rows_of_workgroup(self.lanes);
                    (&shard.few, [shard.rows.div_ceil(rows), 1])
                }
                false => {
                    let tiles = [shard.rows.div_ceil(Matmul::TILE), n.div_ceil(Matmul::TILE)];
                    (&shard.many, tiles)
                }
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
    /// Where h goes in bytes, where the device multiplies bytes.
    pub(super) prepared: Option<&'a Prepared>,
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
        let bytes = device.features.many(Format::Q4_0) == Many::Int8;
        let make = |post: Option<&wgpu::Buffer>, weight: Option<&wgpu::Buffer>| {
            let mut buffers = vec![&p, ends.x];
            buffers.extend(post.map(|w| [ends.o, w]).into_iter().flatten());
            buffers.extend(weight.map(|w| [w, ends.h]).into_iter().flatten());
            let mut normed = if weight.is_some() { Normed::Float } else { Normed::Nothing };
            if let Some(prepared) = ends.prepared.filter(|_| weight.is_some() && bytes) {
                buffers.extend(prepared.buffers());
                normed = Normed::Int8;
            }
            let kernel = shaders::norm(post.is_some(), normed, device.features.reduce());
            Op::new(device, &kernel, &buffers)
        };
        NormOps {
            alone: weight.map(|w| make(None, Some(w))),
            after: post.zip(weight).map(|(p, w)| make(Some(p), Some(w))),
            residual: post.map(|p| make(Some(p), None)),
        }
    }
}
