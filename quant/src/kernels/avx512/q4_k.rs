//! Q4_K and Q5_K: nibbles in sub-blocks of 32 with packed scales and minimums; Q5_K has a fifth bit
//! apart from them.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step};
use super::k_scales::{self, HEADER};
use super::strip::{At, Group, Strip, transpose};
use crate::DType;
use crate::kernels::panel::Shape;

pub(in crate::kernels) type Q4K = Nibbles<144>;
pub(in crate::kernels) type Q5K = Nibbles<176>;

/// The header, with 176 bytes 32 bytes of high bits, then 4 × 32 bytes of nibbles.
pub(in crate::kernels) struct Nibbles<const BLOCK: usize>;

impl<const BLOCK: usize> Nibbles<BLOCK> {
    const FIVE: bool = BLOCK == 176;
    /// Byte of the nibbles, in a block.
    const QUANTS: usize = BLOCK - 128;
}

/// Where a step's dword `4l + b` is: dwords 0..16 have the low nibbles of the sub-blocks 0 and 2, 16..32
/// the high ones, sub-blocks 1 and 3; `from` is the first dword of a sub-block.
const fn spread(from: usize) -> [i32; 16] {
    let mut idx = [0; 16];
    let mut i = 0;
    while i < 16 {
        let (l, b) = (i / 4, i % 4);
        idx[i] = (b % 2 * 16 + b / 2 * 8 + from + l) as i32;
        i += 1;
    }
    idx
}

const LO: [i32; 16] = spread(0);
const HI: [i32; 16] = spread(4);

impl<const BLOCK: usize> Lanes for Nibbles<BLOCK> {
    const BYTES: usize = BLOCK;
    const PARTS: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(p: *const u8, part: usize) -> Step {
        // SAFETY: the caller gives a block; the arrays have 64 bytes.
        let (q, scales, lo, hi) = unsafe {
            (
                _mm512_loadu_epi8(p.add(Self::QUANTS + 64 * part).cast()),
                k_scales::of_block(p),
                _mm512_loadu_epi32(LO.as_ptr()),
                _mm512_loadu_epi32(HI.as_ptr()),
            )
        };
        let mask = _mm512_set1_epi8(0x0F);
        let mut low = _mm512_and_si512(q, mask);
        let mut high = _mm512_and_si512(_mm512_srli_epi16::<4>(q), mask);
        if Self::FIVE {
            // SAFETY: the caller gives a block.
            let bits = unsafe { _mm256_loadu_epi8(p.add(HEADER).cast()) };
            let bits = _mm512_broadcast_i64x4(bits);
            let sixteen = _mm512_set1_epi8(16);
            // Bit `s` belongs to sub-block `s`: 0 and 2 (or 4 and 6) in the halves of `low`.
            let bit = |s: usize| {
                let (a, b) = (_mm256_set1_epi8(1 << s), _mm256_set1_epi8((4u8 << s) as i8));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b)
            };
            let set = _mm512_test_epi8_mask(bits, bit(4 * part));
            low = _mm512_mask_add_epi8(low, set, low, sixteen);
            let set = _mm512_test_epi8_mask(bits, bit(4 * part + 1));
            high = _mm512_mask_add_epi8(high, set, high, sixteen);
        }
        let (d, m) = k_scales::of_part(scales, part);
        Step {
            lo: _mm512_permutex2var_epi32(low, lo, high),
            hi: _mm512_permutex2var_epi32(low, hi, high),
            d,
            m,
        }
    }
}

impl<const BLOCK: usize> Strip for Nibbles<BLOCK> {
    const SHAPE: Shape = Shape::of(DType::Q4_K).unwrap();
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let (rows, s) = (rows.skip(g / 8 * BLOCK), g % 8);
        // SAFETY: the caller has AVX-512 and says that the block is readable.
        unsafe {
            let quants = rows.skip(Self::QUANTS + s / 2 * 32);
            let a = transpose(|r| _mm_loadu_si128(quants.row(r).cast()));
            let b = transpose(|r| _mm_loadu_si128(quants.row(r).add(16).cast()));
            let mut q = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
            let odd = _mm_cvtsi32_si128(s as i32 % 2 * 4);
            for q in &mut q {
                *q = _mm512_and_si512(_mm512_srl_epi16(*q, odd), _mm512_set1_epi8(0x0F));
            }
            if Self::FIVE {
                let high = rows.skip(HEADER);
                let a = transpose(|r| _mm_loadu_si128(high.row(r).cast()));
                let b = transpose(|r| _mm_loadu_si128(high.row(r).add(16).cast()));
                let bits = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
                let bit = _mm512_set1_epi8((1u8 << s) as i8);
                for (q, bits) in q.iter_mut().zip(bits) {
                    let set = _mm512_test_epi8_mask(bits, bit);
                    *q = _mm512_mask_add_epi8(*q, set, *q, _mm512_set1_epi8(16));
                }
            }
            let (d, m) = k_scales::of_rows(rows, s);
            Group { q, d, m }
        }
    }
}
