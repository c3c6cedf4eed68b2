//! The kernels: each a file of `wgsl/` and what it is specialised for.

use crate::compose::{Access, Kernel, Parts};
use crate::format::{CacheFormat, Format};
use crate::params::{Mat, Norm, Rope as RopeParams, Row};
use crate::reduce::Reduce;
use Access::{Read, Uniform, Write};

/// Blocks of 32 as bytes.
pub(crate) const INT8: &str = include_str!("../wgsl/int8.wgsl");
pub(crate) const MATH: &str = include_str!("../wgsl/math.wgsl");
/// Which of two values is larger.
pub(crate) const BETTER: &str = include_str!("../wgsl/better.wgsl");

/// The planes of a matrix and the functions that decode them. Its bindings come last.
pub(crate) fn weights(parts: Parts, format: Format) -> Parts {
    let parts = parts.bind("pieces", Read, "array<vec4<u32>>");
    let parts = match format.scaled() {
        true => parts.bind("scales", Read, "array<u32>"),
        false => parts,
    };
    parts.snippet(format.name(), format.wgsl()).snippet("", format.scale())
}

/// Rows of an embedding, decoded and scaled: x.
pub fn embed(format: Format) -> Kernel {
    let parts = Parts::new("embed")
        .u32("WORKGROUP", 64)
        .definition(Mat::WGSL)
        .bind("p", Uniform, "Mat")
        .bind("tokens", Read, "array<u32>")
        .bind("x", Write, "array<vec4<f32>>");
    embed_row(parts, format).kernel(include_str!("../wgsl/embed.wgsl"))
}

fn embed_row(parts: Parts, format: Format) -> Parts {
    weights(parts, format).snippet("", include_str!("../wgsl/embed_row.wgsl"))
}

/// What a [`norm`] leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Normed {
    /// Nothing: the residual is all there is to do.
    Nothing,
    /// h = RMSNorm(x) · weight.
    Float,
    /// The same, and beside it as [`Prepare::Int8`](crate::Prepare::Int8) has it.
    Int8,
}

/// With `residual`: x += RMSNorm(o) · post. Then `normed`, of the new x. For rows `stride` floats apart.
pub fn norm(residual: bool, normed: Normed, stride: usize, reduce: Reduce) -> Kernel {
    let mut parts = Parts::new("norm")
        .u32("WORKGROUP", 256)
        .u32("PER", (stride / 4).div_ceil(256))
        .definition(Norm::WGSL)
        .bind("p", Uniform, "Norm")
        .bind("x", Write, "array<vec4<f32>>");
    let mut add = ("no_residual", include_str!("../wgsl/norm_no_residual.wgsl"));
    let mut store = ("not_stored", include_str!("../wgsl/norm_not_stored.wgsl"));
    if residual {
        parts = parts.bind("o", Read, "array<vec4<f32>>").bind("post", Read, "array<vec4<f32>>");
        add = ("residual", include_str!("../wgsl/norm_residual.wgsl"));
    }
    if normed != Normed::Nothing {
        parts = parts.bind("weight", Read, "array<vec4<f32>>").bind("h", Write, "array<vec4<f32>>");
        store = ("stored", include_str!("../wgsl/norm_store.wgsl"));
    }
    if normed == Normed::Int8 {
        parts = parts
            .bind("values", Write, "array<u32>")
            .bind("scales", Write, "array<vec2<f32>>")
            .snippet("", include_str!("../wgsl/eight.wgsl"));
        store = ("stored_int8", include_str!("../wgsl/norm_store_int8.wgsl"));
    }
    reduce
        .total(parts)
        .snippet(add.0, add.1)
        .snippet(store.0, store.1)
        .kernel(include_str!("../wgsl/norm.wgsl"))
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

/// Copies x to y, 16 KiB a workgroup.
pub fn copy() -> Kernel {
    Parts::new("copy")
        .bind("x", Read, "array<vec4<u32>>")
        .bind("y", Write, "array<vec4<u32>>")
        .kernel(include_str!("../wgsl/copy.wgsl"))
}

/// The largest of each of 256 parts of a row of `p.cols` values, with its index: a workgroup each.
pub fn argmax() -> Kernel {
    Parts::new("argmax")
        .u32("WORKGROUP", 256)
        .definition(Norm::WGSL)
        .bind("p", Uniform, "Norm")
        .bind("x", Read, "array<f32>")
        .bind("best", Write, "array<vec2<u32>>")
        .snippet("", BETTER)
        .snippet("", include_str!("../wgsl/best.wgsl"))
        .kernel(include_str!("../wgsl/argmax.wgsl"))
}

/// The largest of the `count` items that [`argmax`] or [`Matmul::one_best`](crate::Matmul::one_best) found: its
/// index becomes the first of `tokens`, and that of `chosen` which the row's place says, the first word of
/// which is left to [`Messages::FINISHED`](crate::Messages::FINISHED). With `embedding` the first row of x
/// becomes that token's, as [`embed`] makes it.
pub fn argmax_last(count: usize, embedding: Option<Format>, workgroup: usize) -> Kernel {
    let parts = Parts::new("argmax_last")
        .u32("WORKGROUP", workgroup)
        .u32("COUNT", count)
        .definition(Row::WGSL)
        .bind("best", Read, "array<vec2<u32>>")
        .bind("tokens", Write, "array<u32>")
        .bind("rows", Read, "array<Row>")
        .bind("chosen", Write, "array<u32>")
        .snippet("", BETTER)
        .snippet("", include_str!("../wgsl/best.wgsl"));
    let parts = match embedding {
        Some(format) => {
            let parts = parts.definition(Mat::WGSL).bind("p", Uniform, "Mat").bind(
                "x",
                Write,
                "array<vec4<f32>>",
            );
            embed_row(parts, format)
        }
        None => parts.snippet("alone", include_str!("../wgsl/embed_nothing.wgsl")),
    };
    parts.kernel(include_str!("../wgsl/argmax_last.wgsl"))
}
