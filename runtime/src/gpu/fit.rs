//! What of a model goes on a device, and in which form.

use shaders::Format;

use super::device::Device;
use super::layer::layer_bytes;
use super::matrix::device_bytes;
use super::planes::format_of;
use crate::kv_cache::KvCache;
use crate::model::Model;

/// Layers that the device has memory for, as far as it says how much it has.
pub(super) fn fitting(device: &Device, model: &Model, cache: &KvCache, max_rows: usize) -> usize {
    let weights = model.weights();
    let Some(memory) = device.memory() else { return weights.layers.len() };
    let (c, rows) = (model.config(), max_rows as u64);
    let activations = rows * 4 * (6 * c.hidden + 2 * c.ffn + 4 * c.q_dim()) as u64 + (128 << 20);
    // A tenth is left to others.
    let mut free = (memory / 10 * 9).saturating_sub(activations);
    let vocabulary = match weights.output == weights.embed {
        true => device_bytes(&[&weights.embed]),
        false => device_bytes(&[&weights.embed]) + device_bytes(&[&weights.output]),
    };
    let of_layers: Vec<u64> = weights.layers.iter().map(|l| layer_bytes(l, c, cache)).collect();
    if vocabulary + of_layers.iter().sum::<u64>() <= free {
        return of_layers.len();
    }
    let mut n = 0;
    while n + 1 < of_layers.len() && of_layers[n] <= free {
        free -= of_layers[n];
        n += 1;
    }
    n
}

/// Types that have no form of their own on the device, with the form that they get.
pub(super) fn notes(model: &Model, layers: usize) -> Vec<String> {
    let weights = model.weights();
    let of_layers = weights.layers[..layers]
        .iter()
        .flat_map(|l| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down]);
    let all = layers == weights.layers.len();
    let vocabulary = [&weights.embed, &weights.output].into_iter().filter(|_| all);
    let mut kinds: Vec<_> = of_layers.chain(vocabulary).map(|m| m.dtype).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let other = kinds.into_iter().map(|d| (d, format_of(d))).filter(|(d, f)| f.name() != d.name());
    other
        .map(|(d, format)| match format {
            Format::KBytes => format!("{d} weights are kept in bytes on the GPU"),
            _ => format!("{d} weights are kept as {} on the GPU", format.name()),
        })
        .collect()
}
