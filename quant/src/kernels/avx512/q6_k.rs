//! Q6_K: six bits, four in one place and two in another, with a signed scale every 16 weights.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step};
use super::strip::{At, Group, Strip, dwords, scales, transpose};
use crate::DType;
use crate::kernels::panel::Shape;

pub(in crate::kernels) struct Q6K;

/// Bytes of a block, and where its fields begin.
const BLOCK: usize = 210;
const HIGH: usize = 128;
const SCALES: usize = 192;
const D: usize = 208;

/// Where a step's dword `4l + b` is: dwords 0..16 have the blocks 0 and 1, 16..32 the blocks 2 and 3;
/// `from` is the first dword of a block.
const fn spread(from: usize) -> [i32; 16] {
    let mut idx = [0; 16];
    let mut i = 0;
    while i < 16 {
        idx[i] = (i % 4 * 8 + from + i / 4) as i32;
        i += 1;
    }
    idx
}

const LO: [i32; 16] = spread(0);
const HI: [i32; 16] = spread(4);

/// The scales of the sub-blocks `8 · part + 2i + odd`, for `i` = 0..4, over and over.
///
/// # Safety
/// A block must be readable at `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn scales_of(p: *const u8, part: usize, odd: i32) -> __m512 {
    // SAFETY: the caller's promise.
    let (scales, d) = unsafe {
        let d = p.add(D).cast::<u16>().read_unaligned();
        (_mm_loadu_epi8(p.add(SCALES).cast()), _mm_cvtsi32_si128(i32::from(d)))
    };
    let scales = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales));
    let scales = _mm512_mul_ps(scales, _mm512_broadcastss_ps(_mm_cvtph_ps(d)));
    let even = _mm512_broadcast_i32x4(_mm_set_epi32(6, 4, 2, 0));
    _mm512_permutexvar_ps(_mm512_add_epi32(even, _mm512_set1_epi32(8 * part as i32 + odd)), scales)
}

impl Lanes for Q6K {
    const BYTES: usize = BLOCK;
    const PARTS: usize = 2;
    const HALVES: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(p: *const u8, part: usize) -> Step {
        // SAFETY: the caller gives a block; the arrays have 64 bytes.
        let (q, bits, lo, hi) = unsafe {
            (
                _mm512_loadu_epi8(p.add(64 * part).cast()),
                _mm256_loadu_epi8(p.add(HIGH + 32 * part).cast()),
                _mm512_loadu_epi32(LO.as_ptr()),
                _mm512_loadu_epi32(HI.as_ptr()),
            )
        };
        let bits = _mm512_broadcast_i64x4(bits);
        // Shift counts of words: the first and the second half.
        let counts = |a, b| {
            let (a, b) = (_mm256_set1_epi16(a), _mm256_set1_epi16(b));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b)
        };
        let (mask, two) = (_mm512_set1_epi8(0x0F), _mm512_set1_epi8(0x30));
        let low = _mm512_or_si512(
            _mm512_and_si512(q, mask),
            _mm512_and_si512(_mm512_sllv_epi16(bits, counts(4, 2)), two),
        );
        let high = _mm512_or_si512(
            _mm512_and_si512(_mm512_srli_epi16::<4>(q), mask),
            _mm512_and_si512(_mm512_srlv_epi16(bits, counts(0, 2)), two),
        );
        Step {
            lo: _mm512_permutex2var_epi32(low, lo, high),
            hi: _mm512_permutex2var_epi32(low, hi, high),
            // SAFETY: the caller gives a block.
            d: unsafe { scales_of(p, part, 0) },
            m: _mm512_setzero_ps(),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales_hi(p: *const u8, part: usize) -> (__m512, __m512) {
        // SAFETY: the caller gives a block.
        unsafe { (scales_of(p, part, 1), _mm512_setzero_ps()) }
    }
}

impl Strip for Q6K {
    const SHAPE: Shape = Shape::of(DType::Q6_K).unwrap();
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let (rows, g) = (rows.skip(g / 16 * BLOCK), g % 16);
        // Columns 16 · half .. of run `k` of 32, in the half `block` of 128.
        let (block, k, half) = (g / 8, g / 2 % 4, g % 2);
        // SAFETY: the caller has AVX-512 and says that the block is readable.
        unsafe {
            let quants = rows.skip(64 * block + k % 2 * 32 + 16 * half);
            let quants = transpose(|r| _mm_loadu_si128(quants.row(r).cast()));
            let bits = rows.skip(HIGH + 32 * block + 16 * half);
            let bits = transpose(|r| _mm_loadu_si128(bits.row(r).cast()));
            let mut q = [_mm512_setzero_si512(); 8];
            let (nibble, pair) =
                (_mm_cvtsi32_si128(k as i32 / 2 * 4), _mm_cvtsi32_si128(k as i32 * 2));
            for i in 0..4 {
                let low = _mm512_srl_epi16(quants[i], nibble);
                let high = _mm512_slli_epi16::<4>(_mm512_and_si512(
                    _mm512_srl_epi16(bits[i], pair),
                    _mm512_set1_epi8(3),
                ));
                q[i] = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(0x0F)), high);
            }
            let scale = dwords(|r| rows.row(r).add(SCALES + g).cast::<i8>().read() as u32);
            let d = scales(|r| rows.row(r).add(D).cast::<u16>().read_unaligned());
            Group { q, d: _mm512_mul_ps(_mm512_cvtepi32_ps(scale), d), m: _mm512_setzero_ps() }
        }
    }
}
