//! The exponential, the same to the last bit everywhere.
//!
//! The standard library's comes from the platform and may differ in its last bits, which would be
//! enough to draw another token once in a while. Additions and multiplications of `f64` may not.

use std::f64::consts::LN_2;

/// 1 / k! for k from 0 to 12.
const TAYLOR: [f64; 13] = {
    let mut coefficients = [1.0; 13];
    let mut k = 1;
    while k < 13 {
        coefficients[k] = coefficients[k - 1] / k as f64;
        k += 1;
    }
    coefficients
};

/// e^x for x ≤ 0, to a relative error below 2e-15; 0 below -700. Without branches or calls, so that
/// the compiler can do several at once.
#[inline]
pub(super) fn exp(x: f64) -> f64 {
    // Adding 1.5 · 2^52 leaves no bits for a fraction: the sum is rounded to a whole number, which
    // is then in its low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    // ln 2 in two parts: n times the first, which has zeros in its low bits, is exact. The last
    // summand is what `LN_2` itself leaves out.
    const LN_2_HIGH: f64 = f64::from_bits(LN_2.to_bits() & !0xFFF_FFFF);
    const LN_2_LOW: f64 = (LN_2 - LN_2_HIGH) + 2.319_046_813_846_3e-17;
    let clamped = if x > -700.0 { x } else { -700.0 };
    // x = n ln 2 + r with |r| ≤ ln 2 / 2, so e^x = 2^n e^r.
    let rounded = clamped * (1.0 / LN_2) + ROUND;
    let n = rounded - ROUND;
    let r = (clamped - n * LN_2_HIGH) - n * LN_2_LOW;
    // The Taylor series of |r| < 0.347: the first term left out is below 1e-15 of the sum.
    let e = TAYLOR.iter().rev().fold(0.0, |e, coefficient| e * r + coefficient);
    // 2^n, n ≥ -1010: a normal number, made from its exponent.
    let power = f64::from_bits(rounded.to_bits().wrapping_add(1023) << 52);
    if x < -700.0 { 0.0 } else { e * power }
}

#[cfg(test)]
mod tests {
    #[test]
    fn agrees_with_the_platform() {
        for i in 0..200_000 {
            let x = -f64::from(i) * 0.003_51;
            let expected = if x < -700.0 { 0.0 } else { x.exp() };
            assert!((super::exp(x) - expected).abs() <= 2e-15 * expected, "{x}");
        }
        assert_eq!(super::exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(super::exp(0.0), 1.0);
    }
}
