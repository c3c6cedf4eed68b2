//! Row operations around the matmuls, written once over every instruction set.

use quant::kernels::Kernels;

use super::simd::{self, Op, Simd};

/// out = x / √(mean(x²) + ε) · w (RMSNorm, Zhang & Sennrich 2019; Gemma's `1 +` is in `w`).
pub(crate) fn rms_norm(k: &Kernels, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == w.len() && x.len() == out.len());
    simd::run(k, RmsNorm::<false> { x, w, eps, out });
}

/// out += x / √(mean(x²) + ε) · w.
pub(crate) fn add_rms_norm(k: &Kernels, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == w.len() && x.len() == out.len());
    simd::run(k, RmsNorm::<true> { x, w, eps, out });
}

struct RmsNorm<'a, const ADD: bool> {
    x: &'a [f32],
    w: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl<const ADD: bool> Op for RmsNorm<'_, ADD> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (n, body) = (self.x.len(), self.x.len() / S::LANES * S::LANES);
        let (x, w, out) = (self.x.as_ptr(), self.w.as_ptr(), self.out.as_mut_ptr());
        let mut squares = [s.zero(), s.zero()];
        for (j, i) in (0..body).step_by(S::LANES).enumerate() {
            // SAFETY: i + LANES ≤ body ≤ the length of all three (asserted by the callers).
            let v = unsafe { s.load(x.add(i)) };
            squares[j & 1] = s.fma(v, v, squares[j & 1]);
        }
        let tail: f32 = self.x[body..].iter().map(|v| v * v).sum();
        let mean = (s.sum(s.add(squares[0], squares[1])) + tail) / n as f32;
        let r = 1.0 / (mean + self.eps).sqrt();
        let rv = s.splat(r);
        for i in (0..body).step_by(S::LANES) {
            // SAFETY: as above.
            unsafe {
                let v = s.mul(s.mul(s.load(x.add(i)), rv), s.load(w.add(i)));
                let v = if ADD { s.add(s.load(out.add(i)), v) } else { v };
                s.store(out.add(i), v);
            }
        }
        for i in body..n {
            let v = self.x[i] * r * self.w[i];
            self.out[i] = if ADD { self.out[i] + v } else { v };
        }
    }
}

/// gate = GELU(gate) · up, with the tanh approximation of GELU (Hendrycks & Gimpel 2016):
/// x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))).
pub(crate) fn gelu_mul(k: &Kernels, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len());
    simd::run(k, GeluMul { gate, up });
}

struct GeluMul<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Op for GeluMul<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let body = self.gate.len() / S::LANES * S::LANES;
        let (g, u) = (self.gate.as_mut_ptr(), self.up.as_ptr());
        for i in (0..body).step_by(S::LANES) {
            // SAFETY: i + LANES ≤ body ≤ both lengths, which are equal.
            unsafe { s.store(g.add(i), s.mul(gelu(s, s.load(g.add(i))), s.load(u.add(i)))) };
        }
        for i in body..self.gate.len() {
            self.gate[i] = s.max_lane(gelu(s, s.splat(self.gate[i]))) * self.up[i];
        }
    }
}

/// x = GELU(x + bias), the same approximation.
pub(crate) fn add_gelu(k: &Kernels, x: &mut [f32], bias: &[f32]) {
    assert_eq!(x.len(), bias.len());
    simd::run(k, AddGelu { x, bias });
}

struct AddGelu<'a> {
    x: &'a mut [f32],
    bias: &'a [f32],
}

impl Op for AddGelu<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let body = self.x.len() / S::LANES * S::LANES;
        let (x, b) = (self.x.as_mut_ptr(), self.bias.as_ptr());
        for i in (0..body).step_by(S::LANES) {
            // SAFETY: i + LANES ≤ body ≤ both lengths, which are equal.
            unsafe { s.store(x.add(i), gelu(s, s.add(s.load(x.add(i)), s.load(b.add(i))))) };
        }
        for i in body..self.x.len() {
            self.x[i] = s.max_lane(gelu(s, s.splat(self.x[i] + self.bias[i])));
        }
    }
}

/// x/2 · (1 + tanh u) = x / (1 + 2^(-2u · log₂e)), u = √(2/π) · (x + 0.044715 x³): one exponential, one
/// reciprocal. (A function, not a closure: a closure would not be compiled for the instruction set.)
#[inline(always)]
fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    /// -2 · √(2/π) · log₂e
    const LINEAR: f32 = -2.302_208_2;
    const CUBIC: f32 = LINEAR * 0.044_715;
    let power = s.mul(s.fma(s.mul(x, x), s.splat(CUBIC), s.splat(LINEAR)), x);
    s.mul(x, s.reciprocal(s.add(s.splat(1.0), s.exp2(power))))
}

