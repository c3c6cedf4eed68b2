//! Q5_0 and Q5_1: nibbles and, apart from them, a fifth bit of each weight. They differ by where the
//! fields are, and by -16 or a minimum.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step};
use super::strip::{At, Group, Strip, dwords, nibbles, scales, transpose};
use super::words::{self, four};
use crate::DType;
use crate::kernels::panel::Shape;

/// Values (q - 16) · d.
pub(in crate::kernels) type Q5_0 = Q5<22>;
/// Values q · d + m.
pub(in crate::kernels) type Q5_1 = Q5<24>;

/// `d`, with 24 bytes `m`, then 4 bytes of high bits and 16 of nibbles.
pub(in crate::kernels) struct Q5<const BLOCK: usize>;

impl<const BLOCK: usize> Q5<BLOCK> {
    const HAS_MIN: bool = <Self as Strip>::SHAPE.mins;
    /// Byte of the high bits, in a block.
    const HIGH: usize = BLOCK - 20;
    /// The first word of the second register that a step loads.
    const SECOND: usize = (4 * BLOCK - 64) / 2;
    const QUANTS: [i16; 32] = words::quants(BLOCK / 2, Self::SECOND, Self::HIGH / 2 + 2);
    const D: [i16; 32] = words::scales(BLOCK / 2, Self::SECOND, 0);
    const M: [i16; 32] = words::scales(BLOCK / 2, Self::SECOND, 1);
    /// High bits of the weights 0..16 and of the weights 16..32.
    const LOW16: [i16; 32] = words::twice(BLOCK / 2, Self::SECOND, Self::HIGH / 2);
    const HIGH16: [i16; 32] = words::twice(BLOCK / 2, Self::SECOND, Self::HIGH / 2 + 1);
}

/// In the 128-bit lane `l` (weights `4l .. 4l + 4` of four blocks): the byte of each word that has
/// those weights' bits.
const BYTE: [i8; 64] = {
    let mut idx = [0; 64];
    let mut i = 0;
    while i < 64 {
        idx[i] = (i % 16 / 2 * 2 + i / 32) as i8;
        i += 1;
    }
    idx
};

/// The bit of weight `4l + i % 4` in that byte.
const BIT: [i8; 64] = {
    let mut bit = [0; 64];
    let mut i = 0;
    while i < 64 {
        bit[i] = (1u8 << (i / 16 % 2 * 4 + i % 4)) as i8;
        i += 1;
    }
    bit
};

impl<const BLOCK: usize> Lanes for Q5<BLOCK> {
    const BYTES: usize = 4 * BLOCK;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn step(p: *const u8, _part: usize) -> Step {
        // SAFETY: the caller gives four blocks, of which the second register ends the last; the
        // arrays have 64 bytes.
        let (a, b, byte, bit) = unsafe {
            (
                _mm512_loadu_epi8(p.cast()),
                _mm512_loadu_epi8(p.add(2 * Self::SECOND).cast()),
                _mm512_loadu_epi8(BYTE.as_ptr()),
                _mm512_loadu_epi8(BIT.as_ptr()),
            )
        };
        let pick = |idx: &[i16; 32]| {
            // SAFETY: the array has 64 bytes.
            _mm512_permutex2var_epi16(a, unsafe { _mm512_loadu_epi16(idx.as_ptr()) }, b)
        };
        let half = |idx| four(pick(idx));
        let (mask, sixteen) = (_mm512_set1_epi8(0x0F), _mm512_set1_epi8(16));
        let q = pick(&Self::QUANTS);
        let join = |nibbles, bits| {
            let set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(pick(bits), byte), bit);
            let nibbles = _mm512_and_si512(nibbles, mask);
            _mm512_mask_add_epi8(nibbles, set, nibbles, sixteen)
        };
        Step {
            lo: join(q, &Self::LOW16),
            hi: join(_mm512_srli_epi16::<4>(q), &Self::HIGH16),
            d: half(&Self::D),
            m: if Self::HAS_MIN { half(&Self::M) } else { _mm512_setzero_ps() },
        }
    }
}

impl<const BLOCK: usize> Strip for Q5<BLOCK> {
    const SHAPE: Shape = Shape::of(if BLOCK == 24 { DType::Q5_1 } else { DType::Q5_0 }).unwrap();
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let rows = rows.skip(g * BLOCK);
        // SAFETY: the caller has AVX-512 and says that the block is readable.
        unsafe {
            let quads = transpose(|r| _mm_loadu_si128(rows.row(r).add(Self::HIGH + 4).cast()));
            let (low, high) = nibbles(quads);
            let mut q = [low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]];
            // Dword `r`: the 32 high bits of row `r`.
            let bits = dwords(|r| rows.row(r).add(Self::HIGH).cast::<u32>().read_unaligned());
            let first = _mm_set_epi32(0x0C0C_0C0C, 0x0808_0808, 0x0404_0404, 0);
            let first = _mm512_broadcast_i32x4(first);
            for (i, q) in q.iter_mut().enumerate() {
                // The byte with the bits of weights `4i .. 4i + 4`, four times; then those bits.
                let byte = _mm512_add_epi8(first, _mm512_set1_epi8((i / 2) as i8));
                let bit = _mm512_set1_epi32((0x0804_0201u32 << (i % 2 * 4)) as i32);
                let set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits, byte), bit);
                *q = _mm512_mask_add_epi8(*q, set, *q, _mm512_set1_epi8(16));
            }
            Group {
                q,
                d: scales(|r| rows.row(r).cast::<u16>().read_unaligned()),
                m: if Self::HAS_MIN {
                    scales(|r| rows.row(r).cast::<u16>().add(1).read_unaligned())
                } else {
                    _mm512_setzero_ps()
                },
            }
        }
    }
}
