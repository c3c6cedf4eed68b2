//! Plain arrays of 4, for CPUs without one of the other instruction sets, and as the oracle that
//! the others are tested against.

use half::f16;

use super::Simd;

/// Needs nothing.
#[derive(Clone, Copy)]
pub(super) struct Portable;

const N: usize = 4;

#[inline(always)]
fn zip(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

// SAFETY of the blocks below: memory is vouched for by the callers of the unsafe methods.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Portable {
    const LANES: usize = N;
    const WIDE: bool = false;
    type V = [f32; N];

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; N] {
        [x; N]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; N] {
        unsafe { p.cast::<[f32; N]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: [f32; N]) {
        unsafe { p.cast::<[f32; N]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> [f32; N] {
        unsafe { p.cast::<[u16; N]>().read_unaligned().map(|b| f16::from_bits(b).to_f32()) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, v: [f32; N]) {
        unsafe { p.cast::<[u16; N]>().write_unaligned(v.map(|x| f16::from_f32(x).to_bits())) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> [f32; N] {
        unsafe { p.cast::<[i8; N]>().read_unaligned().map(f32::from) }
    }
    #[inline(always)]
    unsafe fn store_i16_pairs(self, p: *mut i16, a: [f32; N], b: [f32; N]) {
        let pairs = std::array::from_fn(|i| [a[i], b[i]].map(|v| v.round_ties_even() as i16));
        unsafe { p.cast::<[[i16; 2]; N]>().write_unaligned(pairs) }
    }
    #[inline(always)]
    unsafe fn store_u8_fours(self, p: *mut u8, v: [[f32; N]; 4]) {
        let fours: [[u8; 4]; N] = std::array::from_fn(|i| v.map(|v| v[i].round_ties_even() as u8));
        unsafe { p.cast::<[[u8; 4]; N]>().write_unaligned(fours) }
    }
    #[inline(always)]
    fn add(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn fma(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        // Not `mul_add`: without the instruction that is a library call a lane.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn scale_by_pow2(self, v: [f32; N], n: [f32; N]) -> [f32; N] {
        zip(v, n, |v, n| v * f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn round(self, v: [f32; N]) -> [f32; N] {
        v.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn sum(self, v: [f32; N]) -> f32 {
        (v[0] + v[2]) + (v[1] + v[3])
    }
    #[inline(always)]
    fn max_lane(self, v: [f32; N]) -> f32 {
        v[0].max(v[1]).max(v[2].max(v[3]))
    }
}