/// x = c · tanh(x / c).
pub(crate) fn softcap(k: &Kernels, x: &mut [f32], cap: f32) {
    simd::run(k, Softcap { x, cap });
}

struct Softcap<'a> {
    x: &'a mut [f32],
    cap: f32,
}

impl Op for Softcap<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (cap, inv) = (s.splat(self.cap), s.splat(1.0 / self.cap));
        let mut chunks = self.x.chunks_exact_mut(S::LANES);
        for c in &mut chunks {
            // SAFETY: the chunk holds LANES floats.
            unsafe {
                let v = s.load(c.as_ptr());
                s.store(c.as_mut_ptr(), s.mul(cap, s.tanh(s.mul(v, inv))));
            }
        }
        for v in chunks.into_remainder() {
            *v = s.max_lane(s.mul(cap, s.tanh(s.mul(s.splat(*v), inv))));
        }
    }
}

/// Rotates the pairs `(x[i], x[i + half])` by the angles whose cosine and sine are given, and
/// scales: the half-split form of RoPE that Transformers uses.
pub(crate) fn rope(x: &mut [f32], cos: &[f32], sin: &[f32], scale: f32) {
    let half = x.len() / 2;
    let (lo, hi) = x.split_at_mut(half);
    for (((lo, hi), c), s) in lo.iter_mut().zip(hi).zip(cos).zip(sin) {
        let (a, b) = (*lo, *hi);
        *lo = (a * c - b * s) * scale;
        *hi = (b * c + a * s) * scale;
    }
}

/// Widens f16 to f32, two bytes each.
pub(super) struct FromF16<'a> {
    pub(super) x: &'a [u8],
    pub(super) out: &'a mut [f32],
}

impl Op for FromF16<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(self.x.len() == self.out.len() * 2);
        let body = self.out.len() / S::LANES * S::LANES;
        let (x, out) = (self.x.as_ptr(), self.out.as_mut_ptr());
        for i in (0..body).step_by(S::LANES) {
            // SAFETY: i + LANES ≤ body ≤ the length of both; any alignment will do.
            unsafe { s.store(out.add(i), s.load_f16(x.add(2 * i).cast())) };
        }
        for i in body..self.out.len() {
            self.out[i] = half::f16::from_le_bytes([self.x[2 * i], self.x[2 * i + 1]]).to_f32();
        }
    }
}

/// Narrows f32 to f16, nearest even.
pub(crate) fn to_f16(k: &Kernels, x: &[f32], out: &mut [u8]) {
    assert!(out.len() == x.len() * 2);
    simd::run(k, ToF16 { x, out });
}

struct ToF16<'a> {
    x: &'a [f32],
    out: &'a mut [u8],
}

impl Op for ToF16<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let body = self.x.len() / S::LANES * S::LANES;
        let (x, out) = (self.x.as_ptr(), self.out.as_mut_ptr());
        for i in (0..body).step_by(S::LANES) {
            // SAFETY: i + LANES ≤ body ≤ the length of both; any alignment will do.
            unsafe { s.store_f16(out.add(2 * i).cast(), s.load(x.add(i))) };
        }
        for i in body..self.x.len() {
            self.out[2 * i..][..2].copy_from_slice(&half::f16::from_f32(self.x[i]).to_le_bytes());
        }
    }
}

/// Decodes GGUF Q8_0 blocks: `x` holds `out.len() / 32` blocks of 34 bytes.
pub(super) struct FromQ8<'a> {
    pub(super) x: &'a [u8],
    pub(super) out: &'a mut [f32],
}

