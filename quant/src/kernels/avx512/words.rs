//! Where the words of four blocks of 32 weights are, for formats whose quants lie at even offsets.
//!
//! Two registers hold 32 words each of the four blocks, from the words 0 and `second` on; the arrays
//! are indices into the pair.

use std::arch::x86_64::*;

/// Each word `from`, `from + 1`, … of a block goes to where [`Step`](super::decode::Step) wants it:
/// word `i` of the result is half a dword of block `i / 2 % 4`.
pub(super) const fn quants(block: usize, second: usize, from: usize) -> [i16; 32] {
    let mut idx = [0; 32];
    let mut i = 0;
    while i < 32 {
        idx[i] = place(i / 2 % 4 * block + from + i / 8 * 2 + i % 2, second);
        i += 1;
    }
    idx
}

/// Word `which` of block `i % 4`, for 16 f16.
pub(super) const fn scales(block: usize, second: usize, which: usize) -> [i16; 32] {
    let mut idx = [0; 32];
    let mut i = 0;
    while i < 16 {
        idx[i] = place(i % 4 * block + which, second);
        i += 1;
    }
    idx
}

/// Word `which` of block `i / 2 % 4`: that word in both halves of every dword of its block.
pub(super) const fn twice(block: usize, second: usize, which: usize) -> [i16; 32] {
    let mut idx = [0; 32];
    let mut i = 0;
    while i < 32 {
        idx[i] = place(i / 2 % 4 * block + which, second);
        i += 1;
    }
    idx
}

/// The first four f16 of a register, as the scales of a step.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn four(halves: __m512i) -> __m512 {
    _mm512_castps128_ps512(_mm_cvtph_ps(_mm512_castsi512_si128(halves)))
}

const fn place(word: usize, second: usize) -> i16 {
    assert!(word < second + 32);
    if word < 32 { word as i16 } else { (32 + word - second) as i16 }
}
