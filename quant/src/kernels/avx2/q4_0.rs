//! Q4_0: nibbles are unsigned as they are, 8 too large.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step, halves};
use super::strip::{At, Group, Strip, scales, transpose};
use crate::DType;
use crate::kernels::panel::Shape;

pub(super) struct Q4_0;

/// Bytes of a block.
const BLOCK: usize = 18;

impl Lanes for Q4_0 {
    const BYTES: usize = 4 * BLOCK;

    #[inline(always)]
    unsafe fn step(p: *const u8, _part: usize) -> Step {
        // SAFETY: the caller has AVX2 and gives four blocks.
        unsafe {
            let pair = |b: usize| {
                let q = |b: usize| _mm_loadu_si128(p.add(b * BLOCK + 2).cast());
                let q = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(q(b)), q(b + 1));
                let mask = _mm256_set1_epi8(0x0F);
                (_mm256_and_si256(q, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(q), mask))
            };
            Step {
                q: [pair(0), pair(2)],
                d: halves(|b| p.add(b * BLOCK).cast::<u16>().read_unaligned()),
                m: _mm_setzero_ps(),
            }
        }
    }
}

impl Strip for Q4_0 {
    const SHAPE: Shape = Shape::of(DType::Q4_0).unwrap();
    const MAX: u8 = 15;
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let rows = rows.skip(g * BLOCK);
        // SAFETY: the caller has AVX2 and says that the block is readable.
        unsafe {
            let quads = transpose(|r| _mm_loadu_si128(rows.row(r).add(2).cast()));
            let mask = _mm256_set1_epi8(0x0F);
            let low = |i: usize| _mm256_and_si256(quads[i], mask);
            let high = |i: usize| _mm256_and_si256(_mm256_srli_epi16::<4>(quads[i]), mask);
            Group {
                q: [low(0), low(1), low(2), low(3), high(0), high(1), high(2), high(3)],
                d: scales(|r| rows.row(r).cast::<u16>().read_unaligned()),
                m: _mm256_setzero_ps(),
            }
        }
    }
}
