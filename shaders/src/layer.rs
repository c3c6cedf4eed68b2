//! A whole layer in one dispatch, for a single row.

use crate::attention::{Attention, MAX_PARTS};
use crate::compose::{Access, Kernel, Needs, Parts};
use crate::format::{CacheFormat, Format};
use crate::kernels::MATH;
use crate::matmul::products;
use crate::params::{Pass, Row, Stage, Whole};
use Access::{Read, Uniform, Write};

/// The buffer through which workgroups tell each other things: what its first words are for; values follow
/// after them. They lie apart, so that whoever looks at one is not disturbed by the others.
#[derive(Clone, Copy, Debug)]
pub struct Messages;

impl Messages {
    /// Workgroups that are through, of this dispatch; in the upper half those that have waited in vain.
    const DONE: usize = 0;
    /// Somebody has waited in vain.
    const LATE: usize = 32;
    /// Dispatches that all workgroups have come through.
    pub const FINISHED: usize = 64;
    /// Tokens that were chosen, right after that number, so that both are read back together.
    const CHOSEN: usize = 65;
    /// Workgroups that have begun, while it is found out how many run at the same time.
    const ARRIVED: usize = 96;
    /// The complement of that number, once it is found out.
    pub const SEEN: usize = 128;
    /// How many tokens may be.
    pub const MOST_CHOSEN: usize = Self::ARRIVED - Self::CHOSEN;
    /// Where values begin.
    const VALUES: usize = 160;
}

/// The layer that is at work; the parts that its attention is in; what its values are marked with, once
/// those of the layer before have arrived.
const LAYER: &str = "\
var<workgroup> stages: array<Stage, MOST_LAYERS>;
var<private> layer: u32;
var<private> stage: Stage;
var<private> splits: u32;
var<private> phase: u32;
";

/// A matrix of a layer: how its rows are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerMatrix {
    /// Rows, two of them together where they are gate and up in turn.
    pub units: usize,
    /// Rows of a unit.
    pub rows: usize,
    /// 16-byte pieces in a row.
    pub pieces: usize,
    /// Invocations side by side along a row.
    lanes: usize,
    /// Pieces of a row that an invocation asks for at once.
    batch: usize,
}

impl LayerMatrix {
    /// For `units` times `rows` rows of `pieces` pieces, on devices whose subgroups have at least
    /// `subgroup` invocations: such that few invocations are left without a piece, and none has
    /// many.
    pub fn new(units: usize, rows: usize, pieces: usize, subgroup: usize) -> Self {
        /// Pieces of a row that an invocation is to have at most.
        const STEPS: usize = 10;
        /// Pieces of a row that it asks for at once, at most. Each takes space in the kernel, which is
        /// slower by an eighth where it does not fit a device's memory for instructions (128 KiB).
        const BATCH: usize = 5;
        // In eighths, and in quarters, of what there is.
        let idle = |lanes: usize| (pieces.next_multiple_of(lanes) - pieces) * 8 / pieces.max(1);
        let lanes = [16, 32, 8]
            .into_iter()
            .filter(|lanes| *lanes <= subgroup)
            .min_by_key(|lanes| (idle(*lanes), pieces.div_ceil(*lanes) * rows > STEPS))
            .unwrap_or(8);
        let steps = pieces.div_ceil(lanes);
        let empty = |batch: usize| (steps.next_multiple_of(batch) - steps) * 4 / steps.max(1);
        let batch = (1..=BATCH.min(steps)).rev().min_by_key(|batch| empty(*batch)).unwrap_or(1);
        LayerMatrix { units, rows, pieces, lanes, batch }
    }

    /// Pieces from a layer's matrix to the next layer's, where each has so many: so that those of q4_0 and
    /// q8_0 and their scales begin where a binding may.
    pub fn step(pieces: usize) -> usize {
        pieces.next_multiple_of(256)
    }
}

