//! Row operations of the tower.

use quant::kernels::Kernels;

use crate::cpu::simd::{self, Op, Simd};

/// out = (x - mean(x)) / √(var(x) + ε) · weight + bias (LayerNorm, Ba et al. 2016).
pub(super) fn layer_norm(
    k: &Kernels,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let n = x.len();
    assert!(n == weight.len() && n == bias.len() && n == out.len());
    simd::run(k, LayerNorm { x, weight, bias, eps, out });
}

struct LayerNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Op for LayerNorm<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (n, body) = (self.x.len(), self.x.len() / S::LANES * S::LANES);
        let x = self.x.as_ptr();
        let mut sum = s.zero();
        for i in (0..body).step_by(S::LANES) {
            // SAFETY: i + LANES ≤ body ≤ the length of all four (asserted by the caller); so below.
            sum = s.add(sum, unsafe { s.load(x.add(i)) });
        }
        let mut total = s.sum(sum);
        for v in &self.x[body..] {
            total += v;
        }
        let mean = total / n as f32;
        let mv = s.splat(mean);
        let mut squares = s.zero();
        for i in (0..body).step_by(S::LANES) {
            // SAFETY: as above.
            let v = s.sub(unsafe { s.load(x.add(i)) }, mv);
            squares = s.fma(v, v, squares);
        }
        let mut total = s.sum(squares);
        for v in &self.x[body..] {
            total += (v - mean) * (v - mean);
        }
        let r = 1.0 / (total / n as f32 + self.eps).sqrt();
        let rv = s.splat(r);
        let (w, b, out) = (self.weight.as_ptr(), self.bias.as_ptr(), self.out.as_mut_ptr());
        for i in (0..body).step_by(S::LANES) {
            // SAFETY: as above.
            unsafe {
                let v = s.mul(s.sub(s.load(x.add(i)), mv), rv);
                s.store(out.add(i), s.fma(v, s.load(w.add(i)), s.load(b.add(i))));
            }
        }
        for i in body..n {
            self.out[i] = (self.x[i] - mean) * r * self.weight[i] + self.bias[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use quant::kernels::Isa;

    use super::*;

    #[test]
    fn layer_norm_is_what_it_says() {
        for isa in Isa::available() {
            let k = Kernels::for_isa(isa).unwrap();
            for n in [1, 5, 16, 48, 75] {
                let x: Vec<f32> = (0..n).map(|i| (i * i % 17) as f32 - 3.0).collect();
                let w: Vec<f32> = (0..n).map(|i| 1.0 + i as f32 / 50.0).collect();
                let b: Vec<f32> = (0..n).map(|i| i as f32 / 9.0 - 1.0).collect();
                let mut out = vec![f32::NAN; n];
                layer_norm(&k, &x, &w, &b, 1e-6, &mut out);
                let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
                let var = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n as f64;
                for i in 0..n {
                    let v = (f64::from(x[i]) - mean) / (var + 1e-6).sqrt();
                    let want = v * f64::from(w[i]) + f64::from(b[i]);
                    assert!((f64::from(out[i]) - want).abs() < 1e-5, "{isa} {n} {i}");
                }
            }
        }
    }
}
