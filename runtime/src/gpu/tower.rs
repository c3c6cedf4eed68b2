//! The layers of a vision tower on a device.
//!
//! Where patches become rows and rows become features it is the CPU's work, a thousandth of all; in
//! between goes the residual stream. Attention is the text model's, over a cache that holds all
//! patches and whose every row sees all of them: its angles are zero.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shaders::params::{Attend, Pass, Rope as RopeParams, Row, Rows};
use shaders::{Attention, COLS_PAD, CacheFormat, Finish, HEAD_PAD, Output, Rope, layer_norm};

use super::device::Device;
use super::error::GpuError;
use super::matrix::{DeviceMatrix, Stack};
use super::ops::{Ends, InBytes, MatOp, Op};
use super::pipelines::Compiled;
use super::prepare::Prepared;
use super::region::Bound;
use crate::vision::VisionConfig;
use crate::vision::weights::{Layer, Linear, Norm, Weights};

/// A tower's layers, with the buffers of one image.
pub(crate) struct GpuTower {
    device: Arc<Device>,
    /// Patches, features, and features padded.
    rows: usize,
    hidden: usize,
    stride: usize,
    x: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// q, k and v apart, for attention.
    split: Op,
    attend: (Op, [usize; 3]),
    layers: Vec<TowerLayer>,
}

struct TowerLayer {
    norm1: Op,
    qkv: MatOp,
    qkv_bias: Op,
    out: MatOp,
    out_bias: Op,
    norm2: Op,
    up: MatOp,
    gelu: Op,
    down: MatOp,
    down_bias: Op,
}

/// The buffers that layers share, `[patches, …]`; rows padded.
struct Shared {
    x: wgpu::Buffer,
    h: wgpu::Buffer,
    qkv: wgpu::Buffer,
    a: wgpu::Buffer,
    o: wgpu::Buffer,
    g: wgpu::Buffer,
    pass: wgpu::Buffer,
    /// Rows in the form that they are multiplied in, where that is another.
    prepared: Option<Prepared>,
}

impl GpuTower {
    /// Uploads the layers of a tower in the mapped `file`.
    ///
    /// # Errors
    /// [`GpuError`] when the device has not the memory, or can't run this tower.
    pub(crate) fn new(
        device: Arc<Device>,
        c: &VisionConfig,
        weights: &Weights,
        file: &[u8],
    ) -> Result<Self, GpuError> {
        let widest = (c.patches() * c.ffn.max(3 * c.hidden)) as u64 * 4;
        let odd = c.head_dim() > Attention::MAX_HEAD || !c.head_dim().is_multiple_of(2);
        if odd || c.patches() > 65535 {
            let why = format!("its heads have {}, its images {}", c.head_dim(), c.patches());
            let what = "towers with heads of an odd number or more than 256 features, or images of more than 65535 patches";
            return Err(GpuError::Unsupported { device: device.name().into(), what, why });
        }
        if widest > device.max_binding {
            return Err(GpuError::Limit {
                device: device.name().into(),
                what: "a picture on its way through the tower",
                bytes: widest,
                limit: device.max_binding,
            });
        }
        device.clone().guarded("the vision tower", || Self::set_up(device, c, weights, file))
    }

    fn set_up(
        device: Arc<Device>,
        c: &VisionConfig,
        weights: &Weights,
        file: &[u8],
    ) -> Result<Self, GpuError> {
        let (n, hidden, stride) = (c.patches(), c.hidden, c.hidden.next_multiple_of(COLS_PAD));
        let floats = |label: &str, width: usize| device.storage(label, (n * width * 4) as u64);
        let pass = Pass { n: n as u32, first: 0, splits: 1, unused: 0 };
        let s = Shared {
            x: floats("x", stride),
            h: floats("h", stride),
            qkv: floats("qkv", 3 * hidden),
            a: floats("a", stride),
            o: floats("o", stride),
            g: floats("g", c.ffn.next_multiple_of(COLS_PAD)),
            pass: device.uniform(&pass),
            prepared: Prepared::new(&device, n, c.ffn.max(hidden).next_multiple_of(COLS_PAD)),
        };
        let (split, attend) = attention(&device, c, &s);
        let maker = Maker { device: &device, c, file, s: &s };
        let layers =
            weights.layers.iter().map(|l| maker.layer(l)).collect::<Result<Vec<_>, _>>()?;
        let staging = device.staging((n * stride * 4) as u64);
        device.wait()?;
        device.all_compiled("the vision tower's shaders")?;
        Ok(GpuTower { rows: n, hidden, stride, x: s.x, staging, split, attend, layers, device })
    }

