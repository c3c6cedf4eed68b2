//! The tower: pixels in, rows of features out.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use quant::codec::decode_row;
use quant::gguf::Gguf;
use quant::kernels::Kernels;

use super::activations::Activations;
use super::attention::{Numbers, Shape, attention};
use super::config::VisionConfig;
use super::int8::Padded;
use super::linear::{Finish, Product};
use super::memory::no_memory;
use super::ops::layer_norm;
use super::precision::{Form, Precision};
use super::rows::ImageRows;
use super::weights::{Layer, Linear, Norm, Weights};
use super::workers::Workers;
use crate::cpu::default_threads;
use crate::cpu::ops::rms_norm;
use crate::cpu::shared::SharedBuf;
use crate::error::{ModelError, RuntimeError};
use crate::mapping::map;
use crate::model::Bytes;

/// How a tower is run.
#[derive(Clone, Copy, Debug)]
pub struct VisionOptions {
    /// Threads. `None`: see [`default_threads`].
    pub threads: Option<usize>,
    /// Instruction set.
    pub kernels: Kernels,
    /// How exactly to multiply.
    pub precision: Precision,
}

impl Default for VisionOptions {
    fn default() -> Self {
        VisionOptions { threads: None, kernels: Kernels::detect(), precision: Precision::Auto }
    }
}

/// A vision tower in a mapped mmproj file, and the threads that run it.
pub struct VisionTower {
    path: PathBuf,
    file: Bytes,
    config: VisionConfig,
    weights: Weights,
    kernels: Kernels,
    /// Resolved.
    precision: Precision,
    pool: rayon::ThreadPool,
    #[cfg(feature = "gpu")]
    gpu: Option<OnGpu>,
}

/// The layers on a device.
#[cfg(feature = "gpu")]
struct OnGpu {
    tower: crate::gpu::GpuTower,
    /// It has failed, and is not asked again.
    failed: AtomicBool,
    tell: fn(&crate::gpu::GpuError),
}

