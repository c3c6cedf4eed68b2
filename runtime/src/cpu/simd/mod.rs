//! f32 vectors of one instruction set, and code written once over all of them.
//!
//! A computation implements [`Op`] with an `#[inline(always)]` body generic over [`Simd`];
//! [`run`] instantiates it inside a function compiled for the instruction set that [`Kernels`]
//! was made for. The matmul kernels of `quant` are hand-written per ISA; everything around them
//! (norms, RoPE, softmax, attention, GELU) is plain f32 arithmetic and goes through here.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use quant::kernels::{Isa, Kernels};

/// Vectors of [`Simd::LANES`] f32 and what can be done with them.
///
/// A value of the type is the proof that the CPU has the instructions; values are made only inside
/// the functions of this module that are compiled for them.
pub(crate) trait Simd: Copy {
    /// f32 values in a vector. 16, 8 or 4.
    const LANES: usize;
    /// Are there 32 vector registers, so that a tile of 4 × 4 sums stays in them? Otherwise 16.
    const WIDE: bool;
    /// A vector.
    type V: Copy;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `LANES` floats can be read at `p`.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// # Safety
    /// `LANES` floats can be written at `p`.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Reads `LANES` f16 and widens them.
    ///
    /// # Safety
    /// `LANES` u16 can be read at `p`.
    unsafe fn load_f16(self, p: *const u16) -> Self::V;
    /// Narrows to f16 (nearest even) and writes.
    ///
    /// # Safety
    /// `LANES` u16 can be written at `p`.
    unsafe fn store_f16(self, p: *mut u16, v: Self::V);
    /// Reads `LANES` i8 and converts them.
    ///
    /// # Safety
    /// `LANES` bytes can be read at `p`.
    unsafe fn load_i8(self, p: *const i8) -> Self::V;
    /// Rounds `a` and `b`, whose lanes are whole numbers or nearly so in 0..=32767, and writes them
    /// in turns: a₀ b₀ a₁ b₁ …
    ///
    /// # Safety
    /// `2 · LANES` i16 can be written at `p`.
    unsafe fn store_i16_pairs(self, p: *mut i16, a: Self::V, b: Self::V);
    /// Rounds four vectors, whose lanes are whole numbers or nearly so in 0..=255, and writes them in
    /// turns: a₀ b₀ c₀ d₀ a₁ …
    ///
    /// # Safety
    /// `4 · LANES` bytes can be written at `p`.
    unsafe fn store_u8_fours(self, p: *mut u8, v: [Self::V; 4]);
    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `1 / v`, within an ulp or two, of what is between 1e-38 and 1e38.
    #[inline(always)]
    fn reciprocal(self, v: Self::V) -> Self::V {
        self.div(self.splat(1.0), v)
    }
    /// The larger of each lane; `b` where `a` is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of each lane; `b` where `a` is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`, fused where the instruction set fuses.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `v · 2ⁿ` for whole `n` in -126..=127.
    fn scale_by_pow2(self, v: Self::V, n: Self::V) -> Self::V;
    /// Nearest whole number.
    fn round(self, v: Self::V) -> Self::V;
    /// Sum of the lanes.
    fn sum(self, v: Self::V) -> f32;
    /// Largest lane.
    fn max_lane(self, v: Self::V) -> f32;
    /// The sums of four vectors.
    #[inline(always)]
    fn sum4(self, v: [Self::V; 4]) -> [f32; 4] {
        [self.sum(v[0]), self.sum(v[1]), self.sum(v[2]), self.sum(v[3])]
    }

    /// All lanes zero.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }

