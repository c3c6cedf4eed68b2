//! A short hash for short strings.
//!
//! Loading hashes every piece of the vocabulary and encoding hashes every candidate pair, most of
//! them under 16 bytes: two overlapping reads and one wide multiplication cover those. The seed is
//! drawn once a vocabulary, so that a file cannot be made to collide on purpose.

use std::hash::{BuildHasher, RandomState};

/// A seeded hash function over bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hash {
    seed: [u64; 2],
}

impl Hash {
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        // Odd numbers: a zero would swallow the other factor.
        Hash { seed: [random.hash_one(0u8) | 1, random.hash_one(1u8) | 1] }
    }

    /// The hash of `bytes`; every bit of it depends on every byte.
    #[inline]
    pub(super) fn of(self, bytes: &[u8]) -> u64 {
        let (a, b, carry) = match bytes.len() {
            0 => (0, 0, 0),
            n @ 1..4 => {
                let (first, mid, last) = (bytes[0], bytes[n / 2], bytes[n - 1]);
                (u64::from_le_bytes([first, mid, last, 0, 0, 0, 0, 0]), 0, 0)
            }
            n @ 4..8 => (u64::from(u32_at(bytes, 0)), u64::from(u32_at(bytes, n - 4)), 0),
            n @ 8..=16 => (u64_at(bytes, 0), u64_at(bytes, n - 8), 0),
            n => {
                let mut carry = 0;
                let mut at = 0;
                while at + 16 < n {
                    carry = fold(
                        u64_at(bytes, at) ^ self.seed[1] ^ carry,
                        u64_at(bytes, at + 8) ^ self.seed[0],
                    );
                    at += 16;
                }
                (u64_at(bytes, n - 16), u64_at(bytes, n - 8), carry)
            }
        };
        let mixed = fold(a ^ self.seed[0] ^ carry, b ^ self.seed[1] ^ bytes.len() as u64);
        fold(mixed, self.seed[0])
    }
}

/// Both halves of the 128-bit product, xored.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ (wide >> 64) as u64
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
