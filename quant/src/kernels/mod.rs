//! The one seam through which weights are multiplied: `y = x · Wᵀ` for any [`DType`], on whatever
//! this CPU offers.
//!
//! Float weights take f32 activations; block formats take activations quantized to int8 blocks of
//! 32 with an f32 scale and the integer sum of each block, so that the unsigned nibbles of the file
//! can be multiplied as they are and the offset becomes one correction a block.
//!
//! # Where things are
//!
//! [`Kernels`] checks shapes, then hands a checked `Job` to the first instruction set, from the
//! chosen one downwards, that has a kernel for the format: `scalar` has one for each. Every
//! instruction set is a folder (or file) of its own, named in the two `match`es at the end of this
//! file and nowhere else; each is an `impl` on its token (see [`isa`](Isa)) with three functions:
//!
//! ```ignore
//! fn quantize(self, x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]);
//! fn handles(self, dtype: DType) -> bool;
//! fn matmul(self, job: Job<'_>, scratch: &mut Scratch);   // only when it handles job.w.dtype()
//! ```
//!
//! To add a format to an instruction set, write its kernels in a file beside the others and name it
//! in that set's `handles` and `matmul`. The tests in `tests/kernels.rs` run every set of this CPU
//! against scalar for every [`DType`], so that they find the new one by themselves.

use std::ops::Range;

use crate::codec::QK;
use crate::{DType, Matrix};

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod bytes;
#[cfg(target_arch = "x86_64")]
mod cache;
pub mod ceiling;
pub mod fixed;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod float;
mod isa;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod operand;
mod packing;
// Not every architecture lays its activations out like the tiles of x86, nor asks for as much ahead.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
mod panel;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
mod prefetch;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod sixteens;
#[cfg(target_arch = "x86_64")]
mod streams;
#[cfg(target_arch = "x86_64")]
mod sweep;

use isa::Active;
pub use isa::*;
pub use packing::*;
use panel::{Lines, Pack};

/// What kind of activations the kernels of a type read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// `Rows::x`.
    F32,
    /// `Rows::q`, `Rows::scale` and `Rows::sum`.
    Q8,
}

impl Input {
    /// What weights of this type are multiplied with.
    pub fn of(dtype: DType) -> Input {
        if dtype.is_float() { Input::F32 } else { Input::Q8 }
    }
}

/// A batch of activation rows, borrowed, row-major and contiguous. Either `x` or the next three
/// may be empty when no kernel that needs them is called; the next three also where `packed` takes their
/// place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rows<'a> {
    /// Number of rows (tokens).
    pub n: usize,
    /// Features a row.
    pub cols: usize,
    /// `[n, cols]` f32.
    pub x: &'a [f32],
    /// `[n, cols]` int8.
    pub q: &'a [i8],
    /// `[n, cols / 32]`: value = `q` · `scale`.
    pub scale: &'a [f32],
    /// `[n, cols / 32]`: sum of the block's `q`.
    pub sum: &'a [i32],
    /// The same three, laid out as [`Kernels::packing`] says. Where a kernel wants it otherwise, it reads
    /// the three.
    pub packed: Option<Packed<'a>>,
}

/// Scratch memory of one thread: unpacked weight strips, prepared activations. Grows to what is
/// needed and stays.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A decoded row or strip.
    pub(crate) f32s: Vec<f32>,
    /// Activations, laid out as a kernel reads them.
    pack: Pack,
    /// A strip of weights, unpacked.
    panel: Lines,
    /// The last rows, where they do not make a strip.
    #[cfg(target_arch = "x86_64")]
    spare: Lines,
    /// See [`Scratch::set_coming`].
    coming: usize,
}

impl Scratch {
    /// Says which activations the next calls are made with: as long as the number stays the same,
    /// so do the activations, and what a kernel lays out of them is laid out once. 0, as in the
    /// beginning, promises nothing.
    pub fn set_input(&mut self, input: u64) {
        self.pack.set_input(input);
    }

    /// Says that the caller is likely to go on with as many rows of the same matrix after those of a call, so that they
    /// may be asked for at its end. 0 in the beginning; stays until it is set again.
    pub fn set_coming(&mut self, rows: usize) {
        self.coming = rows;
    }

    /// The rows of a matrix of `of` rows that are worth asking for in a call for the rows up to `end`: those before the
    /// one that this gives.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    fn wanted(&self, end: usize, of: usize) -> usize {
        end.saturating_add(self.coming).min(of)
    }
}