/// Layers in one dispatch, each of which is what [`Matmul::one_normed`](crate::Matmul::one_normed),
/// [`Attention::with_rope`] and [`Matmul::few_int8`](crate::Matmul::few_int8) do one after the other,
/// with workgroups waiting for each other's values in between. For devices with subgroups of 8
/// invocations at least that fill workgroups evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WholeLayer {
    /// Of all its matrices: q4_0 or q8_0.
    pub format: Format,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Features of a head, a multiple of 32.
    pub head_dim: usize,
    /// Are queries and keys normed?
    pub normed: bool,
    /// Are scores capped?
    pub capped: bool,
    /// Features of a row of x, padded.
    pub hidden: usize,
    /// Features of GELU(gate) · up, padded.
    pub ffn: usize,
    /// q, k and v; attention's projection; gate and up in turn; down.
    pub matrices: [LayerMatrix; 4],
    /// Invocations along a key: as [`Attention::lanes`] gives them, with 1, 2 or 4 units of eight features
    /// each.
    pub lanes: usize,
    /// Invocations of a workgroup.
    pub workgroup: usize,
}

impl WholeLayer {
    /// Storage buffers that it binds.
    pub const BUFFERS: usize = 17;
    /// Layers in one dispatch, at most.
    pub const MOST: usize = 64;
    /// Units of keys that an invocation asks for at once: few, as each takes space in the kernel.
    const AHEAD: usize = 2;
    /// Subgroups have at least so many invocations.
    pub const SUBGROUP: usize = 8;

    /// What layers tell their values from others by: 1, 2 or 3. No layer has the same as the one before
    /// it, and no global one the same as the global one before it: it may leave more parts of attention
    /// than sliding ones do (but for one that is the only one). The first ones follow the last ones; `None`
    /// where there are not two.
    pub fn phases(is_global: &[bool]) -> Option<Vec<u32>> {
        let n = is_global.len();
        let mut turns: Vec<_> = (0..n).filter(|i| is_global[*i]).collect();
        if turns.len() < 2 {
            turns = (0..n).collect();
        }
        if n < 2 {
            return None;
        }
        let mut phases = vec![0; n];
        for (turn, i) in turns.iter().enumerate() {
            let odd_one = turn + 1 == turns.len() && turn % 2 == 0;
            phases[*i] = if odd_one { 3 } else { 1 + turn as u32 % 2 };
        }
        // Those between two of them have to differ from their neighbours only.
        for i in (turns[0]..n).chain(0..turns[0]) {
            let near = [phases[(i + n - 1) % n], phases[(i + 1) % n]];
            if phases[i] == 0 {
                let free = (1..=3).find(|phase| !near.contains(phase));
                phases[i] = free.expect("two neighbours leave one of three");
            }
        }
        Some(phases)
    }

    /// How many workgroups there may be where so many run at the same time and no subgroup has more than
    /// `subgroup` invocations: each has rows of every matrix, so that none is a layer behind the others
    /// (layer.wgsl).
    pub fn workgroups(&self, at_once: u32, subgroup: usize) -> u32 {
        let tasks = |m: &LayerMatrix| m.units.div_ceil((subgroup / m.lanes).max(1)) as u32;
        self.matrices.iter().map(tasks).fold(at_once, u32::min)
    }

    /// Where in the buffer of messages values lie, in words: q, k and v; attention's result; what its
    /// projection gives; GELU(gate) · up; what down gives; parts of attention. Then the words of all of it.
    fn places(&self) -> [usize; 7] {
        let [qkv, out, up, down] = self.matrices.map(|m| m.units);
        let parts = self.heads * MAX_PARTS * (self.head_dim + 2);
        let mut at = Messages::VALUES;
        [qkv, self.attended(), out, up, down, parts, 0].map(|n| {
            let place = at;
            at += n.next_multiple_of(32);
            place
        })
    }

    /// Bytes of the buffer of messages.
    pub fn message_bytes(&self) -> usize {
        self.places()[6] * 4
    }

    /// Features of attention's result.
    fn attended(&self) -> usize {
        self.matrices[1].pieces * self.format.piece()
    }

    /// Features of the widest x that is multiplied, those included that invocations without a piece multiply
    /// for nothing: their indices are not checked.
    fn most_cols(&self) -> usize {
        let reached = |m: LayerMatrix| m.pieces.next_multiple_of(m.batch * m.lanes);
        let cols = self.matrices.map(|m| reached(m) * self.format.piece());
        cols.into_iter().max().unwrap_or(0)
    }

