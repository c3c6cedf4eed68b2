//! The kernels: each a file of `wgsl/` and what it is specialised for.

use crate::compose::{Access, Kernel, Parts};
use crate::format::{CacheFormat, Format};
use crate::params::{Attend, Mat, Norm, Pass, Rope as RopeParams, Row};
use Access::{Read, Uniform, Write};

const MATH: &str = include_str!("../wgsl/math.wgsl");

/// What becomes of a matmul's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// They are stored.
    Plain,
    /// Rows are gate and up in turn: GELU(gate) · up is stored.
    Glu,
    /// They are softcapped.
    Softcap,
}

impl Output {
    /// Every one.
    pub const ALL: [Output; 3] = [Output::Plain, Output::Glu, Output::Softcap];

    fn wgsl(self) -> (&'static str, &'static str) {
        match self {
            Output::Plain => ("plain", include_str!("../wgsl/output_plain.wgsl")),
            Output::Glu => ("glu", include_str!("../wgsl/output_glu.wgsl")),
            Output::Softcap => ("softcap", include_str!("../wgsl/output_softcap.wgsl")),
        }
    }
}

/// `y = x · Wᵀ` for rows of `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Matmul {
    /// How the weights lie.
    pub format: Format,
    /// What becomes of the results.
    pub output: Output,
}

impl Matmul {
    /// Invocations of a workgroup of [`Matmul::few`]: small, so that there are many of them.
    const FEW_WORKGROUP: usize = 64;
    /// Invocations of a workgroup of [`Matmul::tiled`].
    const TILED_WORKGROUP: usize = 128;
    /// Rows of weights that a group of lanes works on at once.
    const ROWS: usize = 4;
    /// Features and rows of `x` in a tile of [`Matmul::tiled`].
    pub const TILE: usize = 64;
    /// Rows of `x` that [`Matmul::few`] takes at most.
    pub const FEW: usize = 8;

    /// For up to `tokens` rows of `x` (1, 2, 4 or 8): weights are read once, coalesced, `lanes`
    /// invocations side by side along a row.
    pub fn few(self, tokens: usize, lanes: usize) -> Kernel {
        self.parts("matvec")
            .u32("WORKGROUP", Self::FEW_WORKGROUP)
            .u32("LANES", lanes)
            .u32("ROWS", Self::ROWS)
            .u32("TOKENS", tokens)
            .kernel(include_str!("../wgsl/matvec.wgsl"))
    }

    /// For many rows of `x`: tiles in workgroup memory.
    pub fn tiled(self) -> Kernel {
        self.parts("matmul")
            .u32("WORKGROUP", Self::TILED_WORKGROUP)
            .kernel(include_str!("../wgsl/matmul.wgsl"))
    }

    /// Lanes along each of `rows` rows of `pieces` pieces: as leave the fewest of them idle, the
    /// more the better, but enough workgroups to keep a GPU busy.
    pub fn lanes(rows: usize, pieces: usize) -> usize {
        /// Workgroups that keep a GPU busy.
        const ENOUGH: usize = 256;
        let idle = |lanes: &usize| pieces.next_multiple_of(*lanes) - pieces;
        let enough = |lanes: &usize| rows.div_ceil(Self::rows_of_workgroup(*lanes)) >= ENOUGH;
        [32, 16, 8].into_iter().filter(enough).min_by_key(idle).unwrap_or(32)
    }

    /// Rows of weights of one workgroup of [`Matmul::few`].
    pub fn rows_of_workgroup(lanes: usize) -> usize {
        Self::FEW_WORKGROUP / lanes * Self::ROWS
    }

    fn parts(self, file: &str) -> Parts {
        let (name, output) = self.output.wgsl();
        let parts = Parts::new(file)
            .definition(Mat::WGSL)
            .definition(Pass::WGSL)
            .bind("p", Uniform, "Mat")
            .bind("batch", Uniform, "Pass")
            .bind("x", Read, "array<vec4<f32>>")
            .bind("y", Write, "array<f32>");
        weights(parts, self.format).snippet("", MATH).snippet(name, output)
    }
}

