//! IQ4_NL and IQ4_XS: a shuffle of bytes makes values of the nibbles, with 128 added to be unsigned.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step};
use super::q4_0::Q4_0;
use super::strip::{At, Group, Strip, nibbles, transpose};
use crate::DType;
use crate::kernels::panel::{IQ4_UNSIGNED, Shape};

/// Blocks as Q4_0 has them.
pub(in crate::kernels) struct IQ4NL;

/// The values of nibbles.
///
/// # Safety
/// AVX-512 F and BW.
#[inline(always)]
unsafe fn values(nibbles: __m512i) -> __m512i {
    // SAFETY: the caller has AVX-512; the array has 16 bytes.
    unsafe {
        let table = _mm_loadu_si128(IQ4_UNSIGNED.as_ptr().cast());
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), nibbles)
    }
}

impl Lanes for IQ4NL {
    const BYTES: usize = Q4_0::BYTES;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(p: *const u8, part: usize) -> Step {
        // SAFETY: passed on.
        unsafe {
            let step = Q4_0::step(p, part);
            Step { lo: values(step.lo), hi: values(step.hi), ..step }
        }
    }
}

impl Strip for IQ4NL {
    const SHAPE: Shape = Shape::of(DType::IQ4_NL).unwrap();
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

pub(in crate::kernels) struct IQ4XS;

/// Bytes of a block, and where its fields begin.
const BLOCK: usize = 136;
const HIGH: usize = 2;
const LOW: usize = 4;
const QUANTS: usize = 8;

/// Where a step's dword `4l + b` is: dword `l` of the run of 16 bytes of sub-block `b`.
const ORDER: [i32; 16] = {
    let mut idx = [0; 16];
    let mut i = 0;
    while i < 16 {
        idx[i] = (i % 4 * 4 + i / 4) as i32;
        i += 1;
    }
    idx
};

impl Lanes for IQ4XS {
    const BYTES: usize = BLOCK;
    const PARTS: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(p: *const u8, part: usize) -> Step {
        // SAFETY: the caller gives a block; the array has 64 bytes.
        let (q, order, d, low, high) = unsafe {
            (
                _mm512_loadu_epi8(p.add(QUANTS + 64 * part).cast()),
                _mm512_loadu_epi32(ORDER.as_ptr()),
                p.cast::<u16>().read_unaligned(),
                p.add(LOW + 2 * part).cast::<u16>().read_unaligned(),
                p.add(HIGH + part).read(),
            )
        };
        let q = _mm512_permutexvar_epi32(order, q);
        let mask = _mm512_set1_epi8(0x0F);
        // Sub-block `b` has the nibble `b` of the one and the pair of bits `b` of the other.
        let low = _mm_srlv_epi32(_mm_set1_epi32(i32::from(low)), _mm_set_epi32(12, 8, 4, 0));
        let high = _mm_srlv_epi32(_mm_set1_epi32(i32::from(high) << 4), _mm_set_epi32(6, 4, 2, 0));
        let scale = _mm_or_si128(
            _mm_and_si128(low, _mm_set1_epi32(0x0F)),
            _mm_and_si128(high, _mm_set1_epi32(0x30)),
        );
        let scale = _mm_cvtepi32_ps(_mm_sub_epi32(scale, _mm_set1_epi32(32)));
        let d = _mm_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(d))));
        // SAFETY: this function has the features.
        let (lo, hi) = unsafe {
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(q), mask);
            (values(_mm512_and_si512(q, mask)), values(high))
        };
        Step { lo, hi, d: _mm512_castps128_ps512(_mm_mul_ps(scale, d)), m: _mm512_setzero_ps() }
    }
}

impl Strip for IQ4XS {
    const SHAPE: Shape = Shape::of(DType::IQ4_XS).unwrap();
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let (rows, s) = (rows.skip(g / 8 * BLOCK), g % 8);
        // SAFETY: the caller has AVX-512 and says that the block is readable.
        unsafe {
            let quants = rows.skip(QUANTS + 16 * s);
            let (low, high) = nibbles(transpose(|r| _mm_loadu_si128(quants.row(r).cast())));
            let mut q = [low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]];
            for q in &mut q {
                *q = values(*q);
            }
            // Dword `r`: d and above it the high bits of row `r`; its low ones.
            let [dh, low, ..] = transpose(|r| _mm_loadu_si128(rows.row(r).cast()));
            let d = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(dh));
            let low = _mm512_srl_epi32(low, _mm_cvtsi32_si128(4 * s as i32));
            let high = _mm512_srl_epi32(dh, _mm_cvtsi32_si128(16 + 2 * s as i32));
            let high = _mm512_slli_epi32::<4>(_mm512_and_si512(high, _mm512_set1_epi32(3)));
            let scale = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(0x0F)), high);
            let scale = _mm512_cvtepi32_ps(_mm512_sub_epi32(scale, _mm512_set1_epi32(32)));
            Group { q, d: _mm512_mul_ps(scale, d), m: _mm512_setzero_ps() }
        }
    }
}
