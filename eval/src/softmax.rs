//! One row of logits: its normalizer, its likeliest tokens, its divergence from another row.
//!
//! A vocabulary of 262144 makes these loops as costly as a layer of the model, so they are written
//! over arrays of lanes that the compiler vectorizes. Sums are f32 over eight values a lane and f64
//! beyond: errors stay near 1e-7, far below what is measured.

/// Lanes of a vector loop.
const LANES: usize = 16;
/// Values that one pass over the lanes adds up in f32.
const BLOCK: usize = 8 * LANES;

/// Likeliest tokens that are looked at.
pub const TOP: usize = 5;

/// e^x for x ≤ 0, to 2 units in the last place; 0 far below what f32 sums notice.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2 (Cody & Waite 1980, ln 2 in two parts), e^r by its Taylor
/// polynomial of degree 7, whose error there is below 6e-9.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = x.max(-86.0);
    // Adding 1.5 · 2²³ leaves the rounded integer in the low bits.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let c = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let p = c.into_iter().fold(0.0, |p: f32, c| p * r + c);
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// The largest value of a row.
fn max(z: &[f32]) -> f32 {
    let (chunks, rest) = z.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for c in chunks {
        for (l, v) in lanes.iter_mut().zip(c) {
            *l = if *v > *l { *v } else { *l };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, v| m.max(*v))
}

/// Σ f(a, b) over two rows of one length: in f32 within a block, in f64 over blocks.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f64 {
    let (a, a_rest) = a.as_chunks::<BLOCK>();
    let (b, b_rest) = b.as_chunks::<BLOCK>();
    let mut total = 0.0f64;
    for (a, b) in a.iter().zip(b) {
        let mut lanes = [0.0f32; LANES];
        for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
            for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
                *lane += f(*a, *b);
            }
        }
        total += lanes.iter().map(|&l| f64::from(l)).sum::<f64>();
    }
    total + a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(f(*a, *b))).sum::<f64>()
}

/// A row of logits and what normalizes it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    z: &'a [f32],
    max: f32,
    /// Σ e^(z - max)
    sum: f64,
}

impl<'a> Row<'a> {
    /// Looks at a row. `None` when it holds a value that is not finite.
    pub fn new(z: &'a [f32]) -> Option<Self> {
        let max = max(z);
        let sum = sum(z, z, |z, _| exp(z - max));
        // NaN is never the maximum, but makes the sum NaN.
        (max.is_finite() && sum.is_finite()).then_some(Row { z, max, sum })
    }

    /// ln Σ e^z
    pub fn log_sum_exp(&self) -> f64 {
        f64::from(self.max) + self.sum.ln()
    }

    /// ln p of a token.
    pub fn ln_p(&self, token: u32) -> f64 {
        f64::from(self.z[token as usize]) - self.log_sum_exp()
    }

    /// The likeliest tokens, likeliest first; of equals the first. Fewer when the vocabulary is
    /// smaller than [`TOP`] (the rest repeats the likeliest).
    pub fn top(&self) -> [u32; TOP] {
        let mut top = [(f32::NEG_INFINITY, 0u32); TOP];
        let mut least = f32::NEG_INFINITY;
        for (c, chunk) in self.z.chunks(LANES).enumerate() {
            // Hardly any chunk has a value worth placing.
            if !chunk.iter().fold(false, |any, v| any | (*v > least)) {
                continue;
            }
            for (i, &v) in chunk.iter().enumerate() {
                if v > least {
                    let at = top.iter().position(|t| v > t.0).unwrap_or(TOP - 1);
                    top[at..].rotate_right(1);
                    top[at] = (v, (c * LANES + i) as u32);
                    least = top[TOP - 1].0;
                }
            }
        }
        let first = top[0].1;
        top.map(|t| if t.0 == f32::NEG_INFINITY { first } else { t.1 })
    }

