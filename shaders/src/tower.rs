//! What a vision tower needs beside matmuls and attention.

use crate::compose::{Access, Kernel, Parts};
use crate::params::Rows;
use crate::reduce::Reduce;
use Access::{Read, Uniform, Write};

/// LayerNorm of rows: one workgroup a row.
pub fn layer_norm() -> Kernel {
    let parts = Parts::new("layer_norm")
        .definition(Rows::WGSL)
        .bind("p", Uniform, "Rows")
        .bind("x", Read, "array<f32>")
        .bind("weight", Read, "array<f32>")
        .bind("bias", Read, "array<f32>")
        .bind("h", Write, "array<f32>");
    Reduce::Workgroup.total(parts).kernel(include_str!("../wgsl/layer_norm.wgsl"))
}

/// What becomes of a product y.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// y += bias
    Set,
    /// y = GELU(y + bias)
    Gelu,
    /// x += y + bias
    Add,
}

impl Finish {
    /// Every one.
    pub const ALL: [Finish; 3] = [Finish::Set, Finish::Gelu, Finish::Add];

    /// One workgroup a row.
    pub fn kernel(self) -> Kernel {
        let parts = Parts::new("finish").definition(Rows::WGSL).bind("p", Uniform, "Rows").bind(
            "bias",
            Read,
            "array<f32>",
        );
        let (parts, name, text) = match self {
            Finish::Set => (
                parts.bind("y", Write, "array<f32>"),
                "set",
                include_str!("../wgsl/finish_set.wgsl"),
            ),
            Finish::Gelu => (
                parts.bind("y", Write, "array<f32>").snippet("", include_str!("../wgsl/math.wgsl")),
                "gelu",
                include_str!("../wgsl/finish_gelu.wgsl"),
            ),
            Finish::Add => (
                parts.bind("y", Read, "array<f32>").bind("x", Write, "array<f32>"),
                "add",
                include_str!("../wgsl/finish_add.wgsl"),
            ),
        };
        parts.snippet(name, text).kernel(include_str!("../wgsl/finish.wgsl"))
    }
}
