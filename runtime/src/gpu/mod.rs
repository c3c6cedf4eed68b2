//! The GPU backend: WGSL compute shaders through wgpu (Vulkan, Metal, DirectX 12).
//!
//! Weights go to the device once, their blocks split into planes (`planes`) and cut into shards
//! where a binding can't hold them (`matrix`). Each layer's operations have their buffers bound
//! when the session is made (`layer`, `ops`), so that a token only encodes dispatches
//! (`encode`): one compute pass, about eight dispatches a layer, no allocation.
//!
//! The residual stream, norms and sums are f32, as on the CPU; activations are rounded to bytes or f16
//! where the device multiplies those (`features`, `prepare`).

mod adapter;
mod attend;
mod buffers;
mod cost;
mod device;
mod driver;
mod encode;
mod error;
mod features;
mod fit;
mod greedy;
mod kept;
mod layer;
mod matrix;
mod ops;
mod pass;
mod pipelines;
mod planes;
mod prepare;
mod profile;
mod region;
mod slots;
mod stretch;
#[cfg(test)]
mod tests;
mod top;
mod tower;
mod trial;
mod whole;

use std::sync::Arc;

use shaders::Output;
use shaders::params::Mat;

use crate::config::GemmaConfig;
use crate::kv_cache::KvCache;
use crate::model::Model;
use crate::weights::Layer;
pub use adapter::{Adapter, DeviceOptions, adapters};
use buffers::{Buffers, Which, cache_format};
pub use cost::TokenCost;
pub use device::Device;
pub use error::GpuError;
pub use features::{Features, Offers};
use fit::{fitting, notes};
use greedy::{Embedding, Greedy, GreedyEnds};
pub use kept::pipeline_folder;
use layer::{DeviceLayer, Maker};
use matrix::{DeviceMatrix, Shard, Stack};
use ops::{BestOp, Ends, InBytes, MatOp, NormOps, Op};
pub use profile::KernelTime;
use region::Bound;
use stretch::Stretch;
use top::TopK;
pub(crate) use tower::GpuTower;
use whole::{StretchOps, Whole, WholeKernel};

/// A model on a device, with the buffers and the cache of one session.
pub struct Gpu {
    device: Arc<Device>,
    buffers: Buffers,
    max_rows: usize,
    /// One a shard of the embedding.
    embed: Vec<Op>,
    /// The first layers; the CPU does the others.
    layers: Vec<DeviceLayer>,
    gather: Op,
    /// After the last of them.
    last_norm: NormOps,
    /// Where all layers are here.
    head: Option<MatOp>,
    /// The same layers, as stretches that can be one dispatch each for a single row.
    stretches: Vec<StretchOps>,
    /// Where they are.
    whole: Option<Whole>,
    /// The frequencies of the model's different RoPEs (at most two).
    ropes: Vec<Vec<f32>>,
    greedy: Greedy,
    /// For the k that was asked for last.
    top: Option<TopK>,
    /// How keys and values are kept.
    cache: shaders::CacheFormat,
    logits: Vec<f32>,
    notes: Vec<String>,
    /// Who is told of a note that comes later.
    tell_note: Option<fn(&str)>,
    /// Dispatches of the last pass.
    dispatches: usize,
}

impl Gpu {
    /// Uploads a model, for batches of up to `max_rows` rows. `cache` says which sequences there
    /// are and where their positions lie; keys and values themselves are on the device.
    ///
    /// Only `layers` layers where that is given, or else as many as the device has memory for: the
    /// others, and the embedding and the head, are then the CPU's. `tell` learns how many bytes are
    /// there, and how many there will be.
    ///
    /// # Errors
    /// [`GpuError`] when the device has not the memory, or can't run this model.
    pub(crate) fn new(
        device: Arc<Device>,
        model: &Model,
        cache: &KvCache,
        max_rows: usize,
        layers: Option<usize>,
        tell: fn(usize, usize),
    ) -> Result<Self, GpuError> {
        let what = format!("{} and its context", model.path().display());
        let all = model.weights().layers.len();
        let mut n = layers.unwrap_or_else(|| fitting(&device, model, cache, max_rows)).min(all);
        loop {
            let set_up = || Self::set_up(device.clone(), model, cache, max_rows, n, tell);
            match device.guarded(&what, set_up) {
                // The driver knows better what fits.
                Err(GpuError::Memory { .. }) if layers.is_none() && n > 1 => n /= 2,
                result => {
                    device.keep_pipelines();
                    return result;
                }
            }
        }
    }