    /// Takes the residual stream, `[patches, hidden]`, through the layers; `None`, and nothing
    /// changed, when `cancel` became true between two of them.
    ///
    /// # Errors
    /// [`GpuError`]; `x` is then what it was.
    pub(crate) fn run(&self, x: &mut [f32], cancel: &AtomicBool) -> Result<Option<()>, GpuError> {
        let device = &self.device;
        let mut padded = vec![0.0; self.rows * self.stride];
        for (to, x) in padded.chunks_exact_mut(self.stride).zip(x.chunks_exact(self.hidden)) {
            to[..self.hidden].copy_from_slice(x);
        }
        let done = device.guarded("a picture", || {
            device.queue.write_buffer(&self.x, 0, bytemuck::cast_slice(&padded));
            for layer in &self.layers {
                if cancel.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                self.submit(layer);
                // A layer is much work: not all of it at once, so that it can be stopped and no
                // watchdog wakes.
                device.wait_for_word(&self.staging)?;
            }
            let mut encoder = device.device.create_command_encoder(&Default::default());
            let bytes = (padded.len() * 4) as u64;
            encoder.copy_buffer_to_buffer(&self.x, 0, &self.staging, 0, bytes);
            device.queue.submit([encoder.finish()]);
            device.read(&self.staging, &mut padded)?;
            Ok(Some(()))
        })?;
        if done.is_some() {
            for (x, from) in x.chunks_exact_mut(self.hidden).zip(padded.chunks_exact(self.stride)) {
                x.copy_from_slice(&from[..self.hidden]);
            }
            device.keep_pipelines();
        }
        Ok(done)
    }

    /// What it is on.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    fn submit(&self, layer: &TowerLayer) {
        let mut encoder = self.device.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let mut dispatch = |compiled: &Compiled, group: &wgpu::BindGroup, grid: [u32; 3]| {
            self.device.dispatch(&mut pass, compiled, group, grid);
        };
        let rows = [self.rows, 1, 1];
        for step in [
            Step::Op(&layer.norm1, rows),
            Step::Mat(&layer.qkv),
            Step::Op(&layer.qkv_bias, rows),
            Step::Op(&self.split, [self.rows, self.attend.1[0] * 3, 1]),
            Step::Op(&self.attend.0, self.attend.1),
            Step::Mat(&layer.out),
            Step::Op(&layer.out_bias, rows),
            Step::Op(&layer.norm2, rows),
            Step::Mat(&layer.up),
            Step::Op(&layer.gelu, rows),
            Step::Mat(&layer.down),
            Step::Op(&layer.down_bias, rows),
        ] {
            match step {
                Step::Op(op, grid) => dispatch(&op.pipeline, &op.group, grid.map(|g| g as u32)),
                Step::Mat(op) => op.encode(&self.device, self.rows, &mut dispatch),
            }
        }
        drop(pass);
        self.device.leave_word(&mut encoder, &self.x, &self.staging);
        self.device.queue.submit([encoder.finish()]);
    }
}

enum Step<'a> {
    Op(&'a Op, [usize; 3]),
    Mat(&'a MatOp),
}

/// The operation that takes q, k and v apart, and attention with its grid: heads first.
fn attention(device: &Device, c: &VisionConfig, s: &Shared) -> (Op, (Op, [usize; 3])) {
    let (n, heads, head_dim) = (c.patches(), c.heads, c.head_dim());
    let cache = CacheFormat::F32;
    let no_angle = [vec![1.0; head_dim / 2], vec![0.0; head_dim / 2]].concat();
    let angles = device.floats("angles", &no_angle.repeat(2 * n));
    let row = |i| Row { seq: 0, pos: i, end: n as u32, place: i };
    let of_rows: Vec<Row> = (0..n as u32).map(row).collect();
    let rows = device.storage("rows", (n * size_of::<Row>()) as u64);
    device.queue.write_buffer(&rows, 0, bytemuck::cast_slice(&of_rows));
    let q = device.storage("q", (n * heads * head_dim.next_multiple_of(HEAD_PAD) * 4) as u64);
    let [k, v] = [(); 2]
        .map(|_| device.storage("keys or values", (n * heads * cache.row_bytes(head_dim)) as u64));
    let p = device.uniform(&RopeParams {
        heads: heads as u32,
        kv_heads: heads as u32,
        slots: n as u32,
        query_scale: (head_dim as f32).sqrt().recip(),
        ..Default::default()
    });
    let split = Rope { head_dim, normed: false, cache }.kernel();
    let split = Op::new(device, &split, &[&p, &rows, &angles, &s.qkv, &q, &k, &v]);
    let p = device.uniform(&Attend {
        heads: heads as u32,
        kv_heads: heads as u32,
        slots: n as u32,
        stride: c.hidden.next_multiple_of(COLS_PAD) as u32,
        ..Default::default()
    });
    let (of_head, of_rows) = Attention::shape(1, true);
    let kernel = Attention { head_dim, heads: of_head, rows: of_rows, cache }.kernel();
    // One part: nothing is put together afterwards.
    let parts = device.storage("parts", 16);
    let attend = Op::new(device, &kernel, &[&p, &s.pass, &rows, &q, &k, &v, &s.a, &parts]);
    (split, (attend, [heads, n.div_ceil(of_rows), 1]))
}

/// What makes layers.
struct Maker<'a> {
    device: &'a Device,
    c: &'a VisionConfig,
    file: &'a [u8],
    s: &'a Shared,
}

