//! The operations of a pass, with their buffers bound: made once a session, encoded every token.

use std::sync::OnceLock;

use shaders::params::{Mat, Norm};
use shaders::{Few, Format, Kernel, Many, Matmul, Normed, Output, Prepare};

use super::device::Device;
use super::matrix::{DeviceMatrix, Shard};
use super::pipelines::Compiled;
use super::prepare::Prepared;
use super::region::Bound;

/// Workgroups of a dispatch.
pub(super) type Grid = [u32; 3];

/// A kernel with its buffers.
pub(super) struct Op {
    pub(super) pipeline: Compiled,
    pub(super) group: wgpu::BindGroup,
}

impl Op {
    pub(super) fn new(device: &Device, kernel: &Kernel, buffers: &[&dyn Bound]) -> Self {
        Op { pipeline: device.pipeline(kernel), group: device.group(kernel, buffers) }
    }

    /// See [`Device::dispatch`].
    pub(super) fn dispatch(&self, device: &Device, pass: &mut wgpu::ComputePass<'_>, grid: Grid) {
        device.dispatch(pass, &self.pipeline, &self.group, grid);
    }
}

/// Where a matmul's rows come from and go to.
pub(super) struct Ends<'a> {
    /// How many rows, and where they begin.
    pub(super) pass: &'a dyn Bound,
    /// Rows of `x_stride` floats.
    pub(super) x: &'a wgpu::Buffer,
    pub(super) x_stride: usize,
    /// Where rows go that have to be brought into another form first.
    pub(super) prepared: Option<&'a Prepared>,
    /// Does whoever writes `x` leave it there in bytes as well, where the device multiplies bytes?
    pub(super) in_bytes: InBytes,
    /// Rows of `y_stride` floats.
    pub(super) y: &'a wgpu::Buffer,
    pub(super) y_stride: usize,
    /// Where one row of [`Output::Glu`] is left in bytes instead, for a matmul that reads bytes.
    pub(super) y_bytes: Option<&'a Prepared>,
}

/// When the rows of x are already there in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum InBytes {
    /// Always.
    Always,
    /// Where there is only one row.
    One,
    /// They have to be made.
    #[default]
    Never,
}

/// `y = x · Wᵀ`, one dispatch a shard.
pub(super) struct MatOp {
    matmul: Matmul,
    /// How one row of x is multiplied; more differ in their number only.
    pub(super) few: Few,
    shards: Vec<BoundShard>,
    /// How few rows are multiplied, and how many are.
    ways: [Many; 2],
    /// What brings them into the form that they are multiplied in.
    prepare: [Option<(Prepare, Op)>; 2],
    in_bytes: InBytes,
    x_stride: usize,
    /// One row, left in bytes.
    one: Option<Op>,
    /// For up to 1, 2, 4 and 8 rows, then for many by tiles of two sizes: compiled when first asked
    /// for.
    pipelines: [OnceLock<Compiled>; 6],
}

/// The norm before a matmul.
pub(super) struct NormBefore<'a> {
    pub(super) ends: NormEnds<'a>,
    /// The weight of the residual before it, if there is one.
    pub(super) post: Option<&'a wgpu::Buffer>,
    pub(super) weight: &'a wgpu::Buffer,
    /// Where the new x goes.
    pub(super) x_out: &'a wgpu::Buffer,
}

/// A norm and the matmul after it, for one row.
pub(super) struct NormedOp {
    pub(super) op: Op,
    pub(super) workgroups: usize,
}

/// A matmul of one row that leaves the best result of each workgroup.
pub(super) struct BestOp {
    pub(super) op: Op,
    pub(super) workgroups: usize,
    /// Where it leaves them: a value and its row each.
    pub(super) best: wgpu::Buffer,
}

