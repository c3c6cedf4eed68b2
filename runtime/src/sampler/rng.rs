//! The random numbers.

/// xoshiro256** of Blackman and Vigna, seeded by SplitMix64 as they advise.
/// <https://prng.di.unimi.it>
#[derive(Clone, Debug)]
pub(super) struct Rng {
    state: [u64; 4],
}

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        let mut at = seed;
        let state = std::array::from_fn(|_| {
            at = at.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (at ^ (at >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        });
        Rng { state }
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let out = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        out
    }

    /// A number in [0, 1), from 53 random bits.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_xoshiro256starstar() {
        // First outputs of the authors' xoshiro256starstar.c for this state.
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let expected = [11520, 0, 1509978240, 1215971899390074240, 1216172134540287360];
        assert_eq!(std::array::from_fn(|_| rng.next()), expected);
    }

    #[test]
    fn seeding_is_splitmix64() {
        // First outputs of the authors' splitmix64.c from 0.
        let expected =
            [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC];
        assert_eq!(Rng::new(0).state, expected);
    }
}