impl VisionTower {
    /// Maps an mmproj file and resolves the tower in it, with the default options.
    ///
    /// # Errors
    /// [`RuntimeError::Io`], [`RuntimeError::Gguf`] or [`RuntimeError::Model`], each naming the
    /// file; [`RuntimeError::Threads`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RuntimeError> {
        Self::open_with(path, &VisionOptions::default())
    }

    /// As [`VisionTower::open`], with options.
    ///
    /// # Errors
    /// As [`VisionTower::open`].
    pub fn open_with(
        path: impl AsRef<Path>,
        options: &VisionOptions,
    ) -> Result<Self, RuntimeError> {
        let path = path.as_ref();
        Self::resolve(path.to_owned(), Bytes::Mapped(map(path)?), options)
    }

    /// A tower whose file is in memory; `path` names it in errors.
    ///
    /// # Errors
    /// As [`VisionTower::open`].
    pub fn from_bytes(
        path: impl Into<PathBuf>,
        bytes: Vec<u8>,
        options: &VisionOptions,
    ) -> Result<Self, RuntimeError> {
        Self::resolve(path.into(), Bytes::Owned(bytes), options)
    }

    fn resolve(path: PathBuf, file: Bytes, options: &VisionOptions) -> Result<Self, RuntimeError> {
        let gguf = Gguf::parse(file.get())
            .map_err(|source| RuntimeError::Gguf { path: path.clone(), source })?;
        let parts = || -> Result<_, ModelError> {
            let config = VisionConfig::from_gguf(&gguf)?;
            let weights = Weights::resolve(&gguf, &config, file.get())?;
            Ok((config, weights))
        };
        let (config, weights) =
            parts().map_err(|source| RuntimeError::Model { path: path.clone(), source })?;
        drop(gguf);
        let threads = options.threads.unwrap_or_else(default_threads).max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("lapidary-vision-{i}"))
            .build()
            .map_err(|e| RuntimeError::Threads { threads, why: e.to_string() })?;
        let kernels = options.kernels;
        let precision = options.precision.resolve(&kernels, &config);
        Ok(VisionTower {
            path,
            file,
            config,
            weights,
            kernels,
            precision,
            pool,
            #[cfg(feature = "gpu")]
            gpu: None,
        })
    }

    /// Puts the layers on a device. Where that fails at work, `tell` is called, once, and the CPU
    /// does it from then on.
    ///
    /// # Errors
    /// [`GpuError`](crate::gpu::GpuError) when the device has not the memory, or can't run this
    /// tower: it stays on the CPU then.
    #[cfg(feature = "gpu")]
    pub fn use_gpu(
        &mut self,
        device: &std::sync::Arc<crate::gpu::Device>,
        tell: fn(&crate::gpu::GpuError),
    ) -> Result<(), crate::gpu::GpuError> {
        let (c, weights, file) = (&self.config, &self.weights, self.file.get());
        let tower = crate::gpu::GpuTower::new(device.clone(), c, weights, file)?;
        self.gpu = Some(OnGpu { tower, failed: AtomicBool::new(false), tell });
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Shapes and constants.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// The device that the layers are on, where they are on one that has not failed.
    #[cfg(feature = "gpu")]
    pub fn device(&self) -> Option<&crate::gpu::Device> {
        let on = self.gpu.as_ref().filter(|gpu| !gpu.failed.load(Ordering::Relaxed));
        on.map(|gpu| gpu.tower.device())
    }

    /// The features of an image: `pixels` is `[3, size, size]`, red, green and blue, normalized with
    /// the configuration's mean and deviation.
    ///
    /// # Errors
    /// [`RuntimeError::Pixels`] when there are more or fewer; [`RuntimeError::Memory`];
    /// [`RuntimeError::Cancelled`] when `cancel` becomes true between two layers.
    pub fn encode(&self, pixels: &[f32], cancel: &AtomicBool) -> Result<ImageRows, RuntimeError> {
        let (found, size) = (pixels.len(), self.config.image_size);
        if found != self.config.pixels() {
            return Err(RuntimeError::Pixels { found, size });
        }
        self.pool.install(|| Pass::new(self)?.run(pixels, cancel))
    }
}

/// The buffers of one image on its way through.
struct Pass<'a> {
    tower: &'a VisionTower,
    k: &'a Kernels,
    c: &'a VisionConfig,
    /// The residual stream, `[patches, hidden]`.
    x: SharedBuf<f32>,
    /// q, k and v side by side, `[patches, 3 · hidden]`; then the MLP's inner layer, `[patches, ffn]`.
    wide: SharedBuf<f32>,
    /// Attention's output, `[patches, hidden]`.
    a: SharedBuf<f32>,
    /// What a matmul of `hidden` features reads.
    h: Activations,
    /// What a matmul of `ffn` features reads.
    g: Activations,
    /// A layer's `down` in blocks, where files cannot hold it so.
    padded: Option<Padded>,
    workers: Workers,
}

impl<'a> Pass<'a> {
    fn new(tower: &'a VisionTower) -> Result<Self, RuntimeError> {
        let c = &tower.config;
        let n = c.patches();
        let buffer = |cols: usize| {
            let len = n.saturating_mul(cols);
            SharedBuf::zeroed(len).ok_or_else(|| no_memory(len.saturating_mul(4)))
        };
        let layers = tower.weights.layers.iter();
        let precision = tower.precision;
        let hidden = layers.clone().flat_map(|l| [&l.q, &l.k, &l.v, &l.out, &l.up]);
        let hidden = hidden.map(|l| Form::of(&l.weight, precision));
        let padded = layers.clone().any(|l| l.pads_down(precision));
        Ok(Pass {
            tower,
            k: &tower.kernels,
            c,
            x: buffer(c.hidden)?,
            wide: buffer(c.ffn.max(3 * c.hidden))?,
            a: buffer(c.hidden)?,
            h: Activations::new(n, c.hidden, hidden)?,
            g: Activations::new(n, c.ffn, layers.map(|l| l.down_form(precision)))?,
            padded: padded.then(|| Padded::new(c.hidden, c.ffn)).transpose()?,
            workers: Workers::new(),
        })
    }

