//! Instructions whose intrinsics are not stable.

use std::arch::aarch64::*;
use std::arch::asm;

/// Adds to each i32 the products of four pairs of i8.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers only.
    unsafe {
        asm!("sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b", acc = inout(vreg) acc, a = in(vreg) a,
             b = in(vreg) b, options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// [`sdot`] with the four i8 `LANE` of `b` for every i32.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot_lane<const LANE: usize>(
    mut acc: int32x4_t,
    a: int8x16_t,
    b: int8x16_t,
) -> int32x4_t {
    // SAFETY: registers only.
    unsafe {
        asm!("sdot {acc:v}.4s, {a:v}.16b, {b:v}.4b[{lane}]", acc = inout(vreg) acc, a = in(vreg) a,
             b = in(vreg) b, lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// `acc[i][j] += Σ a[i][k] · b[j][k]` for 2 × 8 times 2 × 8.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn smmla(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers only.
    unsafe {
        asm!("smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b", acc = inout(vreg) acc, a = in(vreg) a,
             b = in(vreg) b, options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// Four f16 to f32.
#[inline(always)]
pub(super) fn f16_to_f32(halves: uint16x4_t) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: registers only; the instruction is part of every 64-bit Arm.
    unsafe {
        asm!("fcvtl {out:v}.4s, {halves:v}.4h", out = lateout(vreg) out, halves = in(vreg) halves,
             options(pure, nomem, nostack, preserves_flags));
    }
    out
}
