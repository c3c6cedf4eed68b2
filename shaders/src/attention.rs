//! Attention: of many rows, of one row and head along subgroups, with rotation, by matrices.

use crate::compose::{Access, Kernel, Needs, Parts};
use crate::format::CacheFormat;
use crate::kernels::MATH;
use crate::params::{Attend, Pass, Rope as RopeParams, Row};
use Access::{Read, Uniform, Write};

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
        let parts = self.ends(self.along("attention_one", lanes));
        self.looking(kept(parts, int8), lanes).kernel(include_str!("../wgsl/attention_one.wgsl"))
    }

    /// [`Rope::kernel`](crate::Rope::kernel) and [`Attention::one`] in one, for a single row, which sees what is before it
    /// and itself, over an f16 cache. One workgroup for each head and part of the positions.
    pub fn with_rope(self, lanes: usize, normed: bool, int8: bool) -> Kernel {
        let parts = self
            .along("attention_rope", lanes)
            .definition(RopeParams::WGSL)
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
        let parts = kept(parts, int8).snippet("", MATH).snippet("", self.cache.wgsl());
        self.looking(parts, lanes)
            .snippet("", include_str!("../wgsl/attention_newest.wgsl"))
            .kernel(include_str!("../wgsl/attention_rope.wgsl"))
    }

    /// What attends with `lanes` invocations along a key, in workgroups of their own.
    fn looking(self, parts: Parts, lanes: usize) -> Parts {
        self.lanes_apart(parts, lanes, Self::AHEAD, include_str!("../wgsl/attention_look.wgsl"))
            .snippet("", include_str!("../wgsl/attention_together.wgsl"))
    }

    /// What has `lanes` invocations along a key, and a `look` over keys that does. An invocation asks for so
    /// many units of keys, eight features each, at once.
    pub(crate) fn lanes_apart(self, parts: Parts, lanes: usize, units: usize, look: &str) -> Parts {
        let each = self.head_dim.next_multiple_of(crate::HEAD_PAD) / 8 / lanes;
        let ahead = (units / each).max(1);
        let counts = [("j", ahead), ("e", each)];
        let text = include_str!("../wgsl/attention_lanes.wgsl");
        parts.u32("AHEAD", ahead).template(text, &[], &counts).template(look, &[], &counts)
    }

    /// Units of keys that an invocation asks for at once.
    const AHEAD: usize = 4;

    /// Storage buffers that [`Attention::with_rope`] binds at most.
    pub const ROPE_BUFFERS: usize = 10;

    /// One workgroup for each block of heads, block of rows and part of the positions.
    pub fn kernel(self) -> Kernel {
        self.ends(self.sized("attention", Self::WORKGROUP).u32("ROWS", self.rows))
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
        self.sized("attention_matrix", workgroup)
            .u32("ROWS", self.rows)
            .needs(Needs { subgroups: true, f16: true, matrices: true })
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

    /// The constants and structs of all of these.
    fn sized(self, file: &str, workgroup: usize) -> Parts {
        Parts::new(file)
            .u32("HEAD", self.head_dim)
            .u32("PAD", self.head_dim.next_multiple_of(crate::HEAD_PAD))
            .u32("HEADS", self.heads)
            .u32("WORKGROUP", workgroup)
            .definition(Attend::WGSL)
            .definition(Pass::WGSL)
            .definition(Row::WGSL)
    }

    /// The same for subgroups of which `lanes` invocations lie along a key, in workgroups of eight keys.
    fn along(self, file: &str, lanes: usize) -> Parts {
        self.sized(file, 8 * lanes)
            .needs(Needs { subgroups: true, ..Needs::default() })
            .u32("LANES", lanes)
    }

    /// Binds queries, cache and results.
    fn ends(self, parts: Parts) -> Parts {
        parts
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
    kept(parts, int8)
        .snippet("", include_str!("../wgsl/merge_parts.wgsl"))
        .kernel(include_str!("../wgsl/merge.wgsl"))
}
