//! What was measured of one model, token by token, and its summary.

use std::time::Duration;

use serde::Serialize;

use crate::softmax::{Row, TOP};
use crate::stats::{Mean, Paired, Spread};

/// Surprises that are kept.
const SURPRISES: usize = 12;

/// What is known of a reference's row besides its logits.
#[derive(Clone, Copy, Debug)]
pub struct RefRow<'a> {
    /// The distribution.
    pub row: Row<'a>,
    /// Its likeliest tokens.
    pub top: [u32; TOP],
    /// ln p of the correct token. From saved logits this is more exact than the row's own.
    pub ln_p: f64,
}

/// One scored token.
#[derive(Clone, Copy, Debug)]
pub struct TokenScore {
    /// Negative log-likelihood, nats.
    pub nll: f64,
    /// Against the reference, where there is one.
    pub against: Option<Against>,
    /// The model's likeliest tokens and their probabilities.
    pub top: [(u32, f32); TOP],
}

/// One scored token against the reference.
#[derive(Clone, Copy, Debug)]
pub struct Against {
    /// The reference's negative log-likelihood, nats.
    pub nll: f64,
    /// Divergence of the model's distribution from the reference's, nats.
    pub kld: f64,
    /// Is the likeliest token the same?
    pub same_top: bool,
    /// How many of the reference's [`TOP`] likeliest tokens are among the model's.
    pub shared_top: usize,
    /// The reference's likeliest tokens and their probabilities.
    pub top: [(u32, f32); TOP],
}

impl TokenScore {
    /// Scores a row that should have predicted `target`.
    pub fn new(row: &Row<'_>, reference: Option<&RefRow<'_>>, target: u32) -> Self {
        let (nll, top) = (-row.ln_p(target), row.top());
        let with_p = |row: &Row<'_>, top: [u32; TOP]| top.map(|t| (t, row.ln_p(t).exp() as f32));
        let against = reference.map(|r| Against {
            nll: -r.ln_p,
            kld: r.row.divergence(row),
            same_top: r.top[0] == top[0],
            shared_top: r.top.iter().filter(|t| top.contains(t)).count(),
            top: with_p(&r.row, r.top),
        });
        TokenScore { nll, against, top: with_p(row, top) }
    }
}

/// A token on which model and reference differ widely.
#[derive(Clone, Copy, Debug)]
pub struct Surprise {
    /// Its place in the text's tokens.
    pub at: usize,
    /// The window's first token: what the model read before it.
    pub window_start: usize,
    /// The figures.
    pub score: TokenScore,
    /// Those against the reference.
    pub against: Against,
}

/// All scored tokens of one model.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    nll: Vec<f64>,
    /// Empty without a reference, like those below.
    ref_nll: Vec<f64>,
    kld: Vec<f64>,
    delta_p: Vec<f64>,
    /// Place of each token in its window.
    position: Vec<u32>,
    same_top: usize,
    shared_top: Vec<f64>,
    bytes: u64,
    read: usize,
    time: Duration,
    surprises: Vec<Surprise>,
}

impl Scores {
    /// Adds a token: its place in the text, in which window, standing for how many bytes.
    pub(crate) fn push(&mut self, at: usize, window_start: usize, bytes: u64, score: TokenScore) {
        self.nll.push(score.nll);
        self.position.push((at - window_start) as u32);
        self.bytes += bytes;
        let Some(a) = score.against else { return };
        self.ref_nll.push(a.nll);
        self.kld.push(a.kld);
        self.delta_p.push((-score.nll).exp() - (-a.nll).exp());
        self.same_top += usize::from(a.same_top);
        self.shared_top.push(a.shared_top as f64 / TOP as f64);
        let place = self.surprises.partition_point(|s| s.against.kld >= a.kld);
        if place < SURPRISES {
            self.surprises.insert(place, Surprise { at, window_start, score, against: a });
            self.surprises.truncate(SURPRISES);
        }
    }

    /// Notes that so many tokens went through the model in this time.
    pub(crate) fn took(&mut self, tokens: usize, time: Duration) {
        self.read += tokens;
        self.time += time;
    }

    /// Tokens scored.
    pub fn tokens(&self) -> usize {
        self.nll.len()
    }

    /// Perplexity so far.
    pub fn perplexity(&self) -> f64 {
        (self.nll.iter().sum::<f64>() / self.nll.len().max(1) as f64).exp()
    }

    /// Divergence of each token, nats; empty without a reference.
    pub fn kld(&self) -> &[f64] {
        &self.kld
    }

    /// The tokens with the largest divergence, largest first.
    pub fn surprises(&self) -> &[Surprise] {
        &self.surprises
    }