    fn set_up(
        device: Arc<Device>,
        model: &Model,
        cache: &KvCache,
        max_rows: usize,
        n: usize,
        tell: fn(usize, usize),
    ) -> Result<Self, GpuError> {
        let (c, weights) = (model.config(), model.weights());
        let all = n == weights.layers.len();
        if n == 0 {
            let what = "one layer of the model".into();
            return Err(GpuError::Memory { device: device.name().into(), what });
        }
        if c.head_dim > shaders::Attention::MAX_HEAD {
            let why = format!("this model's have {}", c.head_dim);
            let what = "heads of more than 256 features";
            return Err(GpuError::Unsupported { device: device.name().into(), what, why });
        }
        let buffers = Buffers::new(&device, c, weights.vocab(), max_rows);
        let ropes = c.ropes();
        let table_of_layer: Vec<usize> = c
            .layers
            .iter()
            .map(|l| ropes.iter().position(|r| *r == l.rope).expect("it is one of them"))
            .collect();
        let maker = Maker {
            device: &device,
            model,
            cache,
            buffers: &buffers,
            table_of_layer: &table_of_layer,
            max_rows,
        };
        let whole = if all { weights.matrices().map(|w| w.bytes.len()).sum() } else { 0 };
        let of_layers = weights.layers[..n].iter().map(layer_bytes);
        let (mut there, total) = (0, of_layers.sum::<usize>().max(whole));
        let mut layers = Vec::with_capacity(n);
        let mut stretches = Vec::new();
        let all_stretches = Stretch::all(&device, model, cache, n);
        // The largest kernels first, while weights are on their way.
        let kernels: Vec<_> = all_stretches.iter().map(|s| WholeKernel::new(&maker, s)).collect();
        for (stretch, kernel) in all_stretches.into_iter().zip(kernels) {
            let of_stretch = &weights.layers[stretch.layers.clone()];
            for layer in of_stretch {
                tell(there, total);
                layers.push(maker.layer(layer, &stretch)?);
                there += layer_bytes(layer);
            }
            stretches.push(StretchOps::new(&maker, stretch, kernel));
        }
        tell(there, total);
        let post = Some(&weights.layers[n - 1].post_ffn_norm[..]);
        let last_norm = match all {
            true => maker.norm(Which::Wanted, post, Some(&weights.output_norm)),
            false => maker.norm(Which::All, post, None),
        };
        let p = device.uniform(&maker.norm_params());
        let ends: [&dyn Bound; 4] = [&p, &buffers.rows[1], &buffers.x[0], &buffers.x[1]];
        let gather = Op::new(&device, &shaders::gather(), &ends);
        let (embed, head, ends) = match all {
            true => vocabulary(&device, model, &buffers)?,
            false => (Vec::new(), None, GreedyEnds::default()),
        };
        let notes = device.doubt().map(str::to_owned).into_iter().chain(notes(model, n)).collect();
        let greedy = Greedy::new(&device, &buffers, weights.vocab(), ends);
        if all {
            TopK::prepare(&device);
        }
        let after_all = maker.norm(Which::All, post, Some(&weights.output_norm));
        device.wait()?;
        device.all_compiled(&format!("{}'s shaders", model.path().display()))?;
        tell(total, total);
        let mut gpu = Gpu {
            device,
            max_rows,
            embed,
            layers,
            stretches,
            gather,
            last_norm,
            head,
            whole: None,
            ropes: ropes.iter().map(|rope| rope.frequencies(c.head_dim)).collect(),
            greedy,
            top: None,
            cache: cache_format(cache),
            logits: Vec::new(),
            notes,
            tell_note: None,
            dispatches: 0,
            buffers,
        };
        if all {
            gpu.try_whole(model, after_all)?;
        }
        Ok(gpu)
    }

