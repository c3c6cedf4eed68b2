//! Stretches of layers that run in one dispatch for a single row: each matrix of theirs lies in a buffer
//! with those of the other layers, and so do keys and values. As many layers as a binding holds.

use std::ops::Range;

use shaders::{CacheFormat, LayerMatrix, WholeLayer};

use super::buffers::{cache_bytes, cache_format};
use super::device::Device;
use super::matrix::{MATRICES, stacks};
use super::planes::{RowLayout, common_format};
use super::region::Region;
use crate::kv_cache::KvCache;
use crate::model::Model;
use crate::weights::Layer;

/// Layers that follow each other.
pub(super) struct Stretch {
    pub(super) layers: Range<usize>,
    /// Where they lie, if they can be one dispatch as far as can be seen beforehand.
    pub(super) homes: Option<Homes>,
}

/// The buffers of a stretch.
pub(super) struct Homes {
    pub(super) shape: Shape,
    /// Pieces and scales of each matrix.
    pub(super) planes: [[wgpu::Buffer; 2]; MATRICES],
    /// Keys and values.
    pub(super) cache: [wgpu::Buffer; 2],
    /// Where each layer's begin, and where the last one's end.
    cache_at: Vec<u64>,
}

/// What says whether layers can be in one stretch, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) layouts: [RowLayout; MATRICES],
    /// Rows of each matrix.
    pub(super) rows: [usize; MATRICES],
}

impl Shape {
    /// `None` for a layer that is no single dispatch.
    fn of(layer: &Layer) -> Option<Self> {
        let stacks = stacks(layer);
        let layouts = stacks.each_ref().map(|(matrices, _)| RowLayout {
            format: common_format(matrices),
            cols: matrices[0].cols,
        });
        let rows = stacks.map(|(matrices, _)| matrices.iter().map(|m| m.rows).sum());
        let format = layouts[0].format;
        let is_one = format.symmetric() && layouts.iter().all(|l| l.format == format);
        is_one.then_some(Shape { layouts, rows })
    }

    /// Bytes from a layer's pieces to the next one's, then from scales to scales.
    fn steps(&self, matrix: usize) -> [u64; 2] {
        let layout = self.layouts[matrix];
        let pieces = LayerMatrix::step(self.rows[matrix] * layout.pieces()) as u64;
        // A block has 32 weights and a scale of 2 bytes.
        [pieces * 16, pieces * layout.format.piece() as u64 / 16]
    }

    /// Do so many layers fit buffers of `limit` bytes?
    fn fits(&self, layers: usize, limit: u64) -> bool {
        (0..MATRICES).all(|m| self.steps(m)[0].saturating_mul(layers as u64) <= limit)
    }
}

impl Stretch {
    /// The first `n` layers, in as few stretches as there can be.
    pub(super) fn all(device: &Device, model: &Model, cache: &KvCache, n: usize) -> Vec<Self> {
        let c = model.config();
        let layers = &model.weights().layers[..n];
        let together = device.features.layers && cache_format(cache) == CacheFormat::F16;
        let shape = |layer: &Layer| Shape::of(layer).filter(|_| together);
        let cache_bytes = |layer: &Layer| cache_bytes(c, cache, layer.index);
        let mut all = Vec::new();
        let mut from = 0;
        while from < n {
            let first = shape(&layers[from]).filter(|s| s.fits(1, device.max_binding));
            let mut cache_at = vec![0, cache_bytes(&layers[from])];
            let mut to = from + 1;
            while let (Some(first), Some(next)) = (first, layers.get(to)) {
                let end = cache_at[to - from].saturating_add(cache_bytes(next));
                let fits = shape(next) == Some(first)
                    && first.fits(to - from + 1, device.max_binding)
                    && end <= device.max_binding;
                if !fits || to - from == WholeLayer::MOST {
                    break;
                }
                cache_at.push(end);
                to += 1;
            }
            let first = first.filter(|_| cache_at[1] <= device.max_binding);
            let homes = first.map(|shape| Homes::new(device, shape, cache_at));
            all.push(Stretch { layers: from..to, homes });
            from = to;
        }
        all
    }
}

impl Homes {
    fn new(device: &Device, shape: Shape, cache_at: Vec<u64>) -> Self {
        let n = cache_at.len() as u64 - 1;
        let bytes = cache_at[n as usize];
        let planes = std::array::from_fn(|m| {
            let [pieces, scales] = shape.steps(m);
            [device.storage("weights", n * pieces), device.storage("scales", n * scales)]
        });
        Homes { shape, planes, cache: [0, 1].map(|_| device.storage("cache", bytes)), cache_at }
    }

    /// Pieces and scales of matrix `m` of layer `k` of the stretch.
    pub(super) fn matrix(&self, k: usize, m: usize) -> [Region; 2] {
        let steps = self.shape.steps(m);
        [0, 1].map(|i| Region::of(&self.planes[m][i], k as u64 * steps[i], steps[i]))
    }

    /// Keys and values of layer `k`.
    pub(super) fn cache(&self, k: usize) -> [Region; 2] {
        let [from, to] = [self.cache_at[k], self.cache_at[k + 1]];
        [0, 1].map(|i| Region::of(&self.cache[i], from, to - from))
    }

    /// Where the rows of layer `k` begin in it, which have so many bytes.
    pub(super) fn cache_row(&self, k: usize, row_bytes: usize) -> u32 {
        (self.cache_at[k] / row_bytes as u64) as u32
    }
}