/// A shard with the buffers of a matmul, for few rows and for many.
struct BoundShard {
    rows: usize,
    groups: [wgpu::BindGroup; 2],
    p: wgpu::Buffer,
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
        let (features, pieces) = (device.features, matrix.layout.pieces());
        let reduce = features.reduce();
        let few = features.share(Few::new(1, matrix.shards[0].rows, pieces));
        let ways = [features.few(matrix.format()), features.many(matrix.format())];
        let kernels = match ways[0] {
            Many::Int8 => matmul.few_int8(few, reduce),
            _ => matmul.few(few, reduce),
        };
        let kernels = [kernels, matmul.many(ways[1])];
        let prepared = || ends.prepared.expect("there are buffers where a format needs them");
        let bind = |shard: &Shard| {
            let p = device.uniform(&Mat {
                rows: shard.rows as u32,
                pieces: pieces as u32,
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
            let group = |i: usize| {
                let mut buffers: Vec<&dyn Bound> = vec![&p, ends.pass];
                match ways[i].prepare() {
                    Some(_) => buffers.extend(prepared().bound()),
                    None => buffers.push(ends.x),
                }
                buffers.push(ends.y);
                buffers.extend(shard.planes());
                device.group(&kernels[i], &buffers)
            };
            BoundShard { rows: shard.rows, groups: [group(0), group(1)], p }
        };
        let shards: Vec<_> = matrix.shards.iter().map(bind).collect();
        let whole_blocks = output == Output::Glu && ways[0] == Many::Int8 && shards.len() == 1;
        let one = ends.y_bytes.filter(|_| whole_blocks).map(|to| {
            let mut buffers: Vec<&dyn Bound> = vec![&shards[0].p, ends.pass];
            buffers.extend(prepared().bound().into_iter().chain(to.bound()));
            buffers.extend(matrix.shards[0].planes());
            let few = features.share(Few::blocks(pieces));
            Op::new(device, &matmul.one_to_int8(few, reduce), &buffers)
        });
        let prepare = ways.map(|way| {
            let form = way.prepare()?;
            Some((form, prepared().op(device, form, ends.pass, ends.x, ends.x_stride)))
        });
        MatOp {
            matmul,
            few,
            shards,
            ways,
            prepare,
            in_bytes: ends.in_bytes,
            x_stride: ends.x_stride,
            one,
            pipelines: Default::default(),
        }
    }

    /// What does the norm before this matmul as well, for one row of x; `None` where this device or
    /// this matrix does not lend itself to that.
    pub(super) fn normed(
        &self,
        device: &Device,
        matrix: &DeviceMatrix,
        ends: &Ends<'_>,
        norm: &NormBefore<'_>,
    ) -> Option<NormedOp> {
        let limits = device.device.limits();
        let to_int8 = self.one.is_some();
        let (shard, pieces) = (&matrix.shards[0], self.few.pieces);
        let few = device.features.share(match to_int8 {
            true => Few::blocks(pieces),
            false => Few::normed(shard.rows, pieces),
        });
        let bytes = few.normed_bytes(matrix.format());
        if device.features.subgroup.is_none()
            || self.ways[0] != Many::Int8
            || self.shards.len() > 1
            || (limits.max_storage_buffers_per_shader_stage as usize) < Matmul::NORMED_BUFFERS
            || (limits.max_compute_workgroup_storage_size as usize) < bytes
        {
            return None;
        }
        let n = device.uniform(&norm.ends.p);
        let mut buffers: Vec<&dyn Bound> = vec![&self.shards[0].p, ends.pass, &n, norm.ends.x];
        if let Some(post) = norm.post {
            buffers.push(norm.ends.o);
            buffers.push(post);
        }
        buffers.push(norm.weight);
        buffers.push(norm.x_out);
        match ends.y_bytes.filter(|_| to_int8) {
            Some(to) => buffers.extend(to.bound()),
            None => buffers.push(ends.y),
        }
        buffers.extend(shard.planes());
        let kernel = self.matmul.one_normed(few, norm.post.is_some(), to_int8);
        let workgroups = shard.rows.div_ceil(few.workgroup_rows());
        Some(NormedOp { op: Op::new(device, &kernel, &buffers), workgroups })
    }

    /// For one row of x, which is there as it is multiplied: of the results of each workgroup only the best is
    /// left. `None` where the matrix is in shards.
    pub(super) fn best(
        &self,
        device: &Device,
        matrix: &DeviceMatrix,
        ends: &Ends<'_>,
    ) -> Option<BestOp> {
        let int8 = self.ways[0] == Many::Int8;
        let there = self.prepare[0].is_none() || (int8 && self.in_bytes == InBytes::Always);
        let [shard] = &matrix.shards[..] else { return None };
        if !there {
            return None;
        }
        let few = device.features.share(Few::best(shard.rows, self.few.pieces));
        let workgroups = shard.rows.div_ceil(few.workgroup_rows());
        let best = device.storage("best", workgroups as u64 * 8);
        let mut buffers: Vec<&dyn Bound> = vec![&self.shards[0].p, ends.pass];
        match ends.prepared.filter(|_| int8) {
            Some(prepared) => buffers.extend(prepared.bound()),
            None => buffers.push(ends.x),
        }
        buffers.push(&best);
        buffers.extend(shard.planes());
        let kernel = self.matmul.one_best(few, int8, device.features.reduce());
        let op = Op::new(device, &kernel, &buffers);
        Some(BestOp { op, workgroups, best })
    }

    /// Is one row of the results left in bytes?
    pub(super) fn leaves_bytes(&self) -> bool {
        self.one.is_some()
    }

    /// Hands `run` the dispatches for `n` rows of x.
    pub(super) fn encode(
        &self,
        device: &Device,
        n: usize,
        mut run: impl FnMut(&Compiled, &wgpu::BindGroup, Grid),
    ) {
        let is_many = usize::from(n > Matmul::FEW);
        let tokens = n.next_power_of_two();
        let there = match self.in_bytes {
            InBytes::Always => true,
            InBytes::One => n == 1,
            InBytes::Never => false,
        };
        let there = there && self.ways[is_many] == Many::Int8;
        if let Some((form, op)) = self.prepare[is_many].as_ref().filter(|_| !there) {
            let grid = form.grid(n, self.x_stride);
            run(&op.pipeline, &op.group, grid.map(|g| g as u32));
        }
        if let Some(op) = self.one.as_ref().filter(|_| n == 1) {
            let rows = Few::blocks(self.few.pieces).workgroup_rows();
            run(&op.pipeline, &op.group, [self.shards[0].rows.div_ceil(rows) as u32, 1, 1]);
            return;
        }
        let pipeline = self.pipeline(device, n);
        let few = Few { tokens, ..self.few };
        let (many, _) = self.tiles(n);
        for shard in &self.shards {
            let grid = match is_many {
                0 => [shard.rows.div_ceil(few.workgroup_rows()), 1],
                _ => [shard.rows.div_ceil(many.tile().0), n.div_ceil(many.tile().1)],
            };
            run(pipeline, &shard.groups[is_many], [grid[0] as u32, grid[1] as u32, 1]);
        }
    }

    /// What multiplies `n` rows.
    fn pipeline(&self, device: &Device, n: usize) -> &Compiled {
        let (is_many, tokens) = (n > Matmul::FEW, n.next_power_of_two());
        let (many, tile) = self.tiles(n);
        let slot = if is_many { 4 + tile } else { tokens.trailing_zeros() as usize };
        self.pipelines[slot].get_or_init(|| {
            let (few, reduce) = (Few { tokens, ..self.few }, device.features.reduce());
            device.pipeline(&match self.ways[0] {
                _ if is_many => self.matmul.many(many),
                Many::Int8 => self.matmul.few_int8(few, reduce),
                _ => self.matmul.few(few, reduce),
            })
        })
    }

    /// Has that compiled which will multiply so many rows, before it is used.
    pub(super) fn prepare_for(&self, device: &Device, rows: &[usize]) {
        for &n in rows.iter().filter(|&&n| n != 1 || self.one.is_none()) {
            self.pipeline(device, n);
        }
    }

    /// How `n` rows are multiplied, many of them, and the number of that tile: the largest of which
    /// there are enough to keep a large GPU busy.
    fn tiles(&self, n: usize) -> (Many, usize) {
        /// Workgroups that do.
        const ENOUGH: usize = 128;
        let Many::Matrix { size: 16, workgroup, .. } = self.ways[1] else {
            return (self.ways[1], 0);
        };
        let large = (128, 64);
        let tiles = self.shards[0].rows.div_ceil(large.0) * n.div_ceil(large.1);
        let (tile, at) = if tiles >= ENOUGH { (large, 1) } else { ((64, 64), 0) };
        (Many::Matrix { size: 16, workgroup, tile }, at)
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
        let bytes = device.features.few(Format::Q4_0) == Many::Int8;
        let make = |post: Option<&wgpu::Buffer>, weight: Option<&wgpu::Buffer>| {
            let mut buffers: Vec<&dyn Bound> = vec![&p, ends.x];
            if let Some(post) = post {
                buffers.push(ends.o);
                buffers.push(post);
            }
            if let Some(weight) = weight {
                buffers.push(weight);
                buffers.push(ends.h);
            }
            let mut normed = if weight.is_some() { Normed::Float } else { Normed::Nothing };
            if let Some(prepared) = ends.prepared.filter(|_| weight.is_some() && bytes) {
                buffers.extend(prepared.bound());
                normed = Normed::Int8;
            }
            let kernel = shaders::norm(
                post.is_some(),
                normed,
                4 * ends.p.stride as usize,
                device.features.reduce(),
            );
            Op::new(device, &kernel, &buffers)
        };
        NormOps {
            alone: weight.map(|w| make(None, Some(w))),
            after: post.zip(weight).map(|(p, w)| make(Some(p), Some(w))),
            residual: post.map(|p| make(Some(p), None)),
        }
    }
}
