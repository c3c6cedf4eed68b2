//! A whole layer in one dispatch, for a single row.

use crate::attention::{Attention, KEEP_INT8, MAX_PARTS, MERGE_PARTS};
use crate::compose::{Access, Kernel, Needs, Parts};
use crate::format::{CacheFormat, Format};
use crate::kernels::MATH;
use crate::matmul::products;
use crate::params::{Attend, Pass, Rope, Row, Whole};
use Access::{Coherent, Read, Uniform, Write};

/// The buffer through which workgroups wait for each other: what its words are for. They lie apart, so that
/// whoever looks at one is not disturbed by the others.
#[derive(Clone, Copy, Debug)]
pub struct Meeting;

impl Meeting {
    /// Workgroups that have come to a meeting, of this dispatch.
    const ARRIVED: usize = 0;
    /// Workgroups that are through, of this dispatch.
    const DONE: usize = 32;
    /// Somebody has waited in vain.
    const LATE: usize = 64;
    /// Dispatches that all workgroups have come through.
    pub const FINISHED: usize = 96;
    /// The complement of the number of workgroups that run at the same time, once that is found out.
    pub const SEEN: usize = 128;
    /// Parts of attention that are done, by head.
    const HEADS: usize = 160;
    /// Bytes of all of them.
    pub const BYTES: usize = (Self::HEADS + WholeLayer::HEADS) * 4;

    fn wgsl() -> String {
        let words = [
            ("ARRIVED", Self::ARRIVED),
            ("DONE", Self::DONE),
            ("LATE", Self::LATE),
            ("FINISHED", Self::FINISHED),
            ("SEEN", Self::SEEN),
            ("HEADS", Self::HEADS),
        ];
        words.map(|(name, word)| format!("const {name}: u32 = {word}u;\n")).concat()
    }
}

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
}

/// A layer in one dispatch: what [`Matmul::one_normed`](crate::Matmul::one_normed),
/// [`Attention::with_rope`] and [`Matmul::few_int8`](crate::Matmul::few_int8) do one after the other,
/// with all workgroups waiting for each other in between. For devices with subgroups of 8 invocations at
/// least that fill workgroups evenly, and coherent buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WholeLayer {
    /// Of all its matrices: q4_0 or q8_0.
    pub format: Format,
    /// Features of a head, a multiple of 32.
    pub head_dim: usize,
    /// Are queries and keys normed?
    pub normed: bool,
    /// Features of a row of x, padded.
    pub hidden: usize,
    /// Features of GELU(gate) · up, padded.
    pub ffn: usize,
    /// q, k and v; attention's projection; gate and up in turn; down.
    pub matrices: [LayerMatrix; 4],
    /// Invocations along a key: as [`Attention::lanes`] gives them.
    pub lanes: usize,
    /// Invocations of a workgroup.
    pub workgroup: usize,
}

impl WholeLayer {
    /// Storage buffers that it binds at most.
    pub const BUFFERS: usize = 24;
    /// Subgroups have at least so many invocations.
    pub const SUBGROUP: usize = 8;
    /// Query heads at most.
    pub const HEADS: usize = 64;

    /// Features of the widest x that is multiplied.
    fn most_cols(&self) -> usize {
        let cols = self.matrices.map(|m| m.pieces * self.format.piece());
        cols.into_iter().max().unwrap_or(0)
    }

    /// Bytes of workgroup memory.
    pub fn workgroup_bytes(&self) -> usize {
        let (quads, most) = (self.head_dim / 4, self.most_cols());
        // x in bytes; what groups of keys found, parts of attention; the newest position; the rest.
        most + most / 4
            + self.workgroup / self.lanes * (quads * 16 + 8)
            + self.workgroup / quads * quads * 16
            + 4 * quads * 16
            + quads * 4
            + (self.workgroup * 3 + 2 * MAX_PARTS + 64) * 4
    }

