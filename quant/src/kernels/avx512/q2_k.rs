//! Q2_K and Q3_K: two bits, with a scale every 16 weights. Q2_K has a minimum beside each scale; Q3_K has
//! a third bit apart from the two.

use std::arch::x86_64::*;

use super::sixteens::{Sixteens, f16};
use super::strip::{At, Group, Strip, dwords, scales, transpose};
use crate::DType;
use crate::kernels::avx2::TwoBits;
use crate::kernels::panel::Shape;
use crate::kernels::sixteens::Order;

impl<const BLOCK: usize> Sixteens for TwoBits<BLOCK> {
    const ORDER: Order = Self::FOURS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn quants(p: *const u8, v: usize) -> __m512i {
        let (part, from) = (v / 2, v % 2 * 16);
        // SAFETY: the caller gives a block, which begins with 32 bytes of third bits where it has them.
        let load =
            |at: usize| unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(p.add(at + from).cast())) };
        // Of lane `l` the pair of bits `l`.
        let counts = _mm512_set_epi32(6, 6, 6, 6, 4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 0, 0);
        let two = _mm512_srlv_epi32(load(Self::QUANTS + 32 * part), counts);
        if !Self::THREE {
            return _mm512_and_si512(two, _mm512_set1_epi8(3));
        }
        // And the bit `4 · part + l`, which becomes bit 2 of its byte.
        let counts = _mm512_srli_epi32::<1>(counts);
        let counts = _mm512_sub_epi32(_mm512_set1_epi32(2 - 4 * part as i32), counts);
        let third = _mm512_rolv_epi32(load(0), counts);
        /// Bits of the first where the third has ones, of the second elsewhere.
        const SELECT: i32 = 0b1110_0100;
        let three = _mm512_ternarylogic_epi32::<SELECT>(two, third, _mm512_set1_epi8(3));
        _mm512_and_si512(three, _mm512_set1_epi8(7))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales(p: *const u8) -> (__m512, __m512) {
        // SAFETY: the caller gives a block.
        unsafe {
            if Self::THREE {
                let scales = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(Self::signed_scales(p)));
                return (_mm512_mul_ps(scales, f16(p.add(Self::D))), _mm512_setzero_ps());
            }
            let both = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
            let scale = _mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(15)));
            let min = _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(both));
            let dmin = _mm512_xor_ps(f16(p.add(Self::D + 2)), _mm512_set1_ps(-0.0));
            (_mm512_mul_ps(scale, f16(p.add(Self::D))), _mm512_mul_ps(min, dmin))
        }
    }
}

impl<const BLOCK: usize> Strip for TwoBits<BLOCK> {
    const SHAPE: Shape = Shape::of(if BLOCK == 110 { DType::Q3_K } else { DType::Q2_K }).unwrap();
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let (rows, g) = (rows.skip(g / 16 * BLOCK), g % 16);
        // Columns 16 · half .. of run `k` of 32, in the half `block` of 128.
        let (block, k, half) = (g / 8, g / 2 % 4, g % 2);
        // SAFETY: the caller has AVX-512 and says that the block is readable.
        unsafe {
            let quants = rows.skip(Self::QUANTS + 32 * block + 16 * half);
            let quants = transpose(|r| _mm_loadu_si128(quants.row(r).cast()));
            let pair = _mm_cvtsi32_si128(2 * k as i32);
            let mut q = [_mm512_setzero_si512(); 8];
            for i in 0..4 {
                q[i] = _mm512_and_si512(_mm512_srl_epi16(quants[i], pair), _mm512_set1_epi8(3));
            }
            if !Self::THREE {
                let both = dwords(|r| u32::from(rows.row(r).add(g).read()));
                let scale = _mm512_and_si512(both, _mm512_set1_epi32(0x0F));
                let f16 =
                    |at: usize| scales(|r| rows.row(r).add(at).cast::<u16>().read_unaligned());
                let d = _mm512_mul_ps(_mm512_cvtepi32_ps(scale), f16(Self::D));
                let min = _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(both));
                let min = _mm512_mul_ps(min, f16(Self::D + 2));
                return Group { q, d, m: _mm512_xor_ps(min, _mm512_set1_ps(-0.0)) };
            }
            let third = rows.skip(16 * half);
            let third = transpose(|r| _mm_loadu_si128(third.row(r).cast()));
            let bit = _mm512_set1_epi8((1u8 << (4 * block + k)) as i8);
            for i in 0..4 {
                let set = _mm512_test_epi8_mask(third[i], bit);
                q[i] = _mm512_mask_add_epi8(q[i], set, q[i], _mm512_set1_epi8(4));
            }
            let [_, a, b, c] =
                transpose(|r| _mm_loadu_si128(rows.row(r).add(Self::SCALES - 4).cast()));
            // The bits of this sub-block to the bottom of their dwords.
            let byte = g as i32 % 4 * 8;
            let low = if g % 8 < 4 { a } else { b };
            let low = _mm512_srl_epi32(low, _mm_cvtsi32_si128(byte + g as i32 / 8 * 4));
            let high = _mm512_srl_epi32(c, _mm_cvtsi32_si128(byte + g as i32 / 4 * 2));
            let high = _mm512_slli_epi32::<4>(_mm512_and_si512(high, _mm512_set1_epi32(3)));
            let scale = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(0x0F)), high);
            let scale = _mm512_cvtepi32_ps(_mm512_sub_epi32(scale, _mm512_set1_epi32(32)));
            let d = scales(|r| rows.row(r).add(Self::D).cast::<u16>().read_unaligned());
            Group { q, d: _mm512_mul_ps(scale, d), m: _mm512_setzero_ps() }
        }
    }
}