/// The planes of a matrix and the functions that decode them. Its bindings come last.
fn weights(parts: Parts, format: Format) -> Parts {
    let parts = parts.bind("pieces", Read, "array<vec4<u32>>");
    let parts = match format.scaled() {
        true => parts.bind("scales", Read, "array<u32>"),
        false => parts,
    };
    parts.snippet(format.name(), format.wgsl())
}

/// Rows of an embedding, decoded and scaled: x.
pub fn embed(format: Format) -> Kernel {
    let parts = Parts::new("embed")
        .definition(Mat::WGSL)
        .bind("p", Uniform, "Mat")
        .bind("tokens", Read, "array<u32>")
        .bind("x", Write, "array<vec4<f32>>");
    weights(parts, format).kernel(include_str!("../wgsl/embed.wgsl"))
}

/// With `residual`: x += RMSNorm(o) · post. With `normed`: h = RMSNorm(x) · weight, of the new x.
pub fn norm(residual: bool, normed: bool) -> Kernel {
    let mut parts = Parts::new("norm").definition(Norm::WGSL).bind("p", Uniform, "Norm").bind(
        "x",
        Write,
        "array<vec4<f32>>",
    );
    let mut add = ("no_residual", include_str!("../wgsl/norm_no_residual.wgsl"));
    let mut store = ("not_stored", include_str!("../wgsl/norm_not_stored.wgsl"));
    if residual {
        parts = parts.bind("o", Read, "array<vec4<f32>>").bind("post", Read, "array<vec4<f32>>");
        add = ("residual", include_str!("../wgsl/norm_residual.wgsl"));
    }
    if normed {
        parts = parts.bind("weight", Read, "array<vec4<f32>>").bind("h", Write, "array<vec4<f32>>");
        store = ("stored", include_str!("../wgsl/norm_store.wgsl"));
    }
    parts.snippet(add.0, add.1).snippet(store.0, store.1).kernel(include_str!("../wgsl/norm.wgsl"))
}

/// Norm per head, RoPE, and the keys and values into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rope {
    /// Features of a head.
    pub head_dim: usize,
    /// Are queries and keys normed?
    pub normed: bool,
    /// How keys and values are kept.
    pub cache: CacheFormat,
}

impl Rope {
    /// One workgroup for each row and head of q, k and v.
    pub fn kernel(self) -> Kernel {
        let mut parts = Parts::new("rope")
            .u32("HEAD", self.head_dim)
            .u32("PAD", self.head_dim.next_multiple_of(crate::HEAD_PAD))
            .definition(RopeParams::WGSL)
            .definition(Row::WGSL)
            .bind("p", Uniform, "Rope")
            .bind("rows", Read, "array<Row>")
            .bind("angles", Read, "array<f32>")
            .bind("qkv", Read, "array<f32>")
            .bind("q", Write, "array<f32>")
            .bind("k", Write, "array<u32>")
            .bind("v", Write, "array<u32>");
        let snippet = match self.normed {
            true => {
                parts = parts.bind("weights", Read, "array<f32>");
                ("normed", include_str!("../wgsl/rope_normed.wgsl"))
            }
            false => ("not_normed", include_str!("../wgsl/rope_not_normed.wgsl")),
        };
        parts
            .snippet(snippet.0, snippet.1)
            .snippet(self.cache.name(), self.cache.store())
            .kernel(include_str!("../wgsl/rope.wgsl"))
    }
}

/// Attention of some rows and heads that share a KV head, over a part of the positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attention {
    /// Features of a head.
    pub head_dim: usize,
    /// Query heads of one workgroup, all of one KV head.
    pub heads: usize,
    /// Rows of one workgroup, all of one sequence.
    pub rows: usize,
    /// How keys and values are kept.
    pub cache: CacheFormat,
}

