//! The kernels: each a file of `wgsl/` and what it is specialised for.

use crate::compose::{Access, Kernel, Needs, Parts};
use crate::format::{CacheFormat, Format};
use crate::params::{Attend, Mat, Norm, Pass, Rope as RopeParams, Row};
use crate::reduce::Reduce;
use Access::{Read, Uniform, Write};

/// Blocks of 32 as bytes.
pub(crate) const INT8: &str = include_str!("../wgsl/int8.wgsl");
pub(crate) const MATH: &str = include_str!("../wgsl/math.wgsl");

/// The planes of a matrix and the functions that decode them. Its bindings come last.
pub(crate) fn weights(parts: Parts, format: Format) -> Parts {
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

    /// Lanes along a key for [`Attention::one`] where subgroups have at least `subgroup`
    /// invocations; `None` where heads of this size are not shared out so.
    pub fn lanes(self, subgroup: usize) -> Option<usize> {
        let units = self.head_dim.next_multiple_of(crate::HEAD_PAD) / 8;
        let fits = |l: &usize| units.is_multiple_of(*l) && units / l <= 4;
        [32, 16, 8, 4].into_iter().filter(|l| *l <= subgroup).find(fits)
    }

    /// For one row and one head a workgroup, where the device has subgroups of at least `lanes`
    /// invocations; with `int8` the result is left in bytes as well, where the positions are in one
    /// part.
    pub fn one(self, lanes: usize, int8: bool) -> Kernel {
        let units = self.head_dim.next_multiple_of(crate::HEAD_PAD) / 8;
        let parts = self
            .parts("attention_one", 8 * lanes)
            .needs(Needs { subgroups: true, ..Needs::default() })
            .u32("LANES", lanes)
            .u32("AHEAD", (4 * lanes / units).max(1));
        kept(parts, int8)
            .snippet("", include_str!("../wgsl/attention_lanes.wgsl"))
            .kernel(include_str!("../wgsl/attention_one.wgsl"))
    }

    /// [`Rope::kernel`] and [`Attention::one`] in one, for a single row, which sees what is before it
    /// and itself, over an f16 cache. One workgroup for each head and part of the positions.
    pub fn with_rope(self, lanes: usize, normed: bool, int8: bool) -> Kernel {
        let units = self.head_dim.next_multiple_of(crate::HEAD_PAD) / 8;
        let parts = Parts::new("attention_rope")
            .needs(Needs { subgroups: true, ..Needs::default() })
            .u32("HEAD", self.head_dim)
            .u32("PAD", self.head_dim.next_multiple_of(crate::HEAD_PAD))
            .u32("WORKGROUP", 8 * lanes)
            .u32("LANES", lanes)
            .u32("AHEAD", (4 * lanes / units).max(1))
            .definition(Attend::WGSL)
            .definition(RopeParams::WGSL)
            .definition(Pass::WGSL)
            .definition(Row::WGSL)
            .bind("p", Uniform, "Attend")
            .bind("r", Uniform, "Rope")
            .bind("batch", Uniform, "Pass")
            .bind("rows", Read, "array<Row>")
            .bind("angles", Read, "array<f32>")
            .bind("qkv", Read, "array<f32>")
            .bind("k", Write, self.cache.element())
            .bind("v", Write, self.cache.element())
            .bind("a", Write, "array<f32>")
            .bind("parts", Write, "array<f32>");
        let parts = match normed {
            true => parts
                .bind("weights", Read, "array<f32>")
                .snippet("normed", include_str!("../wgsl/attention_rope_normed.wgsl")),
            false => {
                parts.snippet("not_normed", include_str!("../wgsl/attention_rope_not_normed.wgsl"))
            }
        };
        kept(parts, int8)
            .snippet("", MATH)
            .snippet("", self.cache.wgsl())
            .snippet("", include_str!("../wgsl/attention_lanes.wgsl"))
            .kernel(include_str!("../wgsl/attention_rope.wgsl"))
    }

    /// Storage buffers that [`Attention::with_rope`] binds at most.
    pub const ROPE_BUFFERS: usize = 10;

    /// One workgroup for each block of heads, block of rows and part of the positions.
    pub fn kernel(self) -> Kernel {
        self.parts("attention", Self::WORKGROUP)
            .u32("ROWS", self.rows)
            .kernel(include_str!("../wgsl/attention.wgsl"))
    }

    /// Queries of a workgroup of [`Attention::matrix`].
    const MATRIX_QUERIES: usize = 32;

    /// The same, for many rows by cooperative matrices of 16 × 16, where heads, cache and groups of
    /// heads allow.
    pub fn by_matrices(self) -> Option<Attention> {
        let fits = self.cache == CacheFormat::F16
            && self.head_dim.is_multiple_of(64)
            && Self::MATRIX_QUERIES.is_multiple_of(self.heads);
        fits.then(|| Attention { rows: Self::MATRIX_QUERIES / self.heads, ..self })
    }

    /// For what [`Attention::by_matrices`] gives, in workgroups of four subgroups, where these are as
    /// large as they may be. Slots of the cache are a multiple of 16.
    pub fn matrix(self, workgroup: usize) -> Kernel {
        Parts::new("attention_matrix")
            .needs(Needs { subgroups: true, f16: true, matrices: true })
            .u32("HEAD", self.head_dim)
            .u32("HEADS", self.heads)
            .u32("ROWS", self.rows)
            .u32("WORKGROUP", workgroup)
            .definition(Attend::WGSL)
            .definition(Pass::WGSL)
            .definition(Row::WGSL)
            .bind("p", Uniform, "Attend")
            .bind("batch", Uniform, "Pass")
            .bind("rows", Read, "array<Row>")
            .bind("q", Read, "array<vec4<f32>>")
            .bind("k", Read, "array<vec4<f16>>")
            .bind("v", Read, "array<vec4<f16>>")
            .bind("a", Write, "array<f32>")
            .snippet("", MATH)
            .snippet("", include_str!("../wgsl/matrix_16.wgsl"))
            .repeated(include_str!("../wgsl/attention_matrix.wgsl"), &[("f", self.head_dim / 64)])
    }

    fn parts(self, file: &str, workgroup: usize) -> Parts {
        Parts::new(file)
            .u32("HEAD", self.head_dim)
            .u32("PAD", self.head_dim.next_multiple_of(crate::HEAD_PAD))
            .u32("HEADS", self.heads)
            .u32("WORKGROUP", workgroup)
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
    }
}

/// `keep`: leaves a head's result in bytes as well, or does not.
fn kept(parts: Parts, int8: bool) -> Parts {
    if !int8 {
        return parts.snippet("", include_str!("../wgsl/keep_float.wgsl"));
    }
    parts
        .bind("a_values", Write, "array<u32>")
        .bind("a_scales", Write, "array<vec2<f32>>")
        .snippet("int8", include_str!("../wgsl/keep_int8.wgsl"))
}

/// Parts that positions are split into at most.
pub const MAX_PARTS: usize = 64;

/// Puts the parts of attention together: one workgroup for each row and head. With `int8` the result
/// is left in bytes as well.
pub fn merge(head_dim: usize, int8: bool) -> Kernel {
    let parts = Parts::new("merge")
        .u32("HEAD", head_dim)
        .u32("WORKGROUP", 256)
        .u32("MOST", MAX_PARTS)
        .definition(Attend::WGSL)
        .definition(Pass::WGSL)
        .bind("p", Uniform, "Attend")
        .bind("batch", Uniform, "Pass")
        .bind("parts", Read, "array<f32>")
        .bind("a", Write, "array<f32>");
    kept(parts, int8).kernel(include_str!("../wgsl/merge.wgsl"))
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
