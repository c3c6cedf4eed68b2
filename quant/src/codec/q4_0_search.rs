//! Q4_0 with a searched scale: the format of [`super::BlockQ4_0`] to the bit, other choices within it.
//!
//! The reference maps the weight of largest magnitude to -8 exactly. That spends the block's only
//! parameter on one weight; a slightly smaller or larger scale often puts the other 31 nearer to
//! the grid. Candidates around the default, of both signs, are rounded, each gets the scale that
//! fits its nibbles best in the sense of least squares (d = Σxq / Σq²), and the one with the
//! smallest squared error *as it will be read back*, through the f16 scale, is kept. The default is
//! among the candidates, so no block is ever worse than the reference's.

use half::f16;

use super::{BlockQ4_0, QK, q4_0};

/// Candidates: the extreme weight lies this many steps from zero.
const STEPS: [f32; 15] =
    [8.0, 7.8, 7.6, 7.4, 7.2, 7.0, 6.8, 6.6, 6.4, 6.2, 8.2, 8.4, 8.6, 8.8, 9.0];

/// Encodes `x` (whole blocks) as Q4_0 with the best scales found.
///
/// # Panics
/// When `out` does not hold exactly the blocks of `x`.
pub fn encode_q4_0_searched(x: &[f32], out: &mut [u8]) {
    assert_eq!(
        crate::DType::Q4_0.row_bytes(x.len()),
        Some(out.len()),
        "a searched q4_0 row of {}",
        x.len()
    );
    q4_0::encode(x, out);
    let blocks = bytemuck::cast_slice_mut::<u8, BlockQ4_0>(out);
    for (x, b) in x.as_chunks::<QK>().0.iter().zip(blocks) {
        improve(x, b);
    }
}

/// Replaces a block, encoded by the reference, by a better one if there is one.
fn improve(x: &[f32; QK], b: &mut BlockQ4_0) {
    let extreme = x.iter().fold(0.0f32, |m, v| if v.abs() > m.abs() { *v } else { m });
    let d0 = f16::from_le_bytes(b.d).to_f32();
    // Blocks at the edges of f16 stay as the reference has them.
    if extreme == 0.0 || d0 == 0.0 || !d0.is_finite() || !(1.0 / extreme).is_finite() {
        return;
    }
    let mut best = (error(x, &signed(b), d0), None);
    for steps in STEPS {
        for sign in [-1.0, 1.0] {
            let q = rounded(x, sign * steps / extreme);
            let Some(d) = fitted(x, &q) else { continue };
            // Once more with the scale as it will be read: the nibbles may move.
            let q = rounded(x, 1.0 / d);
            let Some(d) = fitted(x, &q) else { continue };
            let e = error(x, &q, d);
            if e < best.0 {
                best = (e, Some((q, d)));
            }
        }
    }
    if let Some((q, d)) = best.1 {
        b.d = f16::from_f32(d).to_le_bytes();
        for j in 0..QK / 2 {
            b.qs[j] = (q[j] + 8.0) as u8 | ((q[j + QK / 2] + 8.0) as u8) << 4;
        }
    }
}

/// The weights on the grid -8 ..= 7 of scale 1 / `id`.
fn rounded(x: &[f32; QK], id: f32) -> [f32; QK] {
    // Truncation after + 8.5 rounds half up, as the format's encoder does.
    x.map(|v| ((v * id + 8.5).clamp(0.0, 15.0) as i32 - 8) as f32)
}

/// The best scale for these grid values, as f16 reads it; `None` where there is none to use.
fn fitted(x: &[f32; QK], q: &[f32; QK]) -> Option<f32> {
    let (mut xq, mut qq) = (0.0f32, 0.0f32);
    for (x, q) in x.iter().zip(q) {
        xq += x * q;
        qq += q * q;
    }
    let d = f16::from_f32(xq / qq).to_f32();
    (d.is_finite() && d != 0.0 && (1.0 / d).is_finite()).then_some(d)
}

/// Squared error of a block as it is read back.
fn error(x: &[f32; QK], q: &[f32; QK], d: f32) -> f64 {
    x.iter().zip(q).map(|(x, q)| f64::from(x - q * d).powi(2)).sum()
}

/// The grid values of a block.
fn signed(b: &BlockQ4_0) -> [f32; QK] {
    std::array::from_fn(|i| {
        let byte = b.qs[i % (QK / 2)];
        f32::from((if i < QK / 2 { byte & 15 } else { byte >> 4 }) as i8 - 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::codec::{decode_row, encode_row};
    use proptest::prelude::*;

    fn squared_error(x: &[f32], bytes: &[u8]) -> f64 {
        let mut y = vec![0.0; x.len()];
        decode_row(DType::Q4_0, bytes, &mut y);
        x.iter().zip(&y).map(|(x, y)| f64::from(x - y).powi(2)).sum()
    }

    fn both(x: &[f32]) -> (f64, f64) {
        let (mut a, mut b) = (vec![0; x.len() / QK * 18], vec![0xff; x.len() / QK * 18]);
        encode_row(DType::Q4_0, x, &mut a);
        encode_q4_0_searched(x, &mut b);
        (squared_error(x, &a), squared_error(x, &b))
    }

    #[test]
    fn blocks_on_the_grid_stay_exact() {
        let x: Vec<f32> = (0..QK).map(|i| ((i % 16) as f32 - 8.0) * 0.25).collect();
        assert_eq!(both(&x), (0.0, 0.0));
        // Its mirror image does not fit the reference's sign; the search finds it.
        let x: Vec<f32> = (0..QK).map(|i| ((i % 15) as f32 - 7.0) * 0.25).collect();
        let (reference, searched) = both(&x);
        assert!(reference > 0.0 && searched == 0.0, "{reference} {searched}");
    }

    #[test]
    fn odd_blocks_do_not_break_it() {
        for v in [0.0, -0.0, 1.0, -1.0, 1e-30, f32::MIN_POSITIVE, 1e-8, 5e5, f32::MAX] {
            let (reference, searched) = both(&[v; QK]);
            assert!(searched <= reference || reference.is_nan(), "{v}: {reference} {searched}");
        }
    }

    #[test]
    fn gaussian_blocks_get_better() {
        // A sum of uniform numbers is near enough to normal.
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let x: Vec<f32> = (0..64 * QK).map(|_| (0..12).map(|_| uniform()).sum()).collect();
        let (reference, searched) = both(&x);
        assert!(searched < 0.9 * reference, "{searched} of {reference}");
    }

    proptest! {
        /// Never worse, whatever the block.
        #[test]
        fn never_worse(x in prop::array::uniform32(-1e4f32..1e4), scale in -40i32..2) {
            let x = x.map(|v| v * (scale as f32).exp2());
            let (reference, searched) = both(&x);
            prop_assert!(searched <= reference, "{searched} > {reference}");
        }
    }
}