impl Attention {
    /// Invocations of a workgroup.
    pub const WORKGROUP: usize = 128;
    /// Queries (rows × heads) of a workgroup, at most.
    pub const QUERIES: usize = 8;
    /// Features that a head may have at most.
    pub const MAX_HEAD: usize = 256;

    /// The heads and rows of a workgroup, where `group` query heads share a KV head.
    pub fn shape(group: usize, many_rows: bool) -> (usize, usize) {
        let heads = (1..=group.min(Self::QUERIES)).rev().find(|h| group.is_multiple_of(*h));
        let heads = heads.unwrap_or(1);
        (heads, if many_rows { Self::QUERIES / heads } else { 1 })
    }

    /// One workgroup for each block of heads, block of rows and part of the positions.
    pub fn kernel(self) -> Kernel {
        let pad = self.head_dim.next_multiple_of(crate::HEAD_PAD);
        Parts::new("attention")
            .u32("HEAD", self.head_dim)
            .u32("PAD", pad)
            .u32("HEADS", self.heads)
            .u32("ROWS", self.rows)
            .u32("WORKGROUP", Self::WORKGROUP)
            .definition(Attend::WGSL)
            .definition(Pass::WGSL)
            .definition(Row::WGSL)
            .bind("p", Uniform, "Attend")
            .bind("batch", Uniform, "Pass")
            .bind("rows", Read, "array<Row>")
            .bind("q", Read, "array<vec4<f32>>")
            .bind("k", Read, self.cache.element())
            .bind("v", Read, self.cache.element())
            .bind("a", Write, "array<f32>")
            .bind("parts", Write, "array<f32>")
            .snippet("", MATH)
            .snippet(self.cache.name(), self.cache.wgsl())
            .kernel(include_str!("../wgsl/attention.wgsl"))
    }
}

/// Puts the parts of attention together: one workgroup for each row and head.
pub fn merge(head_dim: usize) -> Kernel {
    Parts::new("merge")
        .u32("HEAD", head_dim)
        .definition(Attend::WGSL)
        .definition(Pass::WGSL)
        .bind("p", Uniform, "Attend")
        .bind("batch", Uniform, "Pass")
        .bind("parts", Read, "array<f32>")
        .bind("a", Write, "array<f32>")
        .kernel(include_str!("../wgsl/merge.wgsl"))
}

/// Rows `rows[i].place` of one buffer, packed: what is left when only some logits are wanted.
pub fn gather() -> Kernel {
    Parts::new("gather")
        .definition(Norm::WGSL)
        .definition(Row::WGSL)
        .bind("p", Uniform, "Norm")
        .bind("rows", Read, "array<Row>")
        .bind("x", Read, "array<vec4<f32>>")
        .bind("y", Write, "array<vec4<f32>>")
        .kernel(include_str!("../wgsl/gather.wgsl"))
}

/// The largest of each of 256 parts of a row of `p.cols` values, with its index: a workgroup each.
pub fn argmax() -> Kernel {
    Parts::new("argmax")
        .definition(Norm::WGSL)
        .bind("p", Uniform, "Norm")
        .bind("x", Read, "array<f32>")
        .bind("best", Write, "array<vec2<u32>>")
        .snippet("", include_str!("../wgsl/best.wgsl"))
        .kernel(include_str!("../wgsl/argmax.wgsl"))
}

/// The largest of what [`argmax`] found: its index becomes the first of `tokens`.
pub fn argmax_last() -> Kernel {
    Parts::new("argmax_last")
        .bind("best", Read, "array<vec2<u32>>")
        .bind("tokens", Write, "array<u32>")
        .snippet("", include_str!("../wgsl/best.wgsl"))
        .kernel(include_str!("../wgsl/argmax_last.wgsl"))
}
