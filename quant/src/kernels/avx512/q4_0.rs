//! Q4_0: nibbles are unsigned as they are, 8 too large.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step};
use super::strip::{At, Group, Strip, scales, transpose};
use super::words::{self, four};
use crate::DType;
use crate::kernels::panel::Shape;

pub(in crate::kernels) struct Q4_0;

/// Bytes of a block.
const BLOCK: usize = 18;

/// First word of the second register: together they hold the 36 words of four blocks.
const SECOND: usize = 4;
const QUANTS: [i16; 32] = words::quants(BLOCK / 2, SECOND, 1);
const SCALES: [i16; 32] = words::scales(BLOCK / 2, SECOND, 0);

impl Lanes for Q4_0 {
    const BYTES: usize = 4 * BLOCK;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(p: *const u8, _part: usize) -> Step {
        // SAFETY: the caller gives 72 readable bytes; the index arrays have 64.
        let (a, b, quants, scales) = unsafe {
            (
                _mm512_loadu_epi8(p.cast()),
                _mm512_loadu_epi8(p.add(2 * SECOND).cast()),
                _mm512_loadu_epi16(QUANTS.as_ptr()),
                _mm512_loadu_epi16(SCALES.as_ptr()),
            )
        };
        let q = _mm512_permutex2var_epi16(a, quants, b);
        let mask = _mm512_set1_epi8(0x0F);
        Step {
            lo: _mm512_and_si512(q, mask),
            hi: _mm512_and_si512(_mm512_srli_epi16::<4>(q), mask),
            d: four(_mm512_permutexvar_epi16(scales, a)),
            m: _mm512_setzero_ps(),
        }
    }
}

impl Strip for Q4_0 {
    const SHAPE: Shape = Shape::of(DType::Q4_0).unwrap();
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let rows = rows.skip(g * BLOCK);
        // SAFETY: the caller has AVX-512 and says that the block is readable.
        unsafe {
            let quads = transpose(|r| _mm_loadu_si128(rows.row(r).add(2).cast()));
            let mask = _mm512_set1_epi8(0x0F);
            let low = |i: usize| _mm512_and_si512(quads[i], mask);
            let high = |i: usize| _mm512_and_si512(_mm512_srli_epi16::<4>(quads[i]), mask);
            Group {
                q: [low(0), low(1), low(2), low(3), high(0), high(1), high(2), high(3)],
                d: scales(|r| rows.row(r).cast::<u16>().read_unaligned()),
                m: _mm512_setzero_ps(),
            }
        }
    }
}