/// A checked call of [`Kernels::matmul`], what the kernels rely on when they use raw pointers:
/// `rows` lies within `w`, `x.cols == w.cols()`, the slices of `x` that the format reads are exactly
/// as long as `x.n` and `x.cols` say (or there is `x.packed`, as the kernel wants it), neither is empty, `ld ≥ rows.len()` and
/// `y.len() ≥ (x.n - 1) · ld + rows.len()`.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    w: Matrix<'a>,
    rows: Range<usize>,
    x: Rows<'a>,
    y: &'a mut [f32],
    ld: usize,
}

impl<'a> Job<'a> {
    /// `None` when there is nothing to compute. `packing` is what the kernel reads, if it does.
    fn check(
        w: Matrix<'a>,
        rows: Range<usize>,
        mut x: Rows<'a>,
        y: &'a mut [f32],
        ld: usize,
        packing: Option<Packing>,
    ) -> Option<Self> {
        assert!(rows.start <= rows.end && rows.end <= w.rows() && x.cols == w.cols());
        if x.n == 0 || rows.is_empty() {
            return None;
        }
        assert!(ld >= rows.len());
        let end = (x.n - 1).checked_mul(ld).and_then(|y0| y0.checked_add(rows.len()));
        assert!(end.is_some_and(|end| end <= y.len()));
        let elems = x.n.checked_mul(x.cols).expect("activations that fit memory");
        x.packed = x.packed.filter(|p| Some(p.packing) == packing);
        match Input::of(w.dtype()) {
            _ if x.packed.is_some() => {
                assert!(x.packed.is_some_and(|p| p.bytes.len() == p.packing.bytes()));
            }
            Input::F32 => assert!(x.x.len() == elems),
            Input::Q8 => {
                assert!(x.cols.is_multiple_of(QK) && x.q.len() == elems);
                assert!(x.scale.len() == elems / QK && x.sum.len() == elems / QK);
            }
        }
        Some(Job { w, rows, x, y, ld })
    }
}

/// The kernels of one instruction set, chosen at run time.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    active: Active,
}

impl Kernels {
    /// The best that this CPU runs.
    pub fn detect() -> Self {
        Isa::ALL.into_iter().find_map(Kernels::for_isa).expect("scalar is always there")
    }

    /// Those of one instruction set, if this CPU has it.
    pub fn for_isa(isa: Isa) -> Option<Self> {
        Active::new(isa).map(|active| Kernels { active })
    }

    /// Those that the environment variable `LAPIDARY_ISA` names; the best when it is not set.
    pub fn from_env() -> Result<Self, IsaError> {
        match std::env::var_os("LAPIDARY_ISA") {
            None => Ok(Kernels::detect()),
            Some(name) => {
                let name = name.to_string_lossy().into_owned();
                Isa::from_name(&name).and_then(Kernels::for_isa).ok_or(IsaError { name })
            }
        }
    }

    /// The instruction set asked for. Formats it has no kernel for use the next best one.
    pub fn isa(&self) -> Isa {
        self.active.isa()
    }

    /// The instruction set that multiplies weights of this type.
    pub fn isa_for(&self, dtype: DType) -> Isa {
        self.active_for(dtype).isa()
    }

    fn active_for(&self, dtype: DType) -> Active {
        let mut active = self.active;
        while !active.handles(dtype) {
            active = active.next().expect("scalar handles every type");
        }
        active
    }

    /// Quantizes one row of activations in blocks of 32: `scale = max|x| / 127`,
    /// `q = round_ties_even(x / scale)`, `sum = Σ q`. `q` is as long as `x`, the others 1/32 of it.
    /// Every instruction set gives the same bits.
    pub fn quantize(&self, x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
        assert!(x.len().is_multiple_of(QK) && q.len() == x.len());
        assert!(scale.len() == x.len() / QK && sum.len() == scale.len());
        self.active.quantize(x, q, scale, sum);
    }

    /// `y[t * ld + i] = Σ_c x[t][c] · W[rows.start + i][c]` for every `t < x.n`, `i < rows.len()`.
    ///
    /// # Panics
    /// When the shapes do not fit each other.
    pub fn matmul(
        &self,
        w: Matrix<'_>,
        rows: Range<usize>,
        x: Rows<'_>,
        y: &mut [f32],
        ld: usize,
        scratch: &mut Scratch,
    ) {
        let packing = self.packing(w.dtype(), x.n, x.cols);
        if let Some(job) = Job::check(w, rows, x, y, ld, packing) {
            self.active_for(w.dtype()).matmul(job, scratch);
        }
    }

