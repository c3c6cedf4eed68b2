//! Strips: 16 weight rows side by side, as all kernels but the one for a single token take them.

use std::arch::x86_64::*;

use crate::kernels::panel::Shape;
pub(super) use crate::kernels::sweep::{At, ROWS};

/// One group (see [`panel`](crate::kernels::panel)) of a strip.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Group {
    /// Dword `r` of register `i`: quants `4i .. 4i + 4` of row `r`. As many registers are used as the
    /// group has fours.
    pub(in crate::kernels) q: [__m512i; 8],
    /// The scales of the rows.
    pub(in crate::kernels) d: __m512,
    /// The minimums of the rows, where the format has them.
    pub(in crate::kernels) m: __m512,
}

/// A format whose strips can be read.
pub(in crate::kernels) trait Strip {
    /// What the kernels need to know.
    const SHAPE: Shape;
    /// Weights a block of the file.
    const BLOCK_LEN: usize;
    /// Bytes a block of the file.
    const BLOCK_BYTES: usize;

    /// Group `g` of the rows at `rows`.
    ///
    /// # Safety
    /// AVX-512 F, BW, DQ, VL and VNNI; each of the rows must be readable up to the end of the block
    /// that holds group `g`.
    unsafe fn group(rows: At, g: usize) -> Group;
}

/// Takes 16 bytes of each of 16 rows; gives the dwords 0 of all rows, the dwords 1, 2 and 3.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
pub(super) unsafe fn transpose(row: impl Fn(usize) -> __m128i) -> [__m512i; 4] {
    // SAFETY: the caller has AVX-512.
    unsafe {
        // Register i, lane l: row 4l + i.
        let z = |i: usize| {
            let z = _mm512_castsi128_si512(row(i));
            let z = _mm512_inserti32x4::<1>(z, row(4 + i));
            let z = _mm512_inserti32x4::<2>(z, row(8 + i));
            _mm512_inserti32x4::<3>(z, row(12 + i))
        };
        let z = [z(0), z(1), z(2), z(3)];
        let (a, b) = (_mm512_unpacklo_epi32(z[0], z[1]), _mm512_unpacklo_epi32(z[2], z[3]));
        let (c, d) = (_mm512_unpackhi_epi32(z[0], z[1]), _mm512_unpackhi_epi32(z[2], z[3]));
        [
            _mm512_unpacklo_epi64(a, b),
            _mm512_unpackhi_epi64(a, b),
            _mm512_unpacklo_epi64(c, d),
            _mm512_unpackhi_epi64(c, d),
        ]
    }
}

/// The f16 scales of 16 rows as f32. They are inserted one by one: written to an array and read
/// back together, they would have to wait for every one of the writes.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
#[rustfmt::skip]
pub(super) unsafe fn scales(half: impl Fn(usize) -> u16) -> __m512 {
    let h = |r: usize| half(r) as i16;
    // SAFETY: the caller has AVX-512.
    unsafe {
        _mm512_cvtph_ps(_mm256_setr_epi16(
            h(0), h(1), h(2), h(3), h(4), h(5), h(6), h(7),
            h(8), h(9), h(10), h(11), h(12), h(13), h(14), h(15),
        ))
    }
}

/// A dword of each of 16 rows.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
#[rustfmt::skip]
pub(super) unsafe fn dwords(dword: impl Fn(usize) -> u32) -> __m512i {
    let d = |r: usize| dword(r) as i32;
    // SAFETY: the caller has AVX-512.
    unsafe {
        _mm512_setr_epi32(
            d(0), d(1), d(2), d(3), d(4), d(5), d(6), d(7),
            d(8), d(9), d(10), d(11), d(12), d(13), d(14), d(15),
        )
    }
}

/// The low and the high nibbles of four registers.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
pub(super) unsafe fn nibbles(q: [__m512i; 4]) -> ([__m512i; 4], [__m512i; 4]) {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let mask = _mm512_set1_epi8(0x0F);
        let (mut low, mut high) = (q, q);
        for i in 0..4 {
            low[i] = _mm512_and_si512(q[i], mask);
            high[i] = _mm512_and_si512(_mm512_srli_epi16::<4>(q[i]), mask);
        }
        (low, high)
    }
}
