//! Weights of two files, tensor by tensor.

use quant::DType;
use quant::codec::FastCodec;
use quant::gguf::{Gguf, Tensor};
use rayon::prelude::*;
use serde::Serialize;

use crate::EvalError;

/// How a tensor differs from the reference's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorDifference {
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: String,
    /// The reference's.
    pub reference_dtype: String,
    /// Stored bits per weight.
    pub bits: f64,
    /// Number of weights.
    pub weights: u64,
    /// Root of the mean squared difference.
    pub rmse: f64,
    /// Largest absolute difference.
    pub max: f64,
    /// ‖a - b‖ / ‖b‖, b being the reference; 0 when both are zero.
    pub relative: f64,
    /// 10 log₁₀ (‖b‖² / ‖a - b‖²), dB; `None` when there is no difference.
    pub snr_db: Option<f64>,
    /// Cosine between the two, as vectors.
    pub cosine: f64,
}

/// Sums over part of a tensor.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    dd: f64,
    aa: f64,
    bb: f64,
    ab: f64,
    max: f32,
}

impl Sums {
    fn of(a: &[f32], b: &[f32]) -> Self {
        let mut total = Sums::default();
        // f32 within a few hundred products, f64 beyond.
        for (a, b) in a.chunks(256).zip(b.chunks(256)) {
            let (mut dd, mut aa, mut bb, mut ab, mut max) = (0f32, 0f32, 0f32, 0f32, 0f32);
            for (a, b) in a.iter().zip(b) {
                let d = a - b;
                dd += d * d;
                aa += a * a;
                bb += b * b;
                ab += a * b;
                max = max.max(d.abs());
            }
            let [dd, aa, bb, ab] = [dd, aa, bb, ab].map(f64::from);
            total = total.plus(Sums { dd, aa, bb, ab, max });
        }
        total
    }

    fn plus(self, o: Sums) -> Self {
        Sums {
            dd: self.dd + o.dd,
            aa: self.aa + o.aa,
            bb: self.bb + o.bb,
            ab: self.ab + o.ab,
            max: self.max.max(o.max),
        }
    }
}