impl Op for FromQ8<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(self.out.len().is_multiple_of(32) && self.x.len() == self.out.len() / 32 * 34);
        for (x, o) in self.x.chunks_exact(34).zip(self.out.chunks_exact_mut(32)) {
            let d = s.splat(half::f16::from_le_bytes([x[0], x[1]]).to_f32());
            for i in (0..32).step_by(S::LANES) {
                // SAFETY: LANES divides 32; 32 bytes follow the scale and 32 floats are written.
                unsafe {
                    let q = s.load_i8(x.as_ptr().add(2 + i).cast());
                    s.store(o.as_mut_ptr().add(i), s.mul(q, d));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use quant::kernels::Isa;

    use super::*;

    /// Every instruction set of this CPU.
    fn all() -> Vec<Kernels> {
        Isa::available().into_iter().filter_map(Kernels::for_isa).collect()
    }

    fn wave(n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|i| ((i as f32 * 0.7).sin() + 0.3) * scale).collect()
    }

    #[test]
    fn rms_norm_matches_f64() {
        for k in all() {
            for n in [1, 3, 15, 16, 17, 48, 640, 1152] {
                let (x, w) = (wave(n, 30.0), wave(n, 2.0));
                let mut out = vec![f32::NAN; n];
                rms_norm(&k, &x, &w, 1e-6, &mut out);
                let mean = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n as f64;
                let r = 1.0 / (mean + 1e-6).sqrt();
                let mut added = vec![1.0; n];
                add_rms_norm(&k, &x, &w, 1e-6, &mut added);
                for i in 0..n {
                    let want = f64::from(x[i]) * r * f64::from(w[i]);
                    // A sum of n squares is off by at most n ε relative; the root halves that.
                    let tol = want.abs() * (n as f64 + 4.0) * f64::from(f32::EPSILON) + 1e-7;
                    assert!((f64::from(out[i]) - want).abs() <= tol, "{} n {n} i {i}", k.isa());
                    assert!((f64::from(added[i]) - 1.0 - want).abs() <= tol + 1e-6);
                }
            }
        }
    }

    #[test]
    fn gelu_of_a_biased_row() {
        for k in all() {
            for n in [1, 16, 37] {
                let (mut x, bias) = (wave(n, 3.0), wave(n, -1.5));
                let mut want: Vec<f32> = x.iter().zip(&bias).map(|(x, b)| x + b).collect();
                gelu_mul(&k, &mut want, &vec![1.0; n]);
                add_gelu(&k, &mut x, &bias);
                assert_eq!(x, want, "{} n {n}", k.isa());
            }
        }
    }

    #[test]
    fn gelu_matches_f64() {
        for k in all() {
            let x: Vec<f32> = (-400..=403).map(|i| i as f32 * 0.05).chain([1e4, -1e4]).collect();
            let up = wave(x.len(), 3.0);
            let mut g = x.clone();
            gelu_mul(&k, &mut g, &up);
            for i in 0..x.len() {
                let v = f64::from(x[i]);
                let u = (2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v * v * v);
                let want = 0.5 * v * (1.0 + u.tanh()) * f64::from(up[i]);
                let err = (f64::from(g[i]) - want).abs();
                assert!(err <= 1e-6 + want.abs() * 2e-6, "{} x {v}: {} {want}", k.isa(), g[i]);
            }
        }
    }

    #[test]
    fn softcap_matches_f64() {
        for k in all() {
            let x: Vec<f32> = (-100..=101).map(|i| i as f32 * 1.7).collect();
            let mut y = x.clone();
            softcap(&k, &mut y, 30.0);
            for (x, y) in x.iter().zip(&y) {
                let want = 30.0 * (f64::from(*x) / 30.0).tanh();
                assert!((f64::from(*y) - want).abs() < 2e-5, "{} {x}: {y} {want}", k.isa());
            }
        }
    }

    #[test]
    fn cache_formats_round_trip() {
        for k in all() {
            for n in [1, 15, 16, 33, 64] {
                let x = wave(n, 5.0);
                let mut bytes = vec![0xff; n * 2];
                to_f16(&k, &x, &mut bytes);
                let mut back = vec![f32::NAN; n];
                simd::run(&k, FromF16 { x: &bytes, out: &mut back });
                for (x, b) in x.iter().zip(&back) {
                    assert_eq!(half::f16::from_f32(*x).to_f32(), *b, "{}", k.isa());
                }
            }
            let x = wave(96, 5.0);
            let mut blocks = vec![0; 3 * 34];
            quant::codec::encode_row(quant::DType::Q8_0, &x, &mut blocks);
            let (mut got, mut want) = (vec![f32::NAN; 96], vec![0.0; 96]);
            simd::run(&k, FromQ8 { x: &blocks, out: &mut got });
            quant::codec::decode_row(quant::DType::Q8_0, &blocks, &mut want);
            assert_eq!(got, want);
        }
    }

    #[test]
    fn rope_turns_by_the_angle() {
        let mut x = [1.0, 0.0, 0.0, 2.0];
        let (s, c) = (0.5f32).sin_cos();
        rope(&mut x, &[c, c], &[s, s], 2.0);
        let want = [2.0 * c, -4.0 * s, 2.0 * s, 4.0 * c];
        for (x, w) in x.iter().zip(want) {
            assert!((x - w).abs() < 1e-6);
        }
    }
}
