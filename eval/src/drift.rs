//! How far the residual stream of a model has drifted from the reference's, layer by layer.

use rayon::prelude::*;
use runtime::Session;
use serde::Serialize;

use crate::EvalError;

/// Tokens that are read to measure drift.
pub const TOKENS: usize = 256;

/// The residual stream after one layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerDrift {
    /// Layers before it; 0 is the embedding.
    pub depth: usize,
    /// ‖x - y‖ / ‖y‖, y being the reference's, mean over positions.
    pub relative: f64,
    /// Cosine between the two, mean over positions.
    pub cosine: f64,
}

/// Compares two residual streams, `[depths, positions, hidden]` each. The first position is left
/// out: BOS attracts attention with activations so large that they drown the rest.
pub fn drift(model: &[f32], reference: &[f32], positions: usize, hidden: usize) -> Vec<LayerDrift> {
    let stride = (positions * hidden).max(1);
    let layers = model.par_chunks_exact(stride).zip(reference.par_chunks_exact(stride));
    layers
        .enumerate()
        .map(|(depth, (x, y))| {
            let first = hidden * usize::from(positions > 1);
            let rows = x[first..].chunks_exact(hidden).zip(y[first..].chunks_exact(hidden));
            let n = rows.len().max(1) as f64;
            let (mut relative, mut cosine) = (0.0, 0.0);
            for (x, y) in rows {
                let pairs = || x.iter().zip(y).map(|(x, y)| (f64::from(*x), f64::from(*y)));
                let dd: f64 = pairs().map(|(x, y)| (x - y).powi(2)).sum();
                let xx: f64 = pairs().map(|(x, _)| x * x).sum();
                let yy: f64 = pairs().map(|(_, y)| y * y).sum();
                let xy: f64 = pairs().map(|(x, y)| x * y).sum();
                relative += if dd == 0.0 { 0.0 } else { (dd / yy).sqrt() };
                cosine += if dd == 0.0 { 1.0 } else { xy / (xx * yy).sqrt() };
            }
            LayerDrift { depth, relative: relative / n, cosine: cosine / n }
        })
        .collect()
}

/// Reads `tokens` with both models and compares. Both sessions are emptied before.
///
/// # Errors
/// [`EvalError::OtherArchitecture`] when the shapes differ; those of [`Session::residuals`].
pub fn measure(
    model: (&str, &mut Session),
    reference: (&str, &mut Session),
    tokens: &[u32],
) -> Result<Vec<LayerDrift>, EvalError> {
    let shape = |s: &Session| (s.model().config().layers.len(), s.model().config().hidden);
    let (found, expected) = (shape(model.1), shape(reference.1));
    if found != expected {
        return Err(EvalError::OtherArchitecture {
            model: model.0.to_owned(),
            reference: reference.0.to_owned(),
            found: found.0,
            found_hidden: found.1,
            expected: expected.0,
            expected_hidden: expected.1,
        });
    }
    model.1.truncate(0, 0);
    reference.1.truncate(0, 0);
    let x = model.1.residuals(0, tokens)?;
    let y = reference.1.residuals(0, tokens)?;
    Ok(drift(&x, &y, tokens.len(), expected.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Two depths, two positions, two features; the first position does not count.
        let y = [9.0, 9.0, 3.0, 4.0, 9.0, 9.0, 1.0, 0.0];
        let x = [0.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 1.0];
        let d = drift(&x, &y, 2, 2);
        assert_eq!(d[0], LayerDrift { depth: 0, relative: 0.0, cosine: 1.0 });
        assert_eq!(d[1].cosine, 0.0);
        assert!((d[1].relative - 2.0f64.sqrt()).abs() < 1e-12);
    }
}