    fn run(&mut self, pixels: &[f32], cancel: &AtomicBool) -> Result<ImageRows, RuntimeError> {
        self.embed(pixels)?; //               x [patches, hidden]
        if self.layers_on_gpu(cancel)? {
            return self.project();
        }
        for layer in &self.tower.weights.layers {
            if cancel.load(Ordering::Relaxed) {
                return Err(RuntimeError::Cancelled);
            }
            self.attend(layer)?; //           x += attention(norm(x))
            self.mlp(layer); //               x += MLP(norm(x))
        }
        self.project() //                     [tokens, projection_dim]
    }

    /// Has a device taken x through all layers?
    #[cfg(feature = "gpu")]
    fn layers_on_gpu(&mut self, cancel: &AtomicBool) -> Result<bool, RuntimeError> {
        let on = self.tower.gpu.as_ref().filter(|gpu| !gpu.failed.load(Ordering::Relaxed));
        let Some(gpu) = on else { return Ok(false) };
        match gpu.tower.run(self.x.get_mut(), cancel) {
            Ok(Some(())) => Ok(true),
            Ok(None) => Err(RuntimeError::Cancelled),
            Err(failure) => {
                if !gpu.failed.swap(true, Ordering::Relaxed) {
                    (gpu.tell)(&failure);
                }
                Ok(false)
            }
        }
    }

    #[cfg(not(feature = "gpu"))]
    fn layers_on_gpu(&mut self, _cancel: &AtomicBool) -> Result<bool, RuntimeError> {
        Ok(false)
    }

    /// A matrix in the form that it multiplies in; its features begin at `column`.
    fn product(&self, linear: &'a Linear, column: usize) -> (Form, Product<'a>) {
        let w = linear.weight.view(self.tower.file.get());
        let form = Form::of(&linear.weight, self.tower.precision);
        (form, Product { w, bias: &linear.bias, column })
    }

    /// x = position embedding + patch embedding.
    fn embed(&mut self, pixels: &[f32]) -> Result<(), RuntimeError> {
        let (c, weights) = (self.c, &self.tower.weights);
        let position = weights.position.view(self.tower.file.get());
        for (p, x) in self.x.get_mut().chunks_exact_mut(c.hidden).enumerate() {
            decode_row(position.dtype(), position.row(p), x);
        }
        let side = c.patch_size;
        // Less than a hundredth of the arithmetic, and what is wrong here is wrong in every layer: in f32.
        let exact = std::iter::once(Form::Exact);
        let mut patches = Activations::new(c.patches(), 3 * side * side, exact)?;
        let unfold = |p: usize, out: &mut [f32]| {
            let (top, left) = (p / c.grid() * side, p % c.grid() * side);
            for (i, out) in out.chunks_exact_mut(side).enumerate() {
                let (channel, row) = (i / side, top + i % side);
                let at = (channel * c.image_size + row) * c.image_size + left;
                out.copy_from_slice(&pixels[at..at + side]);
            }
        };
        let patch = [(Form::Exact, self.product(&weights.patch, 0).1)];
        let (k, workers) = (self.k, &self.workers);
        patches.multiply(k, workers, unfold, &patch, &self.x, c.hidden, Finish::Add);
        Ok(())
    }

