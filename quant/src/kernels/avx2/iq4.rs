//! IQ4_NL and IQ4_XS: a shuffle of bytes makes values of the nibbles, with 128 added to be unsigned.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step};
use super::q4_0::Q4_0;
use super::strip::{At, Group, Strip, lanes, nibbles, scales, transpose};
use crate::DType;
use crate::kernels::panel::{IQ4_UNSIGNED, Shape};

/// Blocks as Q4_0 has them.
pub(super) struct IQ4NL;

/// The values of nibbles.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn values(nibbles: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2; the array has 16 bytes.
    unsafe {
        let table = _mm_loadu_si128(IQ4_UNSIGNED.as_ptr().cast());
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), nibbles)
    }
}

/// Those of two registers.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn both((lo, hi): (__m256i, __m256i)) -> (__m256i, __m256i) {
    // SAFETY: the caller has AVX2.
    unsafe { (values(lo), values(hi)) }
}

impl Lanes for IQ4NL {
    const BYTES: usize = Q4_0::BYTES;

    #[inline(always)]
    unsafe fn step(p: *const u8, part: usize) -> Step {
        // SAFETY: passed on.
        unsafe {
            let step = Q4_0::step(p, part);
            Step { q: [both(step.q[0]), both(step.q[1])], ..step }
        }
    }
}

impl Strip for IQ4NL {
    const SHAPE: Shape = Shape::of(DType::IQ4_NL).unwrap();
    const MAX: u8 = 255;
    const BLOCK_LEN: usize = Q4_0::BLOCK_LEN;
    const BLOCK_BYTES: usize = Q4_0::BLOCK_BYTES;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        // SAFETY: passed on.
        unsafe {
            let mut group = Q4_0::group(rows, g);
            for q in &mut group.q {
                *q = values(*q);
            }
            group
        }
    }
}

pub(super) struct IQ4XS;

/// Bytes of a block, and where its fields begin.
const BLOCK: usize = 136;
const HIGH: usize = 2;
const LOW: usize = 4;
const QUANTS: usize = 8;

impl Lanes for IQ4XS {
    const BYTES: usize = BLOCK;
    const PARTS: usize = 2;

    #[inline(always)]
    unsafe fn step(p: *const u8, part: usize) -> Step {
        // SAFETY: the caller has AVX2 and gives a block.
        unsafe {
            let pair = |i: usize| both(nibbles(lanes(p.add(QUANTS + 64 * part + 32 * i), 16)));
            let low = i32::from(p.add(LOW + 2 * part).cast::<u16>().read_unaligned());
            let high = i32::from(p.add(HIGH + part).read()) << 4;
            // Sub-block `b` has the nibble `b` of the one and the pair of bits `b` of the other.
            let low = _mm_srlv_epi32(_mm_set1_epi32(low), _mm_set_epi32(12, 8, 4, 0));
            let high = _mm_srlv_epi32(_mm_set1_epi32(high), _mm_set_epi32(6, 4, 2, 0));
            let scale = _mm_or_si128(
                _mm_and_si128(low, _mm_set1_epi32(0x0F)),
                _mm_and_si128(high, _mm_set1_epi32(0x30)),
            );
            let scale = _mm_cvtepi32_ps(_mm_sub_epi32(scale, _mm_set1_epi32(32)));
            let d = i32::from(p.cast::<u16>().read_unaligned());
            let d = _mm_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(d)));
            Step { q: [pair(0), pair(1)], d: _mm_mul_ps(scale, d), m: _mm_setzero_ps() }
        }
    }
}

impl Strip for IQ4XS {
    const SHAPE: Shape = Shape::of(DType::IQ4_XS).unwrap();
    const MAX: u8 = 255;
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let (rows, s) = (rows.skip(g / 8 * BLOCK), g % 8);
        // SAFETY: the caller has AVX2 and says that the block is readable.
        unsafe {
            let quants = rows.skip(QUANTS + 16 * s);
            let [a, b, c, d] = transpose(|r| _mm_loadu_si128(quants.row(r).cast()));
            let (a, b) = (both(nibbles(a)), both(nibbles(b)));
            let (c, d) = (both(nibbles(c)), both(nibbles(d)));
            let q = [a.0, b.0, c.0, d.0, a.1, b.1, c.1, d.1];
            // Dword `r`: d and above it the high bits of row `r`; its low ones.
            let [dh, low, ..] = transpose(|r| _mm_loadu_si128(rows.row(r).cast()));
            let low = _mm256_srl_epi32(low, _mm_cvtsi32_si128(4 * s as i32));
            let high = _mm256_srl_epi32(dh, _mm_cvtsi32_si128(16 + 2 * s as i32));
            let high = _mm256_slli_epi32::<4>(_mm256_and_si256(high, _mm256_set1_epi32(3)));
            let scale = _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(0x0F)), high);
            let scale = _mm256_cvtepi32_ps(_mm256_sub_epi32(scale, _mm256_set1_epi32(32)));
            let d = scales(|r| rows.row(r).cast::<u16>().read_unaligned());
            Group { q, d: _mm256_mul_ps(scale, d), m: _mm256_setzero_ps() }
        }
    }
}
