//! Means with their errors, percentiles, and the summary of a measurement.

use serde::Serialize;

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub value: f64,
    /// Its standard error: the deviation of the values over √(n - 1), as `llama-perplexity` has it;
    /// it treats tokens as independent. 0 for fewer than two values.
    pub error: f64,
}

impl Mean {
    /// Of some values; 0 ± 0 of none.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        if values.is_empty() {
            return Mean::default();
        }
        let value = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - value).powi(2)).sum();
        let error = if values.len() < 2 { 0.0 } else { (squares / n / (n - 1.0)).sqrt() };
        Mean { value, error }
    }

    /// e^mean, the error propagated to first order.
    pub fn exp(self) -> Self {
        let value = self.value.exp();
        Mean { value, error: value * self.error }
    }

    /// Of `hits` out of `n`: the binomial error, with n - 1 as `llama-perplexity` has it.
    pub fn share(hits: usize, n: usize) -> Self {
        if n == 0 {
            return Mean::default();
        }
        let p = hits as f64 / n as f64;
        let error = if n < 2 { 0.0 } else { (p * (1.0 - p) / (n as f64 - 1.0)).sqrt() };
        Mean { value: p, error }
    }

    /// Root of the mean square of some values: its error is that of the mean square, propagated.
    pub fn rms(values: &[f64]) -> Self {
        let squares: Vec<f64> = values.iter().map(|v| v * v).collect();
        let square = Mean::of(&squares);
        let value = square.value.sqrt();
        let error = if value > 0.0 { 0.5 / value * square.error } else { 0.0 };
        Mean { value, error }
    }
}

/// `v` with so many digits after the point. What rounds to zero has no sign: `-0.00` would tell of a
/// difference and show none.
pub fn fixed(v: f64, digits: usize) -> String {
    let s = format!("{v:.digits$}");
    if is_zero(&s) { s.trim_start_matches('-').to_owned() } else { s }
}

/// [`fixed`], with a plus before what is greater than zero.
pub fn signed(v: f64, digits: usize) -> String {
    let s = fixed(v, digits);
    if v > 0.0 && !is_zero(&s) { format!("+{s}") } else { s }
}

fn is_zero(number: &str) -> bool {
    number.bytes().all(|b| matches!(b, b'-' | b'0' | b'.'))
}

/// The value below which `share` of the ascending `sorted` values lie, interpolated between
/// neighbours (rank share · (n - 1), as `llama-perplexity` does). 0 of none.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let rank = share.clamp(0.0, 1.0) * last as f64;
    let (low, part) = (rank as usize, rank.fract());
    (1.0 - part) * sorted[low] + part * sorted[(low + 1).min(last)]
}

/// How the values of a measurement are spread.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// 0.1%, 1%, 5%, 10% and 25% of the values are below these.
    pub low: [f64; 5],
    /// Half are.
    pub median: f64,
    /// 75%, 90%, 95%, 99% and 99.9% are.
    pub high: [f64; 5],
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some values, in any order.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share| percentile(&sorted, share);
        Spread {
            min: at(0.0),
            low: [0.001, 0.01, 0.05, 0.1, 0.25].map(at),
            median: at(0.5),
            high: [0.75, 0.9, 0.95, 0.99, 0.999].map(at),
            max: at(1.0),
        }
    }

    /// 90% of the values are below it.
    pub fn p90(&self) -> f64 {
        self.high[1]
    }

    /// 95% of the values are below it.
    pub fn p95(&self) -> f64 {
        self.high[2]
    }

    /// 99% of the values are below it.
    pub fn p99(&self) -> f64 {
        self.high[3]
    }

    /// 99.9% of the values are below it.
    pub fn p999(&self) -> f64 {
        self.high[4]
    }
}

/// Perplexities of two models on the same tokens. The errors know that the tokens are the same:
/// that of ln(PPL / PPL_reference) is the standard error of the per-token differences, which is
/// `llama-perplexity`'s √(σ² + σ_ref² - 2 cov).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Paired {
    /// The reference's perplexity.
    pub reference: Mean,
    /// ln(PPL / PPL_reference)
    pub ln_ratio: Mean,
    /// PPL / PPL_reference
    pub ratio: Mean,
    /// PPL - PPL_reference
    pub difference: Mean,
}

