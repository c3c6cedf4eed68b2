//! Weights on their way from a source to an output: read, decoded, checked, encoded.

use std::ops::Range;

use quant::DType;
use quant::codec::{FastCodec, encode_q4_0_searched};

use crate::error::Position;
use crate::plan::TensorPlan;
use crate::source::{Source, SourceTensor};
use crate::{ConvertError, Scale, io};

/// Source bytes read at once. Large enough that calls cost nothing, small enough that a chunk and
/// what becomes of it stay in a core's cache.
const CHUNK: u64 = 512 << 10;

/// A tensor on its way.
pub(crate) struct Job<'a> {
    name: &'a str,
    source: &'a SourceTensor,
    from: DType,
    to: DType,
    /// Weights, and how many of them are a row.
    len: u64,
    cols: u64,
    add_one: bool,
    /// Where it begins in the output.
    pub(crate) offset: u64,
}

/// Bytes that so many weights take; a block's begun part is rounded down.
fn bytes_of(dtype: DType, weights: u64) -> u64 {
    weights * dtype.block_bytes() as u64 / dtype.block_len() as u64
}

/// Weights of a chunk: whole blocks of both types.
fn chunk_len(from: DType, to: DType) -> u64 {
    (CHUNK / from.block_bytes() as u64 * from.block_len() as u64)
        .next_multiple_of(block_len(from, to))
}

/// Weights of the larger of two types' blocks; the smaller one's divide it.
fn block_len(a: DType, b: DType) -> u64 {
    a.block_len().max(b.block_len()) as u64
}

impl<'a> Job<'a> {
    pub(crate) fn new(
        source: &'a SourceTensor,
        plan: &TensorPlan,
        offset: u64,
    ) -> Result<Self, ConvertError> {
        let found = |found: &String| ConvertError::TensorType {
            tensor: source.name.clone(),
            found: found.clone(),
        };
        let from = *source.dtype.as_ref().map_err(found)?;
        let to = plan.spec.dtype;
        let cols = plan.spec.dims[0] as usize; // the layout checked that it is there and fits
        let whole = from.row_bytes(cols).and(to.row_bytes(cols));
        whole.ok_or_else(|| found(&format!("rows of {cols} {from} weights")))?;
        let rows = source.rows_cols().map_or(1, |(rows, _)| rows);
        let (len, cols) = (rows * cols as u64, cols as u64);
        let (name, add_one) = (&source.name, plan.add_one);
        Ok(Job { name, source, from, to, len, cols, add_one, offset })
    }

    /// Bytes that the first `weights` weights take in the source.
    pub(crate) fn source_bytes(&self, weights: u64) -> u64 {
        bytes_of(self.from, weights)
    }

    /// Bytes of all of it in the source.
    pub(crate) fn all_source_bytes(&self) -> u64 {
        self.source_bytes(self.len)
    }

    /// Bytes that the first `weights` weights take in the output.
    pub(crate) fn output_bytes(&self, weights: u64) -> u64 {
        bytes_of(self.to, weights)
    }

