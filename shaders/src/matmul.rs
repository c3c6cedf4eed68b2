//! `y = x · Wᵀ`: for few rows of x and for many, and the ways of multiplying.

use crate::compose::{Access, Kernel, Needs, Parts};
use crate::format::Format;
use crate::kernels::{BETTER, INT8, MATH, weights};
use crate::params::{Mat, Norm, Pass};
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
    /// Both in bytes, four products at a time (`dot4I8Packed`): for Q4_0 and Q8_0, few rows also for the K types.
    Int8,
    /// Both in f16 in workgroup memory, added up in f32.
    Half,
    /// As [`Many::Half`], multiplied by cooperative matrices (f16 · f16 -> f32).
    Matrix {
        /// Rows, columns and depth of a matrix: 8 or 16.
        size: usize,
        /// Invocations of a workgroup: four subgroups, where they are as large as they may be.
        workgroup: usize,
        /// Features and rows of x in a tile.
        tile: (usize, usize),
    },
}

impl Many {
    /// Features and rows of x in a workgroup's tile.
    pub fn tile(self) -> (usize, usize) {
        match self {
            Many::Matrix { tile, .. } => tile,
            _ => (Matmul::TILE, Matmul::TILE),
        }
    }

    /// What x has to be brought into.
    pub fn prepare(self) -> Option<Prepare> {
        match self {
            Many::Float => None,
            Many::Int8 => Some(Prepare::Int8),
            Many::Half | Many::Matrix { .. } => Some(Prepare::Half),
        }
    }
}

const DOT16: &str = include_str!("../wgsl/dot16.wgsl");

/// What multiplies pieces of `format` by bytes.
pub(crate) fn products(parts: Parts, format: Format) -> Parts {
    parts.snippet("", DOT16).snippet("", format.products())
}

/// The same, and what takes scales into account.
fn scaled_products(parts: Parts, format: Format) -> Parts {
    products(parts, format).snippet("", format.product())
}

const CONCLUDE_NOTHING: &str = include_str!("../wgsl/conclude_nothing.wgsl");
const SHARE_OUT: &str = include_str!("../wgsl/share_out.wgsl");

/// How a kernel for few rows of x shares the work out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Few {
    /// Rows of x, at most: 1, 2, 4 or 8.
    pub tokens: usize,
    /// 16-byte pieces in a row of weights.
    pub pieces: usize,
    /// Invocations side by side along a row of weights.
    pub lanes: usize,
    /// Rows of weights that these work on at once, an even number.
    pub rows: usize,
    /// Invocations of a workgroup.
    pub workgroup: usize,
    /// Pieces that an invocation asks for at once, of all its rows together and at most: as many as there are
    /// registers for.
    pub at_once: usize,
}

impl Few {
    /// [`Few::at_once`] where an invocation has 255 registers: a piece takes four.
    pub const AT_ONCE: usize = 20;
    /// The same where it has 128.
    pub const AT_ONCE_OF_FEW: usize = 10;

    /// For a matrix of `rows` rows of `pieces` pieces. A fast GPU must have megabytes asked for to be
    /// busy, which small matrices have only where every invocation asks for all of its pieces at
    /// once: so there are many invocations with few pieces each.
    pub fn new(tokens: usize, rows: usize, pieces: usize) -> Self {
        /// Pieces that an invocation should have of a row, at most.
        const MOST: usize = 10;
        let idle = |lanes: usize| pieces.next_multiple_of(lanes) - pieces;
        let lanes = [32, 16, 8]
            .into_iter()
            .filter(|lanes| *lanes == 32 || pieces.div_ceil(*lanes) <= MOST)
            .min_by_key(|lanes| idle(*lanes) * 8 / pieces.max(1))
            .unwrap_or(32);
        // So many rows that there are enough to do for all workgroups.
        let many = if rows >= 1 << 15 { 4 } else { 2 };
        Few { tokens, pieces, lanes, rows: many, workgroup: 64, at_once: Self::AT_ONCE }
    }

    /// For [`Matmul::one_to_int8`]: 64 rows in a workgroup of 256.
    pub fn blocks(pieces: usize) -> Self {
        let lanes = Few::new(1, 1, pieces).lanes.min(16);
        Few { rows: lanes / 4, lanes, workgroup: 256, ..Few::new(1, 1, pieces) }
    }

    /// For [`Matmul::one_normed`] with results in f32: workgroups as large as leaves enough of them,
    /// since each makes the norm for itself.
    pub fn normed(rows: usize, pieces: usize) -> Self {
        /// Workgroups that keep a large GPU busy.
        const ENOUGH: usize = 96;
        let few = Few { rows: 2, ..Few::new(1, rows, pieces) };
        let sizes = [256, 128, 64].map(|workgroup| Few { workgroup, ..few });
        let enough = |few: &Few| rows.div_ceil(few.workgroup_rows()) >= ENOUGH;
        sizes.into_iter().find(enough).unwrap_or(sizes[2])
    }