    /// Invocations that a workgroup has at least, where no subgroup has more than `subgroup`: three subgroups
    /// make the newest query, key and value, and each group of four features of a head has one invocation
    /// that puts it together.
    pub fn least_invocations(&self, subgroup: usize) -> usize {
        (3 * subgroup).max(self.head_dim / 4)
    }

    /// Bytes of workgroup memory.
    pub fn workgroup_bytes(&self) -> usize {
        let (quads, most) = (self.head_dim / 4, self.most_cols());
        // x in bytes; what groups of keys found; the newest position; the rest.
        most + most / 4
            + self.workgroup / self.lanes * (quads * 16 + 8)
            + 5 * quads * 16
            + (self.workgroup + 64) * 4
            + Self::MOST * size_of::<Stage>()
    }

    /// The kernel, for any number of workgroups that run all at the same time. With
    /// [`Whole::probe`](crate::params::Whole) it finds out how many do.
    pub fn kernel(&self) -> Kernel {
        let cache = CacheFormat::F16;
        let attention = Attention { head_dim: self.head_dim, heads: 1, rows: 1, cache };
        let mut parts = Parts::new("layer")
            .in_bounds()
            .needs(Needs { subgroups: true, ..Needs::default() })
            .u32("WORKGROUP", self.workgroup)
            .u32("HIDDEN", self.hidden)
            .u32("FFN", self.ffn)
            .u32("HEAD", self.head_dim)
            .u32("PAD", self.head_dim)
            .u32("LANES", self.lanes)
            .u32("PIECE", self.format.piece())
            .u32("WORD_PIECES", 64 / self.format.piece())
            .u32("MOST_LAYERS", Self::MOST)
            .u32("MOST_COLS", self.most_cols());
        for (name, m) in ["QKV", "OUT", "UP", "DOWN"].into_iter().zip(self.matrices) {
            for (what, value) in [
                ("UNITS", m.units),
                ("ROWS", m.rows),
                ("PIECES", m.pieces),
                ("STEP", LayerMatrix::step(m.units * m.rows * m.pieces)),
                ("LANES", m.lanes),
                ("BATCH", m.batch),
            ] {
                parts = parts.u32(&format!("{name}_{what}"), value);
            }
        }
        let [qkv, a, between, g, o, parts_at, _] = self.places();
        for (name, value) in [
            ("DONE", Messages::DONE),
            ("LATE", Messages::LATE),
            ("FINISHED", Messages::FINISHED),
            ("ARRIVED", Messages::ARRIVED),
            ("SEEN", Messages::SEEN),
            ("QKV", qkv),
            ("A", a),
            ("BETWEEN", between),
            ("G", g),
            ("O", o),
            ("PARTS", parts_at),
            ("HEADS", self.heads),
            ("KV_HEADS", self.kv_heads),
            ("HEAD_GROUP", self.heads / self.kv_heads),
            ("A_QUADS", self.attended() / 4),
            ("A_PADDED", self.attended() / 4),
            ("BETWEEN_QUADS", self.matrices[1].units / 4),
            ("BETWEEN_PADDED", self.hidden / 4),
            ("G_QUADS", self.matrices[2].units / 4),
            ("G_PADDED", self.ffn / 4),
            ("O_QUADS", self.matrices[3].units / 4),
            ("O_PADDED", self.hidden / 4),
        ] {
            parts = parts.u32(name, value);
        }
        parts = parts
            .definition(Whole::WGSL)
            .definition(Stage::WGSL)
            .definition(Pass::WGSL)
            .definition(Row::WGSL)
            .bind("w", Uniform, "Whole")
            .bind("sliding_pass", Uniform, "Pass")
            .bind("global_pass", Uniform, "Pass")
            .bind("plan", Read, "array<Stage>")
            .bind("rows", Read, "array<Row>")
            .bind("angles", Read, "array<vec4<f32>>")
            .bind("norms", Read, "array<vec4<f32>>")
            .bind("x", Write, "array<vec4<f32>>")
            .bind("o", Write, "array<vec4<f32>>")
            .bind("messages", Write, "array<atomic<u32>>")
            .bind("k", Write, cache.element())
            .bind("v", Write, cache.element())
            .bind("qkv_pieces", Read, "array<vec4<u32>>")
            .bind("qkv_scales", Read, "array<u32>")
            .bind("out_pieces", Read, "array<vec4<u32>>")
            .bind("out_scales", Read, "array<u32>")
            .bind("up_pieces", Read, "array<vec4<u32>>")
            .bind("up_scales", Read, "array<u32>")
            .bind("down_pieces", Read, "array<vec4<u32>>")
            .bind("down_scales", Read, "array<u32>");
        parts = match self.normed {
            true => parts.snippet("normed", "const NORMED = true;\n"),
            false => parts.snippet("not_normed", "const NORMED = false;\n"),
        };
        parts = match self.capped {
            true => parts.snippet("capped", "const CAPPED = true;\n"),
            false => parts.snippet("not_capped", "const CAPPED = false;\n"),
        };
        parts = products(parts.snippet("", MATH), self.format)
            .snippet("", "var<workgroup> x_bytes: array<vec4<u32>, MOST_COLS / 16u>;\n")
            .snippet("", "var<workgroup> x_scales: array<vec2<f32>, MOST_COLS / 32u>;\n");
        parts = parts.snippet("", LAYER).snippet("", include_str!("../wgsl/messages.wgsl"));
        for (lower, upper) in [("a", "A"), ("between", "BETWEEN"), ("g", "G"), ("o", "O")] {
            let text = include_str!("../wgsl/arrivals.wgsl");
            parts = parts.template(text, &[("v", lower), ("V", upper)], &[]);
        }
        parts = attention.lanes_apart(
            parts.snippet("", cache.wgsl()),
            self.lanes,
            Self::AHEAD,
            include_str!("../wgsl/layer_attention.wgsl"),
        );
        let stores = [
            ("qkv", "QKV", "put(place_in_head(unit), sum_0);"),
            ("out", "OUT", "put(place_of(BETWEEN, BETWEEN_QUADS, unit), sum_0);"),
            ("up", "UP", "put(place_of(G, G_QUADS, unit), gelu(sum_0) * sum_1);"),
            (
                "down",
                "DOWN",
                "put(place_of(O, O_QUADS, unit), sum_0);\nif layer + 1u == w.layers { o[unit / 4u][unit % 4u] = sum_0; }",
            ),
        ];
        for ((lower, upper, store), m) in stores.into_iter().zip(self.matrices) {
            let words = [("m", lower), ("M", upper), ("store", store)];
            let counts = [("b", m.batch), ("r", m.rows)];
            let text = include_str!("../wgsl/layer_matrix.wgsl");
            parts = parts.template(text, &words, &counts);
        }
        parts.kernel(include_str!("../wgsl/layer.wgsl"))
    }
}