    /// eˣ, within 2 ulp for -87 ≤ x ≤ 88; smaller x give 0 or nearly so, larger ones saturate.
    ///
    /// Cody-Waite reduction to |r| ≤ ln2 / 2, then a degree-6 polynomial (Cephes `expf`).
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        let x = self.min(self.max(x, self.splat(-87.3)), self.splat(88.3));
        let n = self.round(self.mul(x, self.splat(std::f32::consts::LOG2_E)));
        let r = self.fma(n, self.splat(-0.693_359_4), x);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        let mut p = self.splat(1.987_569_1e-4);
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = self.fma(p, r, self.splat(c));
        }
        let p = self.fma(self.mul(p, r), r, self.add(r, self.splat(1.0)));
        // 2^n in two halves: n = 127.4 rounds to 128 only past the clamp above.
        self.scale_by_pow2(p, n)
    }

    /// 2ˣ, within 2 ulp for -126 ≤ x ≤ 125; others are taken for the nearer of the two.
    ///
    /// 2ⁿ of the nearest whole number, times the Taylor polynomial of degree 6 of what is left.
    #[inline(always)]
    fn exp2(self, x: Self::V) -> Self::V {
        let x = self.min(self.max(x, self.splat(-126.0)), self.splat(125.0));
        let n = self.round(x);
        let r = self.sub(x, n);
        let mut p = self.splat(1.540_353e-4);
        for c in [1.333_356e-3, 9.618_129e-3, 5.550_411e-2, 2.402_265e-1] {
            p = self.fma(p, r, self.splat(c));
        }
        p = self.fma(p, r, self.splat(std::f32::consts::LN_2));
        self.scale_by_pow2(self.fma(p, r, self.splat(1.0)), n)
    }

    /// 2ˣ for x ≤ 0, within 3e-6 of itself; below -126 as there.
    ///
    /// 2ⁿ of the nearest whole number, times the Taylor polynomial of degree 5 of what is left.
    #[inline(always)]
    fn exp2_negative(self, x: Self::V) -> Self::V {
        let x = self.max(x, self.splat(-126.0));
        let n = self.round(x);
        let r = self.sub(x, n);
        let mut p = self.splat(1.333_356e-3);
        for c in [9.618_129e-3, 5.550_411e-2, 2.402_265e-1, std::f32::consts::LN_2, 1.0] {
            p = self.fma(p, r, self.splat(c));
        }
        self.scale_by_pow2(p, n)
    }

    /// As [`exp2_negative`](Self::exp2_negative), within 1e-4 of itself: a minimax polynomial of degree 3.
    #[inline(always)]
    fn exp2_coarse(self, x: Self::V) -> Self::V {
        let x = self.max(x, self.splat(-126.0));
        let n = self.round(x);
        let r = self.sub(x, n);
        let mut p = self.splat(EXP2[0]);
        for c in [EXP2[1], EXP2[2], EXP2[3]] {
            p = self.fma(p, r, self.splat(c));
        }
        self.scale_by_pow2(p, n)
    }

    /// tanh(x) = 1 - 2 / (e²ˣ + 1); absolute error below 2e-7.
    #[inline(always)]
    fn tanh(self, x: Self::V) -> Self::V {
        let e = self.exp(self.add(x, x));
        let one = self.splat(1.0);
        self.sub(one, self.div(self.splat(2.0), self.add(e, one)))
    }
}

/// 2ʳ for |r| ≤ 1/2 within 7.5e-5 of itself, highest power first. (Lawson's iteration.)
const EXP2: [f32; 4] = [0.055_171_67, 0.242_611_13, 0.693_261, 0.999_928_1];

/// A computation over any [`Simd`].
pub(crate) trait Op {
    /// What it returns.
    type Out;
    /// The body; mark it `#[inline(always)]` so that it is compiled for the instruction set, and use
    /// no closures in it: those are not.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// Runs `op` with the widest vectors of the instruction set that `kernels` was made for.
#[inline]
pub(crate) fn run<O: Op>(kernels: &Kernels, op: O) -> O::Out {
    match kernels.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Kernels` of this ISA exists only where detection found its features, which
        // include every one that `avx512::run` enables.
        Isa::Avx512Vnni | Isa::AmxBf16 => unsafe { avx512::run(op) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above, for AVX2, FMA and F16C.
        Isa::Avx2 | Isa::AvxVnni => unsafe { avx2::run(op) },
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod | Isa::NeonI8mm => neon::run(op),
        _ => op.run(portable::Portable),
    }
}
