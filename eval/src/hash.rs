//! XXH64: a fast hash to tell files apart and to notice damage. Not against forgery.
//!
//! Specification: <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>.

const P: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

/// Hashes bytes that come in pieces.
#[derive(Clone, Debug)]
pub struct Xxh64 {
    lanes: [u64; 4],
    /// What does not yet fill a stripe of 32 bytes.
    rest: Vec<u8>,
    len: u64,
}

impl Default for Xxh64 {
    fn default() -> Self {
        let lanes = [P[0].wrapping_add(P[1]), P[1], 0, 0u64.wrapping_sub(P[0])];
        Xxh64 { lanes, rest: Vec::with_capacity(32), len: 0 }
    }
}

impl Xxh64 {
    /// Takes more bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if !self.rest.is_empty() {
            let n = bytes.len().min(32 - self.rest.len());
            self.rest.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if let Ok(stripe) = <[u8; 32]>::try_from(self.rest.as_slice()) {
                self.stripe(&stripe);
                self.rest.clear();
            }
        }
        let (stripes, rest) = bytes.as_chunks::<32>();
        stripes.iter().for_each(|s| self.stripe(s));
        self.rest.extend_from_slice(rest);
    }

    fn stripe(&mut self, stripe: &[u8; 32]) {
        for (lane, word) in self.lanes.iter_mut().zip(stripe.as_chunks::<8>().0) {
            *lane = round(*lane, u64::from_le_bytes(*word));
        }
    }

    /// The hash of all that came.
    pub fn finish(&self) -> u64 {
        let mut h = if self.len < 32 {
            P[4]
        } else {
            let rotated = self.lanes.iter().zip([1, 7, 12, 18]).map(|(l, r)| l.rotate_left(r));
            let sum = rotated.fold(0u64, u64::wrapping_add);
            self.lanes
                .iter()
                .fold(sum, |h, l| (h ^ round(0, *l)).wrapping_mul(P[0]).wrapping_add(P[3]))
        };
        h = h.wrapping_add(self.len);
        let (words, rest) = self.rest.as_chunks::<8>();
        for w in words {
            h ^= round(0, u64::from_le_bytes(*w));
            h = h.rotate_left(27).wrapping_mul(P[0]).wrapping_add(P[3]);
        }
        let (halves, rest) = rest.as_chunks::<4>();
        for w in halves {
            h ^= u64::from(u32::from_le_bytes(*w)).wrapping_mul(P[0]);
            h = h.rotate_left(23).wrapping_mul(P[1]).wrapping_add(P[2]);
        }
        for b in rest {
            h ^= u64::from(*b).wrapping_mul(P[4]);
            h = h.rotate_left(11).wrapping_mul(P[0]);
        }
        h = (h ^ h >> 33).wrapping_mul(P[1]);
        h = (h ^ h >> 29).wrapping_mul(P[2]);
        h ^ h >> 32
    }
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(P[1])).rotate_left(31).wrapping_mul(P[0])
}

/// The hash of bytes that are all there.
pub fn xxh64(bytes: &[u8]) -> u64 {
    let mut h = Xxh64::default();
    h.update(bytes);
    h.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(xxh64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(xxh64(b"abc"), 0x44bc_2cf5_ad77_0999);
        let pangram = b"Nobody inspects the spammish repetition";
        assert_eq!(xxh64(pangram), 0xfbce_a83c_8a37_8bf1);
    }

    #[test]
    fn pieces_do_not_matter() {
        let bytes: Vec<u8> = (0..300u32).map(|i| (i * 7) as u8).collect();
        for step in [1, 3, 31, 32, 33, 100, 299] {
            let mut h = Xxh64::default();
            bytes.chunks(step).for_each(|c| h.update(c));
            assert_eq!(h.finish(), xxh64(&bytes));
        }
    }
}
