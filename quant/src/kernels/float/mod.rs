//! Plain float weights (F32, F16, BF16) times f32 activations, for every instruction set that
//! implements [`FloatIsa`].
//!
//! [`dot`]: a few tokens; rows are multiplied as they lie in the file, read from memory once.
//! [`panel`]: more; strips of rows are decoded and transposed, and tiles of rows × tokens kept in
//! registers. Both add up in f32, in different orders.
//! [`decoded`]: block formats without int8 kernels, by way of the other two.

use super::panel::Shape;
use super::{Job, Scratch};
use crate::DType;

mod decoded;
mod dot;
mod panel;
mod transpose;

pub(super) use transpose::{plain, transpose};

/// The f32 activations themselves: a layout that no format with scales has.
const PLAIN: Shape = Shape { group: 1, offset: 0, mins: false };
/// f32 made of the int8 activations.
const DECODED: Shape = Shape { group: 1, offset: 1, mins: false };

/// Tokens up to which rows are multiplied as they lie in the file. Above, transposing a strip has
/// paid for itself.
const FEW: usize = 4;

/// f32 vectors of one instruction set. Implemented by its token, so that whoever has a value may
/// compute with it.
///
/// Everything is inlined into one `#[target_feature]` function for each instruction set: without
/// that each operation would be a call. Closures are not inlined in time, hence there are none.
pub(super) trait FloatIsa: Copy {
    /// A vector.
    type V: Copy;
    /// Its length.
    const WIDTH: usize;
    /// Most tokens of a tile of two vectors of rows: as many as leave a few registers free.
    const TOKENS: usize;

    fn zero(self) -> Self::V;
    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;
    /// `a · b + c`, fused.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all lanes.
    fn sum(self, a: Self::V) -> f32;

    /// Loads `WIDTH` f32.
    ///
    /// # Safety
    /// They must be readable; they need not be aligned. Likewise the two below.
    unsafe fn load_f32(self, at: *const u8) -> Self::V;
    /// Loads `WIDTH` f16.
    ///
    /// # Safety
    /// See [`FloatIsa::load_f32`].
    unsafe fn load_f16(self, at: *const u8) -> Self::V;
    /// Loads `WIDTH` bf16.
    ///
    /// # Safety
    /// See [`FloatIsa::load_f32`].
    unsafe fn load_bf16(self, at: *const u8) -> Self::V;
    /// Stores `WIDTH` f32.
    ///
    /// # Safety
    /// They must be writable.
    unsafe fn store(self, v: Self::V, at: *mut f32);

    /// Loads `WIDTH` weights from each of the `WIDTH` places of `rows`, `offset` bytes on, and
    /// stores the transpose: vector `k`, the weights `k` of all rows, at `out + k · stride`.
    ///
    /// # Safety
    /// The weights must be readable and the vectors writable; `rows` must be `WIDTH` long.
    unsafe fn transpose<W: Weight>(
        self,
        rows: &[*const u8],
        offset: usize,
        out: *mut f32,
        stride: usize,
    );
}

/// A float type as it lies in the file.
pub(super) trait Weight {
    /// Bytes of one.
    const BYTES: usize;

    /// Loads `I::WIDTH` of them.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load<I: FloatIsa>(isa: I, at: *const u8) -> I::V;
}

macro_rules! weight {
    ($name:ident, $bytes:literal, $load:ident) => {
        struct $name;

        impl Weight for $name {
            const BYTES: usize = $bytes;

            #[inline(always)]
            unsafe fn load<I: FloatIsa>(isa: I, at: *const u8) -> I::V {
                // SAFETY: the caller's promise is passed on.
                unsafe { isa.$load(at) }
            }
        }
    };
}

weight!(F32, 4, load_f32);
weight!(F16, 2, load_f16);
weight!(BF16, 2, load_bf16);

/// Multiplies with weights of a float type, or with those of any other, decoded.
#[inline(always)]
pub(super) fn matmul<I: FloatIsa>(isa: I, job: Job<'_>, scratch: &mut Scratch) {
    match job.w.dtype() {
        DType::F32 => matmul_of::<I, F32>(isa, job, scratch, PLAIN),
        DType::F16 => matmul_of::<I, F16>(isa, job, scratch, PLAIN),
        DType::BF16 => matmul_of::<I, BF16>(isa, job, scratch, PLAIN),
        _ => decoded::matmul(isa, job, scratch),
    }
}

/// `acts` says which activations these are, for what is kept of them.
#[inline(always)]
fn matmul_of<I: FloatIsa, W: Weight>(isa: I, job: Job<'_>, scratch: &mut Scratch, acts: Shape) {
    if job.x.n <= FEW {
        dot::matmul::<I, W>(isa, job, scratch, acts);
    } else {
        panel::matmul::<I, W>(isa, job, scratch);
    }
}