impl Paired {
    /// From the negative log-likelihoods of the same tokens, in nats.
    pub fn of(nll: &[f64], reference: &[f64]) -> Self {
        let (a, b) = (Mean::of(nll), Mean::of(reference));
        let differences: Vec<f64> = nll.iter().zip(reference).map(|(a, b)| a - b).collect();
        let ln_ratio = Mean::of(&differences);
        let (pa, pb) = (a.exp(), b.exp());
        // Var(PPL_a - PPL_b) = σ_a² + σ_b² - 2 PPL_a PPL_b cov, and
        // cov = (se_a² + se_b² - se_difference²) / 2.
        let cov = 0.5 * (a.error.powi(2) + b.error.powi(2) - ln_ratio.error.powi(2));
        let var = pa.error.powi(2) + pb.error.powi(2) - 2.0 * pa.value * pb.value * cov;
        Paired {
            reference: pb,
            ln_ratio,
            ratio: ln_ratio.exp(),
            difference: Mean { value: pa.value - pb.value, error: var.max(0.0).sqrt() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-9 * (1.0 + b.abs()), "{a} {b}");
    }

    #[test]
    fn means_by_hand() {
        // Deviations -1, 0, 1: variance 2/3, standard error √(2/3 / 2).
        let m = Mean::of(&[1.0, 2.0, 3.0]);
        near(m.value, 2.0);
        near(m.error, (1.0f64 / 3.0).sqrt());
        near(m.exp().error, 2.0f64.exp() * m.error);
        assert_eq!(Mean::of(&[]), Mean { value: 0.0, error: 0.0 });
        assert_eq!(Mean::of(&[5.0]), Mean { value: 5.0, error: 0.0 });
        near(Mean::share(1, 5).error, (0.16f64 / 4.0).sqrt());
        near(Mean::rms(&[3.0, -4.0]).value, 12.5f64.sqrt());
    }

    #[test]
    fn zero_has_no_sign() {
        assert_eq!([fixed(-1e-9, 5), fixed(-0.0, 0), fixed(0.0, 2)], ["0.00000", "0", "0.00"]);
        assert_eq!([fixed(-0.006, 2), fixed(-20.0, 1), fixed(1.25, 1)], ["-0.01", "-20.0", "1.2"]);
        assert_eq!([signed(0.001, 2), signed(-0.001, 2)], ["0.00", "0.00"]);
        assert_eq!([signed(0.3, 2), signed(-0.3, 2)], ["+0.30", "-0.30"]);
        assert_eq!(fixed(f64::NAN, 2), "NaN");
    }

    #[test]
    fn percentiles_interpolate() {
        let v = [0.0, 1.0, 2.0, 3.0];
        near(percentile(&v, 0.5), 1.5);
        near(percentile(&v, 0.9), 2.7);
        near(percentile(&v, 1.0), 3.0);
        near(percentile(&v, 0.0), 0.0);
        near(percentile(&[7.0], 0.3), 7.0);
        near(percentile(&[], 0.3), 0.0);
    }

    #[test]
    fn a_model_beside_itself_differs_by_nothing() {
        let p = Paired::of(&[1.0, 2.5, 0.1], &[1.0, 2.5, 0.1]);
        assert_eq!(p.ln_ratio, Mean { value: 0.0, error: 0.0 });
        assert_eq!(p.ratio.value, 1.0);
        assert!(p.difference.value == 0.0 && p.difference.error < 1e-7);
    }

    proptest! {
        /// The formula of llama-perplexity, which keeps sums of products.
        #[test]
        fn paired_errors_are_those_of_the_covariance(
            v in prop::collection::vec((0f64..9.0, -0.3f64..0.3), 10..60),
        ) {
            let a: Vec<f64> = v.iter().map(|x| x.0 + x.1).collect();
            let b: Vec<f64> = v.iter().map(|x| x.0).collect();
            let n = v.len() as f64;
            let avg = |f: &dyn Fn(usize) -> f64| (0..v.len()).map(f).sum::<f64>() / n;
            let (ma, mb) = (avg(&|i| a[i]), avg(&|i| b[i]));
            let se2 = |x: &[f64], m: f64| (avg(&|i| x[i] * x[i]) - m * m) / (n - 1.0);
            let cov = (avg(&|i| a[i] * b[i]) - ma * mb) / (n - 1.0);
            let want = (se2(&a, ma) + se2(&b, mb) - 2.0 * cov).max(0.0).sqrt();
            let got = Paired::of(&a, &b);
            prop_assert!((got.ln_ratio.error - want).abs() < 1e-6, "{} {want}", got.ln_ratio.error);
            prop_assert!((got.ln_ratio.value - (ma - mb)).abs() < 1e-9);
        }
    }
}
