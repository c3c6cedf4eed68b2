//! What the integration tests share: fixtures, conversion, and measures of difference.
#![allow(dead_code)] // each test binary uses a part

#[cfg(feature = "gpu")]
pub(crate) mod gpu;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use quant::DType;
use runtime::{Model, RuntimeError, Session, SessionOptions};
use safetensors::SafeTensors;

/// The folder of a fixture.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Reference logits of a fixture.
pub(crate) struct Golden {
    pub(crate) tokens: Vec<u32>,
    pub(crate) vocab: usize,
    tensors: Vec<(String, Vec<f32>)>,
}

impl Golden {
    pub(crate) fn load(name: &str) -> Self {
        let bytes = std::fs::read(fixture(name).join("golden.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Vec<[u8; 4]> {
            let data = file.tensor(name).unwrap().data();
            data.chunks_exact(4).map(|c| c.try_into().unwrap()).collect()
        };
        let tokens = words("tokens").into_iter().map(u32::from_le_bytes).collect();
        let vocab = file.tensor("logits").unwrap().shape()[1];
        let tensors = file
            .names()
            .into_iter()
            .filter(|n| n.starts_with("logits"))
            .map(|n| (n.to_string(), words(n).into_iter().map(f32::from_le_bytes).collect()))
            .collect();
        Golden { tokens, vocab, tensors }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[f32]> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t.as_slice())
    }

    pub(crate) fn logits(&self, name: &str) -> &[f32] {
        self.get(name).unwrap()
    }
}

/// Converts a fixture into a folder of its own; the model is `model.gguf` in it.
pub(crate) fn convert(name: &str, dtype: DType, embed: DType) -> tempfile::TempDir {
    convert_dir(&fixture(name), dtype, embed)
}

/// Converts any checkpoint into a folder of its own. What a static holds is never removed, so the folder lies among
/// what was built, where there is such a place.
pub(crate) fn convert_dir(checkpoint: &Path, dtype: DType, embed: DType) -> tempfile::TempDir {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = if built.is_dir() { built.into() } else { std::env::temp_dir() };
    let dir = tempfile::tempdir_in(folder).unwrap();
    let options = convert::Options {
        output: Some(dir.path().join("model.gguf")),
        dtype,
        embed: Some(embed),
        ..convert::Options::new(checkpoint)
    };
    convert::convert(&options, &(), &AtomicBool::new(false)).unwrap();
    dir
}

/// Opens what [`convert`] wrote.
pub(crate) fn open(dir: &Path) -> Arc<Model> {
    Arc::new(Model::open(dir.join("model.gguf")).unwrap())
}

/// The logits of every position, `[positions, vocab]`. The tokens are appended in pieces of the
/// given sizes, and what is left after these in one piece.
pub(crate) fn logits(
    model: &Arc<Model>,
    options: &SessionOptions,
    tokens: &[u32],
    cuts: &[usize],
) -> Vec<f32> {
    let mut session = Session::new(model.clone(), options).unwrap();
    let mut out = Vec::new();
    let mut rest = tokens;
    for &n in cuts.iter().chain([&usize::MAX]) {
        let (piece, after) = rest.split_at(n.min(rest.len()));
        rest = after;
        let each = |logits: &[f32]| -> Result<(), RuntimeError> {
            out.extend_from_slice(logits);
            Ok(())
        };
        session.append_all_logits(0, piece, each).unwrap();
    }
    out
}

/// Variance of all the values.
pub(crate) fn variance(x: &[f32]) -> f64 {
    let n = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n
}

/// The largest difference at any position, in standard deviations of all the reference's logits.
pub(crate) fn worst_error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let worst = got
        .iter()
        .zip(want)
        .map(|(g, w)| f64::from((g - w).abs()))
        .fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) });
    worst / variance(want).sqrt()
}

/// Root mean square difference, in standard deviations of the reference.
pub(crate) fn rms_error(got: &[f32], want: &[f32]) -> f64 {
    let squares = got.iter().zip(want).map(|(g, w)| f64::from(g - w).powi(2)).sum::<f64>();
    (squares / want.len() as f64 / variance(want)).sqrt()
}

/// Mean KL divergence of `got` from `want` over positions, and how often the top token agrees.
pub(crate) fn divergence(got: &[f32], want: &[f32], vocab: usize) -> (f64, f64) {
    let log_softmax = |x: &[f32]| -> Vec<f64> {
        let max = x.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
        let sum: f64 = x.iter().map(|v| f64::from(v - max).exp()).sum();
        x.iter().map(|v| f64::from(v - max) - sum.ln()).collect()
    };
    let top = |x: &[f32]| (0..vocab).max_by(|&a, &b| x[a].total_cmp(&x[b]));
    let positions = want.len() / vocab;
    let (mut kl, mut same) = (0.0, 0.0);
    for (g, w) in got.chunks_exact(vocab).zip(want.chunks_exact(vocab)) {
        let (lg, lw) = (log_softmax(g), log_softmax(w));
        kl += lw.iter().zip(&lg).map(|(w, g)| w.exp() * (w - g)).sum::<f64>();
        same += f64::from(u8::from(top(g) == top(w)));
    }
    (kl / positions as f64, same / positions as f64)
}