    /// The kernel, for any number of workgroups that run all at the same time. With
    /// [`Whole::probe`](crate::params::Whole) it finds out how many do.
    pub fn kernel(&self) -> Kernel {
        let cache = CacheFormat::F16;
        let attention = Attention { head_dim: self.head_dim, heads: 1, rows: 1, cache };
        let mut parts = Parts::new("layer")
            .needs(Needs { subgroups: true, coherent: true, ..Needs::default() })
            .u32("WORKGROUP", self.workgroup)
            .u32("HIDDEN", self.hidden)
            .u32("FFN", self.ffn)
            .u32("HEAD", self.head_dim)
            .u32("PAD", self.head_dim)
            .u32("LANES", self.lanes)
            .u32("MOST", MAX_PARTS)
            .u32("PIECE", self.format.piece())
            .u32("MOST_COLS", self.most_cols());
        for (name, m) in ["QKV", "OUT", "UP", "DOWN"].into_iter().zip(self.matrices) {
            for (what, value) in [
                ("UNITS", m.units),
                ("ROWS", m.rows),
                ("PIECES", m.pieces),
                ("LANES", m.lanes),
                ("BATCH", m.batch),
            ] {
                parts = parts.u32(&format!("{name}_{what}"), value);
            }
        }
        parts = parts
            .definition(Whole::WGSL)
            .definition(Attend::WGSL)
            .definition(Rope::WGSL)
            .definition(Pass::WGSL)
            .definition(Row::WGSL)
            .bind("w", Uniform, "Whole")
            .bind("p", Uniform, "Attend")
            .bind("r", Uniform, "Rope")
            .bind("batch", Uniform, "Pass")
            .bind("rows", Read, "array<Row>")
            .bind("angles", Read, "array<f32>")
            .bind("norms", Read, "array<vec4<f32>>")
            .bind("x", Write, "array<vec4<f32>>")
            .bind("o", Write, "array<vec4<f32>>")
            .bind("meeting", Coherent, "array<atomic<u32>>")
            .bind("qkv", Coherent, "array<f32>")
            .bind("a", Coherent, "array<f32>")
            .bind("a_values", Coherent, "array<u32>")
            .bind("a_scales", Coherent, "array<vec2<f32>>")
            .bind("parts", Coherent, "array<f32>")
            .bind("o_between", Coherent, "array<vec4<f32>>")
            .bind("g", Coherent, "array<vec4<f32>>")
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
            true => parts
                .bind("weights", Read, "array<f32>")
                .snippet("normed", include_str!("../wgsl/attention_rope_normed.wgsl")),
            false => {
                parts.snippet("not_normed", include_str!("../wgsl/attention_rope_not_normed.wgsl"))
            }
        };
        parts = products(parts.snippet("", MATH), self.format)
            .snippet("", "var<workgroup> x_bytes: array<vec4<u32>, MOST_COLS / 16u>;\n")
            .snippet("", "var<workgroup> x_scales: array<vec2<f32>, MOST_COLS / 32u>;\n");
        parts = attention.newest(parts.snippet("", KEEP_INT8), self.lanes).snippet("", MERGE_PARTS);
        let stores = [
            ("qkv", "QKV", "qkv[unit] = sum_0;"),
            ("out", "OUT", "o_between[unit / 4u][unit % 4u] = sum_0;"),
            ("up", "UP", "g[unit / 4u][unit % 4u] = gelu(sum_0) * sum_1;"),
            ("down", "DOWN", "o[unit / 4u][unit % 4u] = sum_0;"),
        ];
        for ((lower, upper, store), m) in stores.into_iter().zip(self.matrices) {
            let words = [("m", lower), ("M", upper), ("store", store)];
            let counts = [("b", m.batch), ("r", m.rows)];
            let text = include_str!("../wgsl/layer_matrix.wgsl");
            parts = parts.template(text, &words, &counts);
        }
        parts
            .template(&Meeting::wgsl(), &[], &[])
            .snippet("", include_str!("../wgsl/meet.wgsl"))
            .kernel(include_str!("../wgsl/layer.wgsl"))
    }
}
