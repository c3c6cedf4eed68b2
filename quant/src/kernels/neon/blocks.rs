//! The formats of the int8 kernels, as signed bytes.

use std::arch::aarch64::*;

use crate::codec::IQ4_VALUES;

/// A format whose blocks of 32 have one f16 scale, in their first two bytes.
pub(super) trait Blocks {
    /// Bytes of a block.
    const BYTES: usize;

    /// Weights 0..16 and 16..32: value = quant · scale.
    ///
    /// # Safety
    /// A block must be readable at `p`.
    unsafe fn quants(p: *const u8) -> [int8x16_t; 2];
}

/// The f16 scale of a block.
///
/// # Safety
/// A block must be readable at `p`.
#[inline]
pub(super) unsafe fn scale(p: *const u8) -> u16 {
    // SAFETY: the caller's promise.
    unsafe { p.cast::<u16>().read_unaligned() }
}

pub(super) struct Q4_0;

impl Blocks for Q4_0 {
    const BYTES: usize = 18;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(p: *const u8) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        let q = unsafe { vld1q_u8(p.add(2)) };
        let eight = vdupq_n_s8(8);
        let low = vreinterpretq_s8_u8(vandq_u8(q, vdupq_n_u8(15)));
        let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(q));
        [vsubq_s8(low, eight), vsubq_s8(high, eight)]
    }
}

pub(super) struct IQ4NL;

impl Blocks for IQ4NL {
    const BYTES: usize = 18;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(p: *const u8) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise; the array has 16 bytes.
        let (q, values) = unsafe { (vld1q_u8(p.add(2)), vld1q_s8(IQ4_VALUES.as_ptr())) };
        let value = |q| vqtbl1q_s8(values, q);
        [value(vandq_u8(q, vdupq_n_u8(15))), value(vshrq_n_u8::<4>(q))]
    }
}

pub(super) struct Q8_0;

impl Blocks for Q8_0 {
    const BYTES: usize = 34;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn quants(p: *const u8) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe { [vld1q_s8(p.add(2).cast()), vld1q_s8(p.add(18).cast())] }
    }
}