    /// Where it ends in the output.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.output_bytes(self.len)
    }

    /// The weights whose blocks begin in these bytes of the output.
    pub(crate) fn begun_in(&self, bytes: &Range<u64>) -> Range<u64> {
        let weight = |at: u64| {
            let block = at.saturating_sub(self.offset).div_ceil(self.to.block_bytes() as u64);
            (block * self.to.block_len() as u64).min(self.len)
        };
        weight(bytes.start)..weight(bytes.end)
    }

    /// The weights of which a part lies in these bytes of the output, in chunks that begin and end with blocks of
    /// both types.
    pub(crate) fn chunks(&self, bytes: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        let begun = self.begun_in(bytes);
        let crosses = self.offset + self.output_bytes(begun.start) > bytes.start && begun.start > 0;
        let first = begun.start - if crosses { self.to.block_len() as u64 } else { 0 };
        let block = block_len(self.from, self.to);
        let (from, to) = (first / block * block, begun.end.next_multiple_of(block).min(self.len));
        let step = chunk_len(self.from, self.to);
        (from..to).step_by(step as usize).map(move |at| at..(at + step).min(to))
    }

    /// Converts some weights, whole blocks, into `out`, which is as long as they are then.
    pub(crate) fn convert(
        &self,
        source: &Source,
        weights: Range<u64>,
        scale: Scale,
        buffers: &mut Buffers,
        out: &mut [u8],
    ) -> Result<(), ConvertError> {
        let first = weights.start;
        buffers.read(source, self.source, self.from, weights)?;
        buffers.decode(self.from);
        if self.add_one {
            buffers.weights.iter_mut().for_each(|w| *w += 1.0);
        }
        self.check(first, &buffers.weights)?;
        match (self.to, scale) {
            (to, _) if to == self.from && !self.add_one => out.copy_from_slice(&buffers.raw),
            (DType::Q4_0, Scale::Search) => encode_q4_0_searched(&buffers.weights, out),
            _ => buffers.codec.encode(self.to, &buffers.weights, out),
        }
        Ok(())
    }

    /// Fails when a weight is not finite or is more than the output type holds.
    fn check(&self, first: u64, weights: &[f32]) -> Result<(), ConvertError> {
        // Magnitudes order like their bits, with infinity and then NaN above all of them.
        let magnitude = |w: &f32| w.to_bits() & 0x7fff_ffff;
        let limit = limit(self.to);
        let largest = weights.iter().map(magnitude).fold(0, u32::max);
        if largest <= limit.to_bits() {
            return Ok(());
        }
        let at = weights.iter().position(|w| magnitude(w) > limit.to_bits()).unwrap_or(0);
        let weight = first + at as u64;
        let position = Position { row: weight / self.cols, column: weight % self.cols };
        let (tensor, value) = (self.name.to_owned(), weights[at]);
        Err(if value.is_finite() {
            ConvertError::Overflow { tensor, value, position, dtype: self.to }
        } else {
            ConvertError::NotFinite { tensor, value, position }
        })
    }
}

/// The largest magnitude that `dtype` stores as a finite number. Block formats store a scale in
/// f16, the largest magnitude of the block divided by a constant.
fn limit(dtype: DType) -> f32 {
    const F16_MAX: f32 = 65504.0;
    match dtype {
        DType::F16 => F16_MAX,
        DType::Q8_0 => F16_MAX * 127.0,
        DType::Q4_0 => F16_MAX * 8.0,
        // Halfway to the next power of two above bf16's largest, which rounds to infinity.
        DType::BF16 => f32::from_bits(0x7f7f_7fff),
        _ => f32::MAX,
    }
}

/// A thread's buffers.
pub(crate) struct Buffers {
    codec: FastCodec,
    raw: Vec<u8>,
    weights: Vec<f32>,
}

impl Buffers {
    pub(crate) fn new() -> Self {
        Buffers { codec: FastCodec::detect(), raw: Vec::new(), weights: Vec::new() }
    }

    /// Reads some weights, whole blocks, of a tensor.
    fn read(
        &mut self,
        source: &Source,
        tensor: &SourceTensor,
        dtype: DType,
        weights: Range<u64>,
    ) -> Result<(), ConvertError> {
        let (from, to) = (bytes_of(dtype, weights.start), bytes_of(dtype, weights.end));
        self.raw.resize((to - from) as usize, 0);
        self.weights.resize((weights.end - weights.start) as usize, 0.0);
        let file = &source.files[tensor.file];
        io::read_exact_at(&file.file, &mut self.raw, tensor.offset + from)
            .map_err(ConvertError::io("read", &file.path))
    }

    /// Decodes what was read.
    fn decode(&mut self, from: DType) {
        self.codec.decode(from, &self.raw, &mut self.weights);
    }
}

/// Do two tensors of a source hold the same weights? They may differ in type.
pub(crate) fn same_weights(source: &Source, a: usize, b: usize) -> Result<bool, ConvertError> {
    let (a, b) = (&source.tensors[a], &source.tensors[b]);
    let (Ok(from_a), Ok(from_b)) = (&a.dtype, &b.dtype) else { return Ok(false) };
    let (true, Some((rows, cols))) = (a.shape == b.shape, a.rows_cols()) else { return Ok(false) };
    if from_a.row_bytes(cols as usize).and(from_b.row_bytes(cols as usize)).is_none() {
        return Ok(false);
    }
    let (mut left, mut right) = (Buffers::new(), Buffers::new());
    let (len, step) = (rows * cols, chunk_len(*from_a, *from_b));
    for at in (0..len).step_by(step as usize) {
        let weights = at..(at + step).min(len);
        left.read(source, a, *from_a, weights.clone())?;
        right.read(source, b, *from_b, weights)?;
        let same = if from_a == from_b {
            left.raw == right.raw
        } else {
            left.decode(*from_a);
            right.decode(*from_b);
            left.weights == right.weights
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}
