//! Strips: 16 weight rows side by side, as two octets.

use std::arch::x86_64::*;

use crate::kernels::panel::Shape;
pub(super) use crate::kernels::sweep::{At, ROWS};

/// Rows of an octet.
pub(super) const OCTET: usize = 8;

/// One group (see [`panel`](crate::kernels::panel)) of an octet.
#[derive(Clone, Copy)]
pub(super) struct Group {
    /// Dword `r` of register `i`: quants `4i .. 4i + 4` of row `r`. As many registers are used as the
    /// group has fours.
    pub(super) q: [__m256i; 8],
    /// The scales of the rows.
    pub(super) d: __m256,
    /// The minimums of the rows, where the format has them.
    pub(super) m: __m256,
}

/// A format whose octets can be read.
pub(super) trait Strip {
    /// What the kernels need to know.
    const SHAPE: Shape;
    /// The largest quant.
    const MAX: u8;
    /// Weights a block of the file.
    const BLOCK_LEN: usize;
    /// Bytes a block of the file.
    const BLOCK_BYTES: usize;

    /// Group `g` of the first eight rows at `rows`. To be `#[inline(always)]`.
    ///
    /// # Safety
    /// AVX2 and F16C; each of the rows must be readable up to the end of the block that holds group
    /// `g`.
    unsafe fn group(rows: At, g: usize) -> Group;
}

/// Takes 16 bytes of each of 8 rows; gives the dwords 0 of all rows, the dwords 1, 2 and 3.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn transpose(row: impl Fn(usize) -> __m128i) -> [__m256i; 4] {
    // SAFETY: the caller has AVX2.
    unsafe {
        // Register i, lane l: row 4l + i.
        let z = |i: usize| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(i)), row(4 + i));
        let z = [z(0), z(1), z(2), z(3)];
        let (a, b) = (_mm256_unpacklo_epi32(z[0], z[1]), _mm256_unpacklo_epi32(z[2], z[3]));
        let (c, d) = (_mm256_unpackhi_epi32(z[0], z[1]), _mm256_unpackhi_epi32(z[2], z[3]));
        [
            _mm256_unpacklo_epi64(a, b),
            _mm256_unpackhi_epi64(a, b),
            _mm256_unpacklo_epi64(c, d),
            _mm256_unpackhi_epi64(c, d),
        ]
    }
}

/// The f16 scales of 8 rows as f32.
///
/// # Safety
/// AVX2 and F16C.
#[inline(always)]
#[rustfmt::skip]
pub(super) unsafe fn scales(half: impl Fn(usize) -> u16) -> __m256 {
    let h = |r: usize| half(r) as i16;
    // SAFETY: the caller has F16C.
    unsafe {
        _mm256_cvtph_ps(_mm_setr_epi16(h(0), h(1), h(2), h(3), h(4), h(5), h(6), h(7)))
    }
}

/// A dword of each of 8 rows.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn dwords(dword: impl Fn(usize) -> u32) -> __m256i {
    let d = |r: usize| dword(r) as i32;
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_setr_epi32(d(0), d(1), d(2), d(3), d(4), d(5), d(6), d(7)) }
}

/// Sets the bits `BITS` in the bytes of `q` where `bits` has the one bit of `bit`.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn set_where<const BITS: i8>(q: __m256i, bits: __m256i, bit: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let there = _mm256_cmpeq_epi8(_mm256_and_si256(bits, bit), bit);
        _mm256_or_si256(q, _mm256_and_si256(there, _mm256_set1_epi8(BITS)))
    }
}

/// 16 bytes at `p` and at `p + stride`, in one lane each.
///
/// # Safety
/// AVX2; the bytes must be readable.
#[inline(always)]
pub(super) unsafe fn lanes(p: *const u8, stride: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (_mm_loadu_si128(p.cast()), _mm_loadu_si128(p.add(stride).cast()));
        _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b)
    }
}

/// The low and the high nibbles.
///
/// # Safety
/// AVX2.
#[inline(always)]
pub(super) unsafe fn nibbles(q: __m256i) -> (__m256i, __m256i) {
    // SAFETY: the caller has AVX2.
    unsafe {
        let mask = _mm256_set1_epi8(0x0F);
        (_mm256_and_si256(q, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(q), mask))
    }
}
