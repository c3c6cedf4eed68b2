//! Q4_1: nibbles are unsigned; the minimum is added once a block.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step};
use super::strip::{At, Group, Strip, nibbles, scales, transpose};
use super::words::{self, four};
use crate::DType;
use crate::kernels::panel::Shape;

pub(in crate::kernels) struct Q4_1;

/// Bytes of a block.
const BLOCK: usize = 20;
/// The first word of the second register that a step loads.
const SECOND: usize = 8;

const QUANTS: [i16; 32] = words::quants(BLOCK / 2, SECOND, 2);
const D: [i16; 32] = words::scales(BLOCK / 2, SECOND, 0);
const M: [i16; 32] = words::scales(BLOCK / 2, SECOND, 1);

impl Lanes for Q4_1 {
    const BYTES: usize = 4 * BLOCK;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(p: *const u8, _part: usize) -> Step {
        // SAFETY: the caller gives 80 readable bytes; the index arrays have 64.
        let (a, b, quants, d, m) = unsafe {
            (
                _mm512_loadu_epi8(p.cast()),
                _mm512_loadu_epi8(p.add(2 * SECOND).cast()),
                _mm512_loadu_epi16(QUANTS.as_ptr()),
                _mm512_loadu_epi16(D.as_ptr()),
                _mm512_loadu_epi16(M.as_ptr()),
            )
        };
        let q = _mm512_permutex2var_epi16(a, quants, b);
        let mask = _mm512_set1_epi8(0x0F);
        let half = |idx| four(_mm512_permutex2var_epi16(a, idx, b));
        Step {
            lo: _mm512_and_si512(q, mask),
            hi: _mm512_and_si512(_mm512_srli_epi16::<4>(q), mask),
            d: half(d),
            m: half(m),
        }
    }
}

impl Strip for Q4_1 {
    const SHAPE: Shape = Shape::of(DType::Q4_1).unwrap();
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let rows = rows.skip(g * BLOCK);
        // SAFETY: the caller has AVX-512 and says that the block is readable.
        unsafe {
            let quads = transpose(|r| _mm_loadu_si128(rows.row(r).add(4).cast()));
            let (low, high) = nibbles(quads);
            Group {
                q: [low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]],
                d: scales(|r| rows.row(r).cast::<u16>().read_unaligned()),
                m: scales(|r| rows.row(r).cast::<u16>().add(1).read_unaligned()),
            }
        }
    }
}
