//! Q8_0: adding 128 makes the weights unsigned.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step};
use super::strip::{At, Group, Strip, scales, transpose};
use super::words::{self, four};
use crate::DType;
use crate::kernels::panel::Shape;

pub(in crate::kernels) struct Q8_0;

/// Bytes of a block.
const BLOCK: usize = 34;

// Of the 68 words of four blocks, two registers hold the words 0 .. 32 and 32 .. 64.
const LO: [i16; 32] = words::quants(BLOCK / 2, 32, 1);
const SCALES: [i16; 32] = words::scales(BLOCK / 2, 32, 0);

/// The last words are in neither: two others hold the words 8 .. 40, with all of the blocks 0 and 1
/// that is wanted, and 36 .. 68, with that of the blocks 2 and 3.
const HI: [i16; 32] = {
    let mut idx = [0; 32];
    let mut i = 0;
    while i < 32 {
        let block = i / 2 % 4;
        let word = block * (BLOCK / 2) + 9 + i / 8 * 2 + i % 2;
        idx[i] = if block < 2 { word - 8 } else { 32 + word - 36 } as i16;
        i += 1;
    }
    idx
};

impl Lanes for Q8_0 {
    const BYTES: usize = 4 * BLOCK;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(p: *const u8, _part: usize) -> Step {
        // SAFETY: the caller gives 136 readable bytes; the index arrays have 64.
        let (a, b, c, d, lo, hi, scales) = unsafe {
            (
                _mm512_loadu_epi8(p.cast()),
                _mm512_loadu_epi8(p.add(64).cast()),
                _mm512_loadu_epi8(p.add(16).cast()),
                _mm512_loadu_epi8(p.add(72).cast()),
                _mm512_loadu_epi16(LO.as_ptr()),
                _mm512_loadu_epi16(HI.as_ptr()),
                _mm512_loadu_epi16(SCALES.as_ptr()),
            )
        };
        let shift = _mm512_set1_epi8(-128);
        let scales = four(_mm512_permutex2var_epi16(a, scales, b));
        Step {
            lo: _mm512_xor_si512(_mm512_permutex2var_epi16(a, lo, b), shift),
            hi: _mm512_xor_si512(_mm512_permutex2var_epi16(c, hi, d), shift),
            d: scales,
            m: _mm512_setzero_ps(),
        }
    }
}

impl Strip for Q8_0 {
    const SHAPE: Shape = Shape::of(DType::Q8_0).unwrap();
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let rows = rows.skip(g * BLOCK);
        // SAFETY: the caller has AVX-512 and says that the block is readable.
        unsafe {
            let lo = transpose(|r| _mm_loadu_si128(rows.row(r).add(2).cast()));
            let hi = transpose(|r| _mm_loadu_si128(rows.row(r).add(18).cast()));
            let shift = _mm512_set1_epi8(-128);
            let q = |q: __m512i| _mm512_xor_si512(q, shift);
            Group {
                q: [q(lo[0]), q(lo[1]), q(lo[2]), q(lo[3]), q(hi[0]), q(hi[1]), q(hi[2]), q(hi[3])],
                d: scales(|r| rows.row(r).cast::<u16>().read_unaligned()),
                m: _mm512_setzero_ps(),
            }
        }
    }
}