    /// For [`Matmul::one_best`]: workgroups so large that they leave little.
    pub fn best(rows: usize, pieces: usize) -> Self {
        Few { workgroup: 128, ..Few::new(1, rows, pieces) }
    }

    /// Bytes of workgroup memory of [`Matmul::one_normed`], for weights that lie in `format`.
    pub fn normed_bytes(self, format: Format) -> usize {
        let cols = self.pieces * format.piece();
        let exchange = (cols / 4).next_multiple_of(self.workgroup) + 2 * self.workgroup;
        cols + cols / 4 + 4 * (exchange + self.workgroup * self.rows) + 1024
    }

    /// Rows of weights of one workgroup.
    pub fn workgroup_rows(self) -> usize {
        self.workgroup / self.lanes * self.rows
    }

    /// Pieces of a row that an invocation asks for at once: such that the last time is full as well.
    /// Half as many where each of them is `much` work: a driver that does not unroll a loop of so much keeps
    /// all of them in memory (Mesa's for AMD does).
    fn batch(self, much: bool) -> usize {
        let steps = self.pieces.div_ceil(self.lanes);
        let is_much = much || self.tokens == Matmul::FEW;
        let loads = if is_much { self.at_once.min(Self::AT_ONCE_OF_FEW) } else { self.at_once };
        let most = (loads / self.rows).max(1);
        (1..=most).rev().min_by_key(|b| steps.next_multiple_of(*b) - steps).unwrap_or(1)
    }

    fn parts(self, file: &str, much: bool) -> Parts {
        Parts::new(file)
            .u32("WORKGROUP", self.workgroup)
            .u32("LANES", self.lanes)
            .u32("ROWS", self.rows)
            .u32("BATCH", self.batch(much))
            .u32("PIECES", self.pieces)
            .u32("TOKENS", self.tokens)
    }