    /// Mean divergence (mean negative log-likelihood without a reference) of tokens at positions of
    /// the window cut into `parts`: the middle of each part that has any, and the mean.
    pub fn by_position(&self, parts: usize) -> Vec<(f64, Mean)> {
        let values = if self.kld.is_empty() { &self.nll } else { &self.kld };
        let (Some(&first), Some(&last)) = (self.position.iter().min(), self.position.iter().max())
        else {
            return Vec::new();
        };
        let width = f64::from(last - first + 1) / parts.max(1) as f64;
        let mut sorted = vec![Vec::new(); parts.max(1)];
        for (p, v) in self.position.iter().zip(values) {
            let part = (f64::from(p - first) / width) as usize;
            sorted[part.min(parts - 1)].push(*v);
        }
        let middle = |i: usize| f64::from(first) + (i as f64 + 0.5) * width;
        let filled = sorted.iter().enumerate().filter(|(_, v)| !v.is_empty());
        filled.map(|(i, v)| (middle(i), Mean::of(v))).collect()
    }

    /// All of it in a few figures.
    pub fn summary(&self) -> Summary {
        let nll = Mean::of(&self.nll);
        let bits = nll.value * self.nll.len() as f64 / std::f64::consts::LN_2;
        let per_byte = self.nll.len() as f64 / std::f64::consts::LN_2 / self.bytes.max(1) as f64;
        let against = (!self.kld.is_empty()).then(|| Divergence {
            perplexity: Paired::of(&self.nll, &self.ref_nll),
            kld: Mean::of(&self.kld),
            kld_spread: Spread::of(&self.kld),
            delta_p: Mean::of(&self.delta_p),
            delta_p_rms: Mean::rms(&self.delta_p),
            delta_p_spread: Spread::of(&self.delta_p),
            same_top: Mean::share(self.same_top, self.kld.len()),
            shared_top: Mean::of(&self.shared_top),
        });
        Summary {
            tokens: self.nll.len(),
            bytes: self.bytes,
            nll,
            perplexity: nll.exp(),
            bits_per_byte: Mean {
                value: bits / self.bytes.max(1) as f64,
                error: nll.error * per_byte,
            },
            tokens_per_second: self.read as f64 / self.time.as_secs_f64().max(1e-9),
            against,
        }
    }
}

/// A model's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Tokens scored.
    pub tokens: usize,
    /// UTF-8 bytes that they stand for.
    pub bytes: u64,
    /// Negative log-likelihood per token, nats.
    pub nll: Mean,
    /// e^nll.
    pub perplexity: Mean,
    /// Negative log-likelihood per byte of text, bits: comparable between tokenizers.
    pub bits_per_byte: Mean,
    /// Tokens read per second of the model's own time, scoring not counted.
    pub tokens_per_second: f64,
    /// Against the reference, where there is one.
    pub against: Option<Divergence>,
}

/// A model's figures against the reference.
#[derive(Clone, Debug, Serialize)]
pub struct Divergence {
    /// Both perplexities.
    pub perplexity: Paired,
    /// Kullback-Leibler divergence of the model from the reference per token, nats.
    pub kld: Mean,
    /// How it is spread.
    pub kld_spread: Spread,
    /// Probability of the correct token, the model's minus the reference's (0 to 1).
    pub delta_p: Mean,
    /// Root mean square of it.
    pub delta_p_rms: Mean,
    /// How it is spread.
    pub delta_p_spread: Spread,
    /// Share of tokens for which both have the same likeliest token.
    pub same_top: Mean,
    /// Mean share of the reference's five likeliest tokens that are among the model's five.
    pub shared_top: Mean,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(nll: f64, kld: f64) -> TokenScore {
        let top = [(0, 0.5); TOP];
        let against = Against { nll: nll - 0.1, kld, same_top: kld < 0.5, shared_top: 4, top };
        TokenScore { nll, against: Some(against), top }
    }

    #[test]
    fn a_summary_by_hand() {
        let mut s = Scores::default();
        // Four tokens of one byte each, one bit each.
        for i in 0..4 {
            s.push(10 + i, 8, 1, score(std::f64::consts::LN_2, i as f64 / 4.0));
        }
        s.took(8, Duration::from_secs(2));
        let sum = s.summary();
        assert!((sum.perplexity.value - 2.0).abs() < 1e-12);
        assert!((sum.bits_per_byte.value - 1.0).abs() < 1e-12);
        assert!((sum.tokens_per_second - 4.0).abs() < 1e-12);
        let a = sum.against.unwrap();
        assert!((a.kld.value - 0.375).abs() < 1e-12);
        assert!((a.same_top.value - 0.5).abs() < 1e-12);
        assert!((a.shared_top.value - 0.8).abs() < 1e-12);
        assert!((a.perplexity.ln_ratio.value - 0.1).abs() < 1e-12);
        assert!(a.perplexity.ln_ratio.error < 1e-12);
        // p = 1/2 against 1/2 · e^0.1.
        assert!((a.delta_p.value - (0.5 - 0.5 * 0.1f64.exp())).abs() < 1e-12);
        assert_eq!(s.surprises()[0].at, 13, "the largest divergence first");
        let curve = s.by_position(2);
        assert_eq!(curve.len(), 2);
        assert_eq!((curve[0].0, curve[0].1.value), (3.0, 0.125));
    }
}