    /// `to[j][i] = from[i][j]`: rows of `width` floats become columns of rows of `height`, which may be
    /// more than there are; the rest of each stays as it is.
    ///
    /// # Panics
    /// When `from` is not whole rows, `to` not `width · height` floats, or there are more rows than that.
    pub fn transpose(&self, from: &[f32], width: usize, to: &mut [f32], height: usize) {
        assert!(from.len().is_multiple_of(width) && from.len() <= width * height);
        assert!(to.len() == width * height);
        self.active.transpose(from, width, to, height);
    }
}

/// Asks for memory that will be read soon, into the second-level cache. Nothing is read.
pub fn ask_for(bytes: &[u8]) {
    prefetch::prefetch_slice_l2(bytes);
}

/// As [`ask_for`], for one line.
#[inline(always)]
pub fn ask_for_line(p: *const u8) {
    prefetch::prefetch_l2(p);
}

/// Asks for memory that will be written soon: what another core has in its caches takes as long to get as
/// memory, and stores wait for it one after the other. Nothing is read or written.
#[inline]
pub fn ask_to_write<T>(to: &[T]) {
    prefetch::prefetch_slice_write(to);
}

/// `LAPIDARY_ISA` names no instruction set of this CPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this CPU has no {name:?} kernels; it has {}",
    Isa::available().iter().map(|i| i.name()).collect::<Vec<_>>().join(", "))]
pub struct IsaError {
    /// What was asked for.
    pub name: String,
}

/// The one place where an instruction set is turned into its kernels.
impl Active {
    fn quantize(self, x: &[f32], q: &mut [i8], scale: &mut [f32], sum: &mut [i32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Active::AmxBf16(isa) => isa.avx512().quantize(x, q, scale, sum),
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(isa) => isa.quantize(x, q, scale, sum),
            #[cfg(target_arch = "x86_64")]
            Active::AvxVnni(isa) => isa.avx2().quantize(x, q, scale, sum),
            #[cfg(target_arch = "x86_64")]
            Active::Avx2(isa) => isa.quantize(x, q, scale, sum),
            #[cfg(target_arch = "aarch64")]
            Active::NeonI8mm(isa) => isa.dotprod().quantize(x, q, scale, sum),
            #[cfg(target_arch = "aarch64")]
            Active::NeonDotprod(isa) => isa.quantize(x, q, scale, sum),
            Active::Scalar => scalar::quantize(x, q, scale, sum),
        }
    }

    fn transpose(self, from: &[f32], width: usize, to: &mut [f32], height: usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Active::AmxBf16(isa) => isa.avx512().transpose(from, width, to, height),
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(isa) => isa.transpose(from, width, to, height),
            #[cfg(target_arch = "x86_64")]
            Active::AvxVnni(isa) => isa.avx2().transpose(from, width, to, height),
            #[cfg(target_arch = "x86_64")]
            Active::Avx2(isa) => isa.transpose(from, width, to, height),
            #[cfg(target_arch = "aarch64")]
            Active::NeonI8mm(isa) => isa.dotprod().transpose(from, width, to, height),
            #[cfg(target_arch = "aarch64")]
            Active::NeonDotprod(isa) => isa.transpose(from, width, to, height),
            Active::Scalar => float::plain(from, width, to, height, [0; 2]),
        }
    }

    fn handles(self, dtype: DType) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Active::AmxBf16(_) => !dtype.is_float(),
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(isa) => isa.handles(dtype),
            #[cfg(target_arch = "x86_64")]
            Active::AvxVnni(isa) => isa.handles(dtype),
            #[cfg(target_arch = "x86_64")]
            Active::Avx2(isa) => isa.handles(dtype),
            #[cfg(target_arch = "aarch64")]
            Active::NeonI8mm(isa) => isa.handles(dtype),
            #[cfg(target_arch = "aarch64")]
            Active::NeonDotprod(isa) => isa.handles(dtype),
            Active::Scalar => true,
        }
    }

    fn matmul(self, job: Job<'_>, scratch: &mut Scratch) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Active::AmxBf16(isa) => isa.matmul(job, scratch),
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(isa) => isa.matmul(job, scratch),
            #[cfg(target_arch = "x86_64")]
            Active::AvxVnni(isa) => isa.matmul(job, scratch),
            #[cfg(target_arch = "x86_64")]
            Active::Avx2(isa) => isa.matmul(job, scratch),
            #[cfg(target_arch = "aarch64")]
            Active::NeonI8mm(isa) => isa.matmul(job, scratch),
            #[cfg(target_arch = "aarch64")]
            Active::NeonDotprod(isa) => isa.matmul(job, scratch),
            Active::Scalar => scalar::matmul(job, scratch),
        }
    }
}