    fn end(self, parts: Parts, reduce: Reduce) -> Parts {
        reduce.groups(parts.snippet("", SHARE_OUT).snippet("", CONCLUDE_NOTHING))
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
    /// Invocations of a workgroup of [`Matmul::many`].
    const MANY_WORKGROUP: usize = 128;
    /// Features and rows of `x` in a tile of [`Matmul::many`].
    pub const TILE: usize = 64;
    /// Rows of `x` that [`Matmul::few`] takes at most.
    pub const FEW: usize = 8;

    /// For few rows of `x`: weights are read once, coalesced.
    pub fn few(self, few: Few, reduce: Reduce) -> Kernel {
        // Blocks are decoded to floats.
        let parts = self.ends(few.parts("matvec", self.format.scaled()), None);
        few.end(parts, reduce).kernel(include_str!("../wgsl/matvec.wgsl"))
    }

    /// As [`Matmul::few`], from x in bytes: for the formats of [`Format::scaled`].
    pub fn few_int8(self, few: Few, reduce: Reduce) -> Kernel {
        let parts = few.parts("matvec_int8", false);
        let parts = scaled_products(self.ends(parts, Some(Prepare::Int8)), self.format);
        few.end(parts, reduce).kernel(include_str!("../wgsl/matvec_int8.wgsl"))
    }

    /// For one row of x, in bytes with `int8`: of the results of each workgroup only the largest is left, with
    /// its row.
    pub fn one_best(self, few: Few, int8: bool, reduce: Reduce) -> Kernel {
        let (name, text) = match int8 {
            true => ("matvec_int8", include_str!("../wgsl/matvec_int8.wgsl")),
            false => ("matvec", include_str!("../wgsl/matvec.wgsl")),
        };
        let parts = few.parts(name, !int8 && self.format.scaled());
        let parts =
            Self::x(parts, int8.then_some(Prepare::Int8)).bind("best", Write, "array<vec2<u32>>");
        let parts = weights(parts, self.format).snippet("", MATH).snippet("", BETTER);
        let parts = if int8 { scaled_products(parts, self.format) } else { parts };
        let parts = match self.output {
            Output::Softcap => parts.snippet("capped", "const CAPPED = true;\n"),
            _ => parts.snippet("not_capped", "const CAPPED = false;\n"),
        };
        let parts = parts.snippet("best", include_str!("../wgsl/output_best.wgsl"));
        reduce.groups(parts.snippet("", SHARE_OUT)).kernel(text)
    }

    /// As [`Matmul::few_int8`] for one row of x and [`Output::Glu`], whose results are left in bytes:
    /// `few` is [`Few::blocks`].
    pub fn one_to_int8(self, few: Few, reduce: Reduce) -> Kernel {
        let parts = few
            .parts("matvec_int8", false)
            .definition(Mat::WGSL)
            .definition(Pass::WGSL)
            .bind("p", Uniform, "Mat")
            .bind("batch", Uniform, "Pass")
            .bind("x", Read, "array<vec4<u32>>")
            .bind("x_scales", Read, "array<vec2<f32>>");
        let parts = self.one_output(parts, true).snippet("", SHARE_OUT);
        reduce.groups(parts).kernel(include_str!("../wgsl/matvec_int8.wgsl"))
    }

    /// For one row of x in f32, with what [`norm`](crate::norm) does before it: with `residual`, x +
    /// RMSNorm(o) · post is made first. The new x is left beside the results, which are left in bytes
    /// with `to_int8`. For devices with subgroups.
    pub fn one_normed(self, few: Few, residual: bool, to_int8: bool) -> Kernel {
        let parts = few
            .parts("matvec_normed", false)
            .definition(Mat::WGSL)
            .definition(Pass::WGSL)
            .definition(Norm::WGSL)
            .bind("p", Uniform, "Mat")
            .bind("batch", Uniform, "Pass")
            .bind("n", Uniform, "Norm")
            .bind("x", Read, "array<vec4<f32>>");
        let parts = match residual {
            true => parts
                .bind("o", Read, "array<vec4<f32>>")
                .bind("post", Read, "array<vec4<f32>>")
                .snippet("residual", include_str!("../wgsl/normed_residual.wgsl")),
            false => parts.snippet("alone", include_str!("../wgsl/normed_alone.wgsl")),
        };
        let parts =
            parts.bind("weight", Read, "array<vec4<f32>>").bind("x_out", Write, "array<vec4<f32>>");
        let parts = self
            .one_output(parts, to_int8)
            .snippet("", SHARE_OUT)
            .snippet("", include_str!("../wgsl/eight.wgsl"));
        Reduce::Subgroup.groups(parts).kernel(include_str!("../wgsl/matvec_normed.wgsl"))
    }

    /// Storage buffers that [`Matmul::one_normed`] binds at most.
    pub const NORMED_BUFFERS: usize = 9;

    /// Binds where one row's results go, in bytes or as they are, and the weights.
    fn one_output(self, parts: Parts, to_int8: bool) -> Parts {
        let parts = match to_int8 {
            true => parts.bind("y_values", Write, "array<u32>").bind(
                "y_scales",
                Write,
                "array<vec2<f32>>",
            ),
            false => parts.bind("y", Write, "array<f32>"),
        };
        let parts = scaled_products(weights(parts, self.format).snippet("", MATH), self.format);
        if to_int8 {
            return parts.snippet("glu_int8", include_str!("../wgsl/output_glu_int8.wgsl"));
        }
        let (name, output) = self.output.wgsl();
        parts.snippet(name, output).snippet("", CONCLUDE_NOTHING)
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
                .snippet("", DOT16)
                .snippet("", self.format.bytes())
                .kernel(include_str!("../wgsl/matmul_int8.wgsl")),
            Many::Half => self
                .ends(float("matmul_half").needs(f16), many.prepare())
                .kernel(include_str!("../wgsl/matmul_half.wgsl")),
            Many::Matrix { size, workgroup, tile } => {
                let parts = Parts::new("matmul_matrix")
                    .needs(Needs { subgroups: true, f16: true, matrices: true })
                    .u32("WORKGROUP", workgroup)
                    .u32("SIZE", size);
                if size == 8 {
                    return self
                        .ends(parts, many.prepare())
                        .snippet("", include_str!("../wgsl/matrix_8.wgsl"))
                        .repeated(
                            include_str!("../wgsl/matmul_matrix.wgsl"),
                            &[("a", 4), ("b", 4)],
                        );
                }
                let parts = parts.u32("TILE_F", tile.0).u32("TILE_T", tile.1);
                self.ends(parts, many.prepare())
                    .snippet("", include_str!("../wgsl/matrix_16.wgsl"))
                    .snippet("", self.format.half())
                    .repeated(
                        include_str!("../wgsl/matmul_matrix_16.wgsl"),
                        &[("f", tile.0 / 32), ("t", tile.1 / 32)],
                    )
            }
        }
    }

    /// Binds x, in the form that it was prepared in, y and the weights.
    fn ends(self, parts: Parts, prepared: Option<Prepare>) -> Parts {
        let (name, output) = self.output.wgsl();
        let parts = Self::x(parts, prepared).bind("y", Write, "array<f32>");
        weights(parts, self.format).snippet("", MATH).snippet(name, output)
    }

    /// Binds x, in the form that it was prepared in.
    fn x(parts: Parts, prepared: Option<Prepare>) -> Parts {
        let parts = parts
            .definition(Mat::WGSL)
            .definition(Pass::WGSL)
            .bind("p", Uniform, "Mat")
            .bind("batch", Uniform, "Pass");
        match prepared {
            None => parts.bind("x", Read, "array<vec4<f32>>"),
            Some(Prepare::Int8) => {
                parts.bind("x", Read, "array<vec4<u32>>").bind("x_scales", Read, "array<vec2<f32>>")
            }
            Some(Prepare::Half) => {
                parts.bind("x", Read, "array<vec4<f16>>").bind("x_scales", Read, "array<f32>")
            }
        }
    }
}