#[cfg(test)]
mod tests {
    use super::WholeLayer;

    #[test]
    fn phases_differ() {
        let every = |n: usize, k: usize| (1..=n).map(|i| i % k == 0).collect::<Vec<_>>();
        let shapes =
            [(18, 6), (26, 6), (34, 6), (48, 6), (62, 6), (26, 2), (42, 2), (46, 2), (7, 3)];
        let mut layers: Vec<_> = shapes.into_iter().map(|(n, k)| every(n, k)).collect();
        layers.extend([vec![true; 5], vec![false; 2], vec![true, true, false], every(6, 6)]);
        for is_global in &layers {
            let phases = WholeLayer::phases(is_global).unwrap();
            assert!(phases.iter().all(|phase| (1..=3).contains(phase)));
            let n = phases.len();
            let global: Vec<_> = (0..n).filter(|i| is_global[*i]).collect();
            let global = if global.len() > 1 { global } else { Vec::new() };
            for in_turn in [(0..n).collect(), global] {
                for (k, i) in in_turn.iter().enumerate() {
                    let next = in_turn[(k + 1) % in_turn.len()];
                    assert_ne!(phases[*i], phases[next], "{is_global:?} {phases:?}");
                }
            }
        }
        // Nothing is left by anybody else.
        assert_eq!(WholeLayer::phases(&[true]), None);
    }
}
