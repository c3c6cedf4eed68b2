//! What a token costs on a device: counted, not measured.

use shaders::CacheFormat;
use shaders::params::Row;

use super::Gpu;
use super::matrix::{device_bytes, shards, stacks};
use super::pass::split;
use crate::model::Model;

/// What one token costs, decoded greedily with the whole model on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCost {
    /// Bytes of matrices that are read, as they lie on the device.
    pub weights: u64,
    /// Bytes of keys and values that are read.
    pub cache: u64,
    /// Dispatches, all in one compute pass.
    pub dispatches: usize,
}

/// What goes together in one dispatch for a single row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Together {
    /// Rotation and attention.
    pub(super) rope: bool,
    /// Norms and the matmuls after them, in all layers but the last.
    pub(super) norms: bool,
    /// All of many layers: in so many dispatches.
    pub(super) layers: Option<usize>,
}

impl TokenCost {
    /// For the token at `position` on a device that binds `max_binding` bytes.
    pub(super) fn of(
        model: &Model,
        cache: CacheFormat,
        position: usize,
        max_binding: u64,
        together: Together,
    ) -> TokenCost {
        let (c, weights) = (model.config(), model.weights());
        let mut cost = TokenCost::default();
        let row = Row { end: position as u32 + 1, ..Default::default() };
        let splits = [0, 1].map(|kind| split(c, &[row], kind));
        for layer in &weights.layers {
            let stacks = stacks(layer).map(|(matrices, _)| matrices);
            cost.weights += stacks.iter().map(|stack| device_bytes(stack)).sum::<u64>();
            let seen = layer.config.window.map_or(position + 1, |w| w.min(position + 1));
            cost.cache += (seen * 2 * c.kv_heads * cache.row_bytes(c.head_dim)) as u64;
            if together.layers.is_some() {
                continue;
            }
            cost.dispatches += stacks.iter().map(|stack| shards(stack, max_binding)).sum::<usize>();
            // RoPE and storing, attention, its parts where there are some, and two norms.
            let parts = splits[usize::from(layer.config.window.is_none())] > 1;
            let norms = together.norms && layer.index + 1 < weights.layers.len();
            let rope = usize::from(!together.rope);
            cost.dispatches += rope + 1 + usize::from(parts) + if norms { 0 } else { 2 };
        }
        // Of the embedding one row is read, by whichever shard holds it.
        cost.weights += device_bytes(&[&weights.output]);
        // Whoever finds a token embeds it, if there is one.
        cost.dispatches += match shards(&[&weights.embed], max_binding) {
            1 => 0,
            shards => shards,
        };
        cost.dispatches += shards(&[&weights.output], max_binding);
        // The likeliest token, of what the head left of its one shard or of all logits, in two steps.
        let one = shards(&[&weights.output], max_binding) == 1;
        cost.dispatches += if one { 1 } else { 2 };
        // The last norm; before, the rows that are wanted.
        cost.dispatches += together.layers.map_or(2, |n| n + 1);
        cost
    }
}

impl Gpu {
    /// What the token at `position` costs; `None` where the CPU has layers as well.
    pub fn cost(&self, model: &Model, position: usize) -> Option<TokenCost> {
        let together = Together {
            rope: self.layers[0].attend.with_rope.is_some(),
            norms: self.layers[0].normed.is_some(),
            layers: self.has_whole_layers().then_some(self.stretches.len()),
        };
        let limit = self.device.max_binding;
        let cost = || TokenCost::of(model, self.cache, position, limit, together);
        self.has_all().then(cost)
    }
}

#[cfg(test)]
mod tests {
    use quant::DType;

    use super::*;
    use crate::synthetic::Shape;

    /// The table in benches/README.md. Weights are the parameters of the matrices at 4.5 and 8.5
    /// bits: nothing is padded.
    #[test]
    fn real_shapes_cost_what_is_written() {
        const MIB: u64 = 1 << 20;
        let (q4_0, q8_0) = (DType::Q4_0, DType::Q8_0);
        let apart = Together { rope: false, norms: false, layers: None };
        let together = Together { rope: true, norms: true, layers: None };
        let whole = Together { layers: Some(1), ..together };
        for (name, dtype, weights, [near, far, small, best, one], [f16, q8]) in [
            ("gemma-3-1b", q4_0, 713_355_264, [212, 238, 218, 136, 4], [45_088_768, 23_953_408]),
            ("gemma-3-1b", q8_0, 1_062_236_160, [212, 238, 218, 136, 4], [45_088_768, 23_953_408]),
            (
                "gemma-3-4b",
                q4_0,
                2_518_067_200,
                [276, 310, 288, 176, 4],
                [289_406_976, 153_747_456],
            ),
            (
                "gemma-3-4b",
                q8_0,
                4_122_388_480,
                [276, 310, 288, 176, 4],
                [289_406_976, 153_747_456],
            ),
        ] {
            let model = Shape::from_name(name).unwrap().outline(dtype, q8_0).unwrap();
            let cost =
                |format, position, limit| TokenCost::of(&model, format, position, limit, apart);
            let first = cost(CacheFormat::F16, 0, 2048 * MIB);
            assert_eq!((first.weights, first.dispatches), (weights, near), "{name} {dtype}");
            let fewest = TokenCost::of(&model, CacheFormat::F16, 0, 2048 * MIB, together);
            assert_eq!(fewest.dispatches, best, "{name} {dtype}");
            let fewest = TokenCost::of(&model, CacheFormat::F16, 8191, 2048 * MIB, whole);
            assert_eq!((fewest.dispatches, fewest.cache), (one, f16), "{name} {dtype}");
            let late = cost(CacheFormat::F16, 8191, 2048 * MIB);
            assert_eq!((late.cache, late.dispatches), (f16, far), "{name} {dtype}");
            assert_eq!(cost(CacheFormat::Q8_0, 8191, 2048 * MIB).cache, q8, "{name}");
            // Where 128 MiB are bound at once, as WebGPU promises, the embedding is in shards.
            assert_eq!(cost(CacheFormat::F16, 0, 128 * MIB).dispatches, small, "{name}");
        }
    }

    /// K types at 4.625 bits, and at 9.125 where they are kept in bytes.
    #[test]
    fn k_types_cost_little_more_than_in_the_file() {
        let of = |dtype, embed| {
            let model = Shape::from_name("gemma-3-4b").unwrap().outline(dtype, embed).unwrap();
            let apart = Together { rope: false, norms: false, layers: None };
            TokenCost::of(&model, CacheFormat::F16, 0, 2048 << 20, apart).weights as f64
        };
        let embed = 262_144.0 * 2560.0;
        let layers = (of(DType::Q8_0, DType::Q8_0) * 8.0 / 8.5 - embed).round();
        let bits = |dtype, embed_type| (of(dtype, embed_type) * 8.0 - embed * 9.125) / layers;
        for (dtype, want) in [(DType::Q4_K, 4.625), (DType::Q5_K, 9.125)] {
            // The embedding's row of the token is read as well.
            let bits = bits(dtype, DType::Q6_K);
            assert!((bits - want).abs() < 1e-3, "{dtype}: {bits}");
        }
    }
}