impl Maker<'_> {
    fn layer(&self, l: &Layer) -> Result<TowerLayer, GpuError> {
        let (c, s) = (self.c, self.s);
        let stride = c.hidden.next_multiple_of(COLS_PAD);
        let inner = c.ffn.next_multiple_of(COLS_PAD);
        Ok(TowerLayer {
            norm1: self.norm(&l.norm1),
            qkv: self.multiply(&[&l.q, &l.k, &l.v], (&s.h, stride), (&s.qkv, 3 * c.hidden))?,
            qkv_bias: self.finish(Finish::Set, &[&l.q, &l.k, &l.v], &s.qkv, 3 * c.hidden),
            out: self.multiply(&[&l.out], (&s.a, stride), (&s.o, stride))?,
            out_bias: self.finish(Finish::Add, &[&l.out], &s.o, stride),
            norm2: self.norm(&l.norm2),
            up: self.multiply(&[&l.up], (&s.h, stride), (&s.g, inner))?,
            gelu: self.finish(Finish::Gelu, &[&l.up], &s.g, inner),
            down: self.multiply(&[&l.down], (&s.g, inner), (&s.o, stride))?,
            down_bias: self.finish(Finish::Add, &[&l.down], &s.o, stride),
        })
    }

    fn norm(&self, norm: &Norm) -> Op {
        let (device, c, s) = (self.device, self.c, self.s);
        let p = device.uniform(&Rows {
            cols: c.hidden as u32,
            stride: c.hidden.next_multiple_of(COLS_PAD) as u32,
            eps: c.norm_eps,
            unused: 0,
        });
        let weight = device.floats("weight", &norm.weight);
        let bias = device.floats("bias", &norm.bias);
        Op::new(device, &layer_norm(), &[&p, &s.x, &weight, &bias, &s.h])
    }

    /// Matrices of one width, one after the other.
    fn multiply(
        &self,
        linears: &[&Linear],
        (x, x_stride): (&wgpu::Buffer, usize),
        (y, y_stride): (&wgpu::Buffer, usize),
    ) -> Result<MatOp, GpuError> {
        let matrices: Vec<_> = linears.iter().map(|l| &l.weight).collect();
        let matrix = DeviceMatrix::upload(self.device, self.file, &matrices, Stack::After)?;
        let (pass, prepared) = (&self.s.pass, self.s.prepared.as_ref());
        let ends = Ends {
            pass,
            x,
            x_stride,
            prepared,
            in_bytes: InBytes::Never,
            y,
            y_stride,
            y_bytes: None,
        };
        let matmul = MatOp::new(self.device, &matrix, Output::Plain, 0.0, &ends);
        matmul.prepare_for(self.device, &[self.c.patches()]);
        Ok(matmul)
    }

    fn finish(&self, what: Finish, linears: &[&Linear], y: &wgpu::Buffer, stride: usize) -> Op {
        let bias: Vec<f32> = linears.iter().flat_map(|l| &l.bias).copied().collect();
        let p = Rows { cols: bias.len() as u32, stride: stride as u32, ..Default::default() };
        let (p, bias) = (self.device.uniform(&p), self.device.floats("bias", &bias));
        let mut buffers: Vec<&dyn Bound> = vec![&p, &bias, y];
        if what == Finish::Add {
            buffers.push(&self.s.x);
        }
        Op::new(self.device, &what.kernel(), &buffers)
    }
}
