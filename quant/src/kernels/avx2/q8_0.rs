//! Q8_0: adding 128 makes the weights unsigned.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step, halves};
use super::strip::{At, Group, Strip, scales, transpose};
use crate::DType;
use crate::kernels::panel::Shape;

pub(super) struct Q8_0;

/// Bytes of a block.
const BLOCK: usize = 34;

impl Lanes for Q8_0 {
    const BYTES: usize = 4 * BLOCK;

    #[inline(always)]
    unsafe fn step(p: *const u8, _part: usize) -> Step {
        // SAFETY: the caller has AVX2 and gives four blocks.
        unsafe {
            let half = |b: usize, from: usize| {
                let q = |b: usize| _mm_loadu_si128(p.add(b * BLOCK + from).cast());
                let q = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(q(b)), q(b + 1));
                _mm256_xor_si256(q, _mm256_set1_epi8(-128))
            };
            Step {
                q: [(half(0, 2), half(0, 18)), (half(2, 2), half(2, 18))],
                d: halves(|b| p.add(b * BLOCK).cast::<u16>().read_unaligned()),
                m: _mm_setzero_ps(),
            }
        }
    }
}

impl Strip for Q8_0 {
    const SHAPE: Shape = Shape::of(DType::Q8_0).unwrap();
    const MAX: u8 = 255;
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let rows = rows.skip(g * BLOCK);
        // SAFETY: the caller has AVX2 and says that the block is readable.
        unsafe {
            let lo = transpose(|r| _mm_loadu_si128(rows.row(r).add(2).cast()));
            let hi = transpose(|r| _mm_loadu_si128(rows.row(r).add(18).cast()));
            let shift = _mm256_set1_epi8(-128);
            let q = |q: __m256i| _mm256_xor_si256(q, shift);
            Group {
                q: [q(lo[0]), q(lo[1]), q(lo[2]), q(lo[3]), q(hi[0]), q(hi[1]), q(hi[2]), q(hi[3])],
                d: scales(|r| rows.row(r).cast::<u16>().read_unaligned()),
                m: _mm256_setzero_ps(),
            }
        }
    }
}