/// Compares the tensors of `a` with those of the same names in `b`, the reference: worst first
/// (lowest signal-to-noise ratio), those without any difference last.
///
/// # Errors
/// [`EvalError::OtherTensors`] or [`EvalError::OtherShape`] when the files are not of one model.
pub fn compare(
    a: (&str, &Gguf<'_>),
    b: (&str, &Gguf<'_>),
) -> Result<Vec<TensorDifference>, EvalError> {
    let other = |name: &str, there: &str, missing: &str| EvalError::OtherTensors {
        name: name.into(),
        there: there.into(),
        missing: missing.into(),
    };
    if let Some(t) = b.1.tensors().iter().find(|t| a.1.tensor(t.name).is_none()) {
        return Err(other(t.name, b.0, a.0));
    }
    let mut differences = Vec::with_capacity(a.1.tensors().len());
    for t in a.1.tensors() {
        let reference = b.1.tensor(t.name).ok_or_else(|| other(t.name, a.0, b.0))?;
        if t.dims != reference.dims {
            let (a, b) = (t.dims.clone(), reference.dims.clone());
            return Err(EvalError::OtherShape { name: t.name.into(), a, b });
        }
        differences.push(difference(t, reference));
    }
    let key = |d: &TensorDifference| d.snr_db.unwrap_or(f64::INFINITY);
    differences.sort_by(|x, y| key(x).total_cmp(&key(y)));
    Ok(differences)
}

/// Rows in a piece of work: enough to be worth a claim, few enough to stay in a cache.
const WEIGHTS: usize = 1 << 15;

fn difference(a: &Tensor<'_>, b: &Tensor<'_>) -> TensorDifference {
    let (ma, mb) = (a.matrix(), b.matrix());
    let (rows, cols) = (ma.rows(), ma.cols());
    let step = (WEIGHTS / cols.max(1)).max(1);
    let codec = FastCodec::detect();
    let sums = (0..rows.div_ceil(step))
        .into_par_iter()
        .map_init(
            || (Vec::new(), Vec::new()),
            |(x, y): &mut (Vec<f32>, Vec<f32>), i| {
                let from = i * step;
                let n = step.min(rows - from);
                x.resize(n * cols, 0.0);
                y.resize(n * cols, 0.0);
                codec.decode(ma.dtype(), ma.slice_rows(from, n).data(), x);
                codec.decode(mb.dtype(), mb.slice_rows(from, n).data(), y);
                Sums::of(x, y)
            },
        )
        .reduce(Sums::default, Sums::plus);
    let weights = a.elements();
    TensorDifference {
        name: a.name.into(),
        dtype: a.dtype.name().into(),
        reference_dtype: b.dtype.name().into(),
        bits: a.dtype.bits_per_weight(),
        weights,
        rmse: (sums.dd / weights.max(1) as f64).sqrt(),
        max: f64::from(sums.max),
        relative: if sums.dd == 0.0 { 0.0 } else { (sums.dd / sums.bb).sqrt() },
        snr_db: (sums.dd > 0.0).then(|| 10.0 * (sums.bb / sums.dd).log10()),
        cosine: if sums.dd == 0.0 { 1.0 } else { sums.ab / (sums.aa * sums.bb).sqrt() },
    }
}

/// Size of a file's tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Size {
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// Weights in it.
    pub weights: u64,
    /// Stored bits per weight, over all tensors.
    pub bits_per_weight: f64,
}

impl Size {
    /// Of a parsed file that is `file_bytes` long.
    pub fn of(gguf: &Gguf<'_>, file_bytes: u64) -> Self {
        let weights: u64 = gguf.tensors().iter().map(Tensor::elements).sum();
        let bytes: u64 = gguf.tensors().iter().map(|t| t.data.len() as u64).sum();
        let bits_per_weight = bytes as f64 * 8.0 / weights.max(1) as f64;
        Size { file_bytes, weights, bits_per_weight }
    }
}

/// Types of the matrices of a file, most weights first, for naming it in a table.
pub fn main_type(gguf: &Gguf<'_>) -> Option<DType> {
    DType::ALL.into_iter().max_by_key(|d| {
        let of_type = gguf.tensors().iter().filter(|t| t.dtype == *d && t.dims.len() > 1);
        // Layers decide: the embedding of a small model outweighs them.
        of_type.filter(|t| t.name.starts_with("blk.")).map(Tensor::elements).sum::<u64>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quant::codec::encode_row;
    use quant::gguf::{Layout, TensorSpec};

    fn file(tensors: &[(&str, DType, &[u64], &[f32])]) -> Vec<u8> {
        let specs: Vec<TensorSpec> = tensors
            .iter()
            .map(|(n, d, dims, _)| TensorSpec { name: (*n).into(), dtype: *d, dims: dims.to_vec() })
            .collect();
        let layout = Layout::new(&[], &specs).unwrap();
        let mut file = vec![0; layout.file_len as usize];
        file[..layout.header.len()].copy_from_slice(&layout.header);
        for ((_, d, _, x), &at) in tensors.iter().zip(&layout.offsets) {
            let n = d.row_bytes(x.len()).unwrap();
            encode_row(*d, x, &mut file[at as usize..][..n]);
        }
        file
    }

    #[test]
    fn by_hand_and_worst_first() {
        let (x, y) = ([3.0, 4.0], [3.0, 0.0]);
        let w: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin()).collect();
        let b = file(&[
            ("same", DType::F32, &[2], &x),
            ("q", DType::F32, &[32, 2], &w),
            ("half", DType::F32, &[2], &x),
        ]);
        let a = file(&[
            ("same", DType::F32, &[2], &x),
            ("q", DType::Q8_0, &[32, 2], &w),
            ("half", DType::F32, &[2], &y),
        ]);
        let (a, b) = (Gguf::parse(&a).unwrap(), Gguf::parse(&b).unwrap());
        let d = compare(("a", &a), ("b", &b)).unwrap();
        let names: Vec<_> = d.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["half", "q", "same"]);
        // a - b = (0, -4), ‖b‖ = 5.
        assert!((d[0].rmse - 8.0f64.sqrt()).abs() < 1e-12 && d[0].max == 4.0);
        assert!((d[0].relative - 0.8).abs() < 1e-12 && (d[0].cosine - 0.6).abs() < 1e-12);
        assert!((d[0].snr_db.unwrap() - 10.0 * (25.0f64 / 16.0).log10()).abs() < 1e-12);
        assert!(d[1].snr_db.unwrap() > 40.0 && d[1].bits == 8.5);
        assert_eq!((d[2].snr_db, d[2].relative, d[2].cosine), (None, 0.0, 1.0));
    }

    #[test]
    fn other_models_are_refused_by_the_tensors_name() {
        let a = file(&[("x", DType::F32, &[2], &[1.0, 2.0])]);
        let b = file(&[("y", DType::F32, &[2], &[1.0, 2.0])]);
        let c = file(&[("x", DType::F32, &[1, 2], &[1.0, 2.0])]);
        let [a, b, c] = [&a, &b, &c].map(|f| Gguf::parse(f).unwrap());
        assert!(compare(("a", &a), ("b", &b)).unwrap_err().to_string().contains("\"y\""));
        assert!(compare(("a", &a), ("c", &c)).unwrap_err().to_string().contains("\"x\""));
    }
}