    fn attend(&mut self, layer: &'a Layer) -> Result<(), RuntimeError> {
        let (k, c, d) = (self.k, self.c, self.c.hidden);
        let qkv =
            [self.product(&layer.q, 0), self.product(&layer.k, d), self.product(&layer.v, 2 * d)];
        let norm = normed(k, c, &layer.norm1, self.x.get());
        self.h.multiply(k, &self.workers, norm, &qkv, &self.wide, 3 * d, Finish::Set);
        let blocks = qkv.iter().all(|(form, _)| *form == Form::Int8);
        let numbers = match self.tower.precision {
            Precision::Fast if blocks && k.has_fast_bytes() => Numbers::Bytes,
            Precision::Fast => Numbers::Fixed,
            _ => Numbers::Exact,
        };
        let shape = Shape { rows: c.patches(), heads: c.heads, head_dim: c.head_dim() };
        attention(k, numbers, shape, &self.wide.get()[..c.patches() * 3 * d], &self.a)?;
        let out = [self.product(&layer.out, 0)];
        let heads = rows_of(self.a.get(), d);
        self.h.multiply(k, &self.workers, heads, &out, &self.x, d, Finish::Add);
        Ok(())
    }

    fn mlp(&mut self, layer: &'a Layer) {
        let (k, c) = (self.k, self.c);
        let (up, mut down) = ([self.product(&layer.up, 0)], [self.product(&layer.down, 0)]);
        let norm = normed(k, c, &layer.norm2, self.x.get());
        self.h.multiply(k, &self.workers, norm, &up, &self.wide, c.ffn, Finish::Gelu);
        if let (Some(padded), true) = (&mut self.padded, layer.pads_down(self.tower.precision)) {
            let (form, product) = &mut down[0];
            *form = Form::Int8;
            product.w = padded.fill(product.w);
        }
        let inner = rows_of(self.wide.get(), c.ffn);
        self.g.multiply(k, &self.workers, inner, &down, &self.x, c.hidden, Finish::Add);
    }

    /// LayerNorm, the mean of each square of patches, RMSNorm, projection.
    fn project(&mut self) -> Result<ImageRows, RuntimeError> {
        let (k, c, weights) = (self.k, self.c, &self.tower.weights);
        let (norm, side, x) = (&weights.post_norm, c.grid() / c.pool, self.x.get());
        let exact = std::iter::once(Form::Exact);
        let mut pooled = Activations::new(c.tokens(), c.hidden, exact)?;
        let pool = |t: usize, out: &mut [f32]| {
            let (mut sum, mut patch) = (vec![0.0; c.hidden], vec![0.0; c.hidden]);
            for i in 0..c.pool * c.pool {
                let row = t / side * c.pool + i / c.pool;
                let at = row * c.grid() + t % side * c.pool + i % c.pool;
                let x = &x[at * c.hidden..][..c.hidden];
                layer_norm(k, x, &norm.weight, &norm.bias, c.norm_eps, &mut patch);
                sum.iter_mut().zip(&patch).for_each(|(s, v)| *s += v);
            }
            let count = (c.pool * c.pool) as f32;
            sum.iter_mut().for_each(|s| *s /= count);
            rms_norm(k, &sum, &weights.soft_norm, c.norm_eps, out);
        };
        let len = c.tokens().saturating_mul(c.projection_dim);
        let mut out = SharedBuf::zeroed(len).ok_or_else(|| no_memory(len.saturating_mul(4)))?;
        let bias = vec![0.0; c.projection_dim];
        let into = [(Form::Exact, Product { w: weights.projection(), bias: &bias, column: 0 })];
        pooled.multiply(k, &self.workers, pool, &into, &out, c.projection_dim, Finish::Set);
        Ok(ImageRows::new(c.projection_dim, out.get()))
    }
}

/// Rows of `x`, LayerNormed.
fn normed(
    k: &Kernels,
    c: &VisionConfig,
    norm: &Norm,
    x: &[f32],
) -> impl Fn(usize, &mut [f32]) + Sync {
    move |t, out| {
        let x = &x[t * c.hidden..][..c.hidden];
        layer_norm(k, x, &norm.weight, &norm.bias, c.norm_eps, out);
    }
}

/// Rows of `x` as they are.
fn rows_of(x: &[f32], cols: usize) -> impl Fn(usize, &mut [f32]) + Sync {
    move |t, out| out.copy_from_slice(&x[t * cols..][..cols])
}