    /// Layers on the device, from the first on.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// What is kept in another form than in the file, or done in another way than could be, for people to
    /// read.
    pub fn notes(&self) -> impl Iterator<Item = &str> {
        self.notes.iter().map(String::as_str)
    }

    /// From now on `tell` is called with each new note.
    pub(crate) fn on_note(&mut self, tell: Option<fn(&str)>) {
        self.tell_note = tell;
    }

    /// Is the whole model on the device?
    pub fn has_all(&self) -> bool {
        self.head.is_some()
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Are a single token's layers all in one dispatch, or in a few where a binding does not hold them all?
    pub fn has_whole_layers(&self) -> bool {
        self.whole.as_ref().is_some_and(|whole| whole.used)
    }

    /// Dispatches of the last pass, or of the last token where several were sent together: what a token
    /// costs besides reading its weights.
    pub fn dispatches(&self) -> usize {
        self.dispatches
    }
}

/// Pipelines that were first needed by a pass are kept as well.
impl Drop for Gpu {
    fn drop(&mut self) {
        self.device.keep_pipelines();
    }
}

/// Bytes of a layer's matrices in the file.
fn layer_bytes(l: &Layer) -> usize {
    [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down].iter().map(|w| w.bytes.len()).sum()
}

/// The embedding and the head, which may be one matrix; both as greedy decoding wants them.
fn vocabulary(
    device: &Device,
    model: &Model,
    b: &Buffers,
) -> Result<(Vec<Op>, Option<MatOp>, GreedyEnds), GpuError> {
    let (c, weights) = (model.config(), model.weights());
    let upload = |m| DeviceMatrix::upload(device, model.bytes(), &[m], Stack::After);
    let embed = upload(&weights.embed)?;
    let output = match weights.output == weights.embed {
        true => None,
        false => Some(upload(&weights.output)?),
    };
    let (head, best) = head(device, b, c, output.as_ref().unwrap_or(&embed), weights.vocab());
    let embed_ops = embed_ops(device, b, c, &embed);
    let p = device.uniform(&embed_params(b, c, &embed, &embed.shards[0]));
    let embedding = (embed.shards.len() == 1).then_some(Embedding { p, matrix: embed });
    Ok((embed_ops, Some(head), GreedyEnds { head: best, embedding }))
}

fn embed_params(b: &Buffers, c: &GemmaConfig, matrix: &DeviceMatrix, shard: &Shard) -> Mat {
    Mat {
        rows: shard.rows as u32,
        pieces: matrix.layout.pieces() as u32,
        x_stride: (b.widths.hidden / 4) as u32,
        first_row: shard.first_row as u32,
        scale: c.embed_scale,
        ..Default::default()
    }
}

fn embed_ops(device: &Device, b: &Buffers, c: &GemmaConfig, matrix: &DeviceMatrix) -> Vec<Op> {
    let kernel = shaders::embed(matrix.format());
    let make = |shard: &Shard| {
        let p = device.uniform(&embed_params(b, c, matrix, shard));
        let mut buffers: Vec<&dyn Bound> = vec![&p, &b.tokens, &b.x[0]];
        buffers.extend(shard.planes());
        Op::new(device, &kernel, &buffers)
    };
    matrix.shards.iter().map(make).collect()
}

fn head(
    device: &Device,
    b: &Buffers,
    c: &GemmaConfig,
    matrix: &DeviceMatrix,
    vocab: usize,
) -> (MatOp, Option<BestOp>) {
    let ends = Ends {
        pass: &b.head_pass,
        x: &b.h,
        x_stride: b.widths.hidden,
        prepared: b.prepared.as_ref(),
        in_bytes: InBytes::Always,
        y: &b.logits,
        y_stride: vocab,
        y_bytes: None,
    };
    let output = if c.final_softcap.is_some() { Output::Softcap } else { Output::Plain };
    let head = MatOp::new(device, matrix, output, c.final_softcap.unwrap_or(0.0), &ends);
    let best = head.best(device, matrix, &ends);
    head.prepare_for(device, &[1]);
    (head, best)
}
