//! `y = x · Wᵀ`: for few rows of x and for many, and the ways of multiplying.

use crate::compose::{Access, Kernel, Needs, Parts};
use crate::format::Format;
use crate::kernels::{INT8, MATH, weights};
use crate::params::{Mat, Pass};
use crate::reduce::Reduce;
use Access::{Read, Uniform, Write};

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

/// The form that rows of x are brought into before they are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prepare {
    /// Blocks of 32 signed bytes, 16 in a piece; beside them an f32 scale and the sum of the bytes,
    /// one pair a block.
    Int8,
    /// Half precision, four in a piece; beside them a power of two a row, by which it was divided
    /// so that the largest value lies between 1 and 2.
    Half,
}

impl Prepare {
    /// Invocations of a workgroup.
    const WORKGROUP: usize = 64;

    /// Bytes of `cols` values, a multiple of 32.
    pub fn bytes(self, cols: usize) -> usize {
        match self {
            Prepare::Int8 => cols,
            Prepare::Half => 2 * cols,
        }
    }

    /// Bytes of the scales of a row of `cols` values.
    pub fn scale_bytes(self, cols: usize) -> usize {
        match self {
            Prepare::Int8 => cols / 32 * 8,
            Prepare::Half => 4,
        }
    }

    /// Workgroups for `n` rows of `cols` values.
    pub fn grid(self, n: usize, cols: usize) -> [usize; 3] {
        match self {
            Prepare::Int8 => [(cols / 32).div_ceil(Self::WORKGROUP), n, 1],
            Prepare::Half => [n, 1, 1],
        }
    }

    /// Row t of x to row t of `values` and `scales`, for rows from `batch.first` on.
    pub fn kernel(self) -> Kernel {
        let (name, values, scales, text) = match self {
            Prepare::Int8 => (
                "prepare_int8",
                "array<vec4<u32>>",
                "array<vec2<f32>>",
                include_str!("../wgsl/prepare_int8.wgsl"),
            ),
            Prepare::Half => (
                "prepare_half",
                "array<vec4<f16>>",
                "array<f32>",
                include_str!("../wgsl/prepare_half.wgsl"),
            ),
        };
        let parts = match self {
            Prepare::Int8 => Parts::new(name).snippet("", INT8),
            Prepare::Half => Parts::new(name).needs(Needs { f16: true, ..Needs::default() }),
        };
        parts
            .u32("WORKGROUP", Self::WORKGROUP)
            .definition(Mat::WGSL)
            .definition(Pass::WGSL)
            .bind("p", Uniform, "Mat")
            .bind("batch", Uniform, "Pass")
            .bind("x", Read, "array<vec4<f32>>")
            .bind("values", Write, values)
            .bind("scales", Write, scales)
            .kernel(text)
    }
}

/// The ways of multiplying many rows of x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Many {
    /// Weights and x in f32.
    Float,
    /// Both in bytes, four products at a time (`dot4I8Packed`): for Q4_0 and Q8_0.
    Int8,
    /// Both in f16 in workgroup memory, added up in f32.
    Half,
    /// As [`Many::Half`], multiplied by cooperative matrices (f16 · f16 -> f32).
    Matrix {
        /// Rows, columns and depth of a matrix: 8 or 16.
        size: usize,
        /// Invocations of a workgroup: four subgroups, where they are as large as they may be.
        workgroup: usize,
    },
}

impl Many {
    /// What x has to be brought into.
    pub fn prepare(self) -> Option<Prepare> {
        match self {
            Many::Float => None,
            Many::Int8 => Some(Prepare::Int8),
            Many::Half | Many::Matrix { .. } => Some(Prepare::Half),
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
    /// Invocations of a workgroup of [`Matmul::many`].
    const MANY_WORKGROUP: usize = 128;
    /// Rows of weights that a group of lanes works on at once.
    const ROWS: usize = 4;
    /// Features and rows of `x` in a tile of [`Matmul::many`].
    pub const TILE: usize = 64;
    /// Rows of `x` that [`Matmul::few`] takes at most.
    pub const FEW: usize = 8;

    /// For up to `tokens` rows of `x` (1, 2, 4 or 8): weights are read once, coalesced, `lanes`
    /// invocations side by side along a row.
    pub fn few(self, tokens: usize, lanes: usize, reduce: Reduce) -> Kernel {
        let parts = self.ends(Self::few_parts("matvec", tokens, lanes), None);
        reduce.groups(parts).kernel(include_str!("../wgsl/matvec.wgsl"))
    }

    /// As [`Matmul::few`], from x in bytes: for the formats of [`Format::scaled`].
    pub fn few_int8(self, tokens: usize, lanes: usize, reduce: Reduce) -> Kernel {
        let parts = Self::few_parts("matvec_int8", tokens, lanes);
        let parts = self.ends(parts, Some(Prepare::Int8)).snippet("", self.format.bytes());
        reduce.groups(parts).kernel(include_str!("../wgsl/matvec_int8.wgsl"))
    }

    fn few_parts(file: &str, tokens: usize, lanes: usize) -> Parts {
        Parts::new(file)
            .u32("WORKGROUP", Self::FEW_WORKGROUP)
            .u32("LANES", lanes)
            .u32("ROWS", Self::ROWS)
            .u32("TOKENS", tokens)
    }

    /// For many rows of `x`: tiles in workgroup memory.
    pub fn many(self, many: Many) -> Kernel {
        let float = |file| Parts::new(file).u32("WORKGROUP", Self::MANY_WORKGROUP);
        let f16 = Needs { f16: true, ..Needs::default() };
        match many {
            Many::Float => {
                self.ends(float("matmul"), None).kernel(include_str!("../wgsl/matmul.wgsl"))
            }
            Many::Int8 => self
                .ends(float("matmul_int8"), many.prepare())
                .snippet("", self.format.bytes())
                .kernel(include_str!("../wgsl/matmul_int8.wgsl")),
            Many::Half => self
                .ends(float("matmul_half").needs(f16), many.prepare())
                .kernel(include_str!("../wgsl/matmul_half.wgsl")),
            Many::Matrix { size, workgroup } => {
                let matrix = match size {
                    8 => ("", include_str!("../wgsl/matrix_8.wgsl")),
                    _ => ("", include_str!("../wgsl/matrix_16.wgsl")),
                };
                let parts = Parts::new("matmul_matrix")
                    .needs(Needs { subgroups: true, f16: true, matrices: true })
                    .u32("WORKGROUP", workgroup)
                    .u32("SIZE", size);
                self.ends(parts, many.prepare())
                    .snippet(matrix.0, matrix.1)
                    .kernel(include_str!("../wgsl/matmul_matrix.wgsl"))
            }
        }
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

    /// Binds x, in the form that it was prepared in, y and the weights.
    fn ends(self, parts: Parts, prepared: Option<Prepare>) -> Parts {
        let (name, output) = self.output.wgsl();
        let parts = parts
            .definition(Mat::WGSL)
            .definition(Pass::WGSL)
            .bind("p", Uniform, "Mat")
            .bind("batch", Uniform, "Pass");
        let parts = match prepared {
            None => parts.bind("x", Read, "array<vec4<f32>>"),
            Some(Prepare::Int8) => {
                parts.bind("x", Read, "array<vec4<u32>>").bind("x_scales", Read, "array<vec2<f32>>")
            }
            Some(Prepare::Half) => {
                parts.bind("x", Read, "array<vec4<f16>>").bind("x_scales", Read, "array<f32>")
            }
        };
        let parts = parts.bind("y", Write, "array<f32>");
        weights(parts, self.format).snippet("", MATH).snippet(name, output)
    }
}