    /// The divergence of `q` from this row, in nats: Σ p ln (p / q) over the whole vocabulary.
    /// Exactly 0 when the rows are equal.
    ///
    /// llama-perplexity leaves out tokens with ln p ≤ -16 (its file format cuts there); they add
    /// less than 1e-6 of their number.
    ///
    /// # Panics
    /// When the rows differ in length.
    pub fn divergence(&self, q: &Row<'_>) -> f64 {
        let (p, q_z) = (self.z, q.z);
        assert_eq!(p.len(), q_z.len(), "rows of one vocabulary");
        // ln p - ln q = (z_p - z_q) - shift; taking most of the shift off inside keeps terms small.
        let shift = self.log_sum_exp() - q.log_sum_exp();
        let inside = shift as f32;
        let max = self.max;
        let total = sum(p, q_z, |p, q| exp(p - max) * (p - q - inside));
        (total / self.sum - (shift - f64::from(inside))).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same in f64, term by term.
    fn exact(z: &[f32]) -> Vec<f64> {
        let max = z.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(f64::from(v)));
        let sum: f64 = z.iter().map(|&v| (f64::from(v) - max).exp()).sum();
        z.iter().map(|&v| f64::from(v) - max - sum.ln()).collect()
    }

    fn exact_divergence(p: &[f32], q: &[f32]) -> f64 {
        exact(p).iter().zip(exact(q)).map(|(p, q)| p.exp() * (p - q)).sum()
    }

    #[test]
    fn by_hand() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): ½ ln 2 + 0 - ¼ ln 2.
        let ln = |v: [f32; 3]| v.map(f32::ln);
        let (p, q) = (ln([0.5, 0.25, 0.25]), ln([0.25, 0.25, 0.5]));
        let (p, q) = (Row::new(&p).unwrap(), Row::new(&q).unwrap());
        assert!((p.divergence(&q) - 0.25 * 2.0f64.ln()).abs() < 1e-7);
        assert!((p.ln_p(0) - 0.5f64.ln()).abs() < 1e-7);
        assert_eq!(p.top()[..3], [0, 1, 2]);
        assert_eq!(q.top()[..3], [2, 0, 1]);
    }

    #[test]
    fn exponentials_are_good_to_the_last_bits() {
        for i in 0..=86_000 {
            let x = -(i as f32) / 1000.0;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) - want).abs() <= want * 3e-7, "{x}: {} {want}", exp(x));
        }
        assert!(exp(-1e9) < 1e-37 && exp(f32::NEG_INFINITY) < 1e-37);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn what_is_not_finite_is_noticed() {
        assert!(Row::new(&[1.0, f32::NAN, 2.0]).is_none());
        assert!(Row::new(&[1.0, f32::INFINITY]).is_none());
        assert!(Row::new(&[f32::NEG_INFINITY; 3]).is_none());
        assert!(Row::new(&[]).is_none());
    }

    fn logits() -> impl Strategy<Value = Vec<(f32, f32)>> {
        prop::collection::vec((-30f32..30.0, -0.5f32..0.5), 1..700)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_brute_force(rows in logits(), shift in -5f32..5.0) {
            let p: Vec<f32> = rows.iter().map(|r| r.0).collect();
            let q: Vec<f32> = rows.iter().map(|r| r.0 + r.1 + shift).collect();
            let (a, b) = (Row::new(&p).unwrap(), Row::new(&q).unwrap());
            let kld = a.divergence(&b);
            prop_assert!(kld >= 0.0);
            prop_assert!((kld - exact_divergence(&p, &q)).abs() < 2e-6, "{kld}");
            prop_assert_eq!(a.divergence(&a), 0.0);
            let want = exact(&p);
            for t in [0, p.len() / 2, p.len() - 1] {
                prop_assert!((a.ln_p(t as u32) - want[t]).abs() < 4e-6);
            }
            let mut order: Vec<u32> = (0..p.len() as u32).collect();
            order.sort_by(|&i, &j| p[j as usize].total_cmp(&p[i as usize]));
            for (got, want) in a.top().iter().zip(&order) {
                prop_assert_eq!(got, want);
            }
        }
    }
}
