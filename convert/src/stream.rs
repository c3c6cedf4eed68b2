//! Running a plan: rows are read, encoded and written in chunks, several at a time, each at its
//! known place. Memory is a few chunks a thread, however large the model.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use quant::DType;
use quant::codec::{FastCodec, encode_q4_0_searched};
use quant::gguf::{Layout, TensorSpec};

use crate::error::Position;
use crate::output::Staged;
use crate::plan::Plan;
use crate::source::{Source, SourceTensor};
use crate::{ConvertError, Progress, Scale, io};

/// Source bytes read at once. Large enough that calls cost nothing, small enough that a chunk and
/// what becomes of it stay in a core's cache.
const CHUNK: u64 = 512 << 10;

/// How a plan is run.
#[derive(Clone, Copy)]
pub(crate) struct How {
    pub(crate) threads: NonZero<usize>,
    /// Replace files that exist.
    pub(crate) force: bool,
    /// How Q4_0 scales are chosen.
    pub(crate) scale: Scale,
}

/// A tensor on its way.
struct Job<'a> {
    name: &'a str,
    source: &'a SourceTensor,
    from: DType,
    to: DType,
    cols: usize,
    /// Bytes of a row in the source, and in the output.
    row_bytes: (usize, usize),
    add_one: bool,
    output: &'a Staged,
    offset: u64,
}

/// Some rows of a job.
struct Chunk {
    job: usize,
    row: u64,
    rows: usize,
}

/// A thread's buffers.
struct Buffers {
    codec: FastCodec,
    raw: Vec<u8>,
    weights: Vec<f32>,
    encoded: Vec<u8>,
}

impl Buffers {
    fn new(codec: FastCodec) -> Self {
        Buffers { codec, raw: Vec::new(), weights: Vec::new(), encoded: Vec::new() }
    }

    /// Decodes all of `raw`, which holds `count` weights.
    fn decode(&mut self, from: DType, count: usize) {
        self.weights.resize(count, 0.0);
        self.codec.decode(from, &self.raw, &mut self.weights);
    }
}

/// Writes all files of `plan`; the lengths they have.
///
/// # Errors
/// Anything that goes wrong first; no file is left behind then.
pub(crate) fn run(
    source: Source,
    plan: &Plan,
    how: How,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<Vec<u64>, ConvertError> {
    let mut staged = Vec::new();
    let mut layouts = Vec::new();
    for file in &plan.files {
        let specs: Vec<TensorSpec> = file.tensors.iter().map(|t| t.spec.clone()).collect();
        let layout = Layout::new(&file.metadata, &specs).map_err(ConvertError::Layout)?;
        let output = Staged::create(&file.path, how.force)?;
        // The length is set first: gaps read as zeros, and threads can write anywhere.
        let failed = ConvertError::io("write", &file.path);
        output.file().set_len(layout.file_len).map_err(failed)?;
        output.write_at(&layout.header, 0)?;
        staged.push(output);
        layouts.push(layout);
    }
    let mut jobs = Vec::new();
    for ((file, layout), output) in plan.files.iter().zip(&layouts).zip(&staged) {
        for (tensor, &offset) in file.tensors.iter().zip(&layout.offsets) {
            jobs.push(Job::new(&source.tensors[tensor.source], tensor, output, offset)?);
        }
    }
    let chunks = chunks(&jobs);
    progress.begin(chunks.iter().map(|c| c.rows as u64 * jobs[c.job].row_bytes.0 as u64).sum());
    work(&source, &jobs, &chunks, how, progress, cancel)?;
    // Windows does not rename over a file that is open for reading.
    drop(jobs);
    drop(source);
    for output in staged {
        output.persist()?;
    }
    Ok(layouts.iter().map(|l| l.file_len).collect())
}

impl<'a> Job<'a> {
    fn new(
        source: &'a SourceTensor,
        plan: &'a crate::plan::TensorPlan,
        output: &'a Staged,
        offset: u64,
    ) -> Result<Self, ConvertError> {
        let found = |found: &String| ConvertError::TensorType {
            tensor: source.name.clone(),
            found: found.clone(),
        };
        let from = *source.dtype.as_ref().map_err(found)?;
        let to = plan.spec.dtype;
        let cols = plan.spec.dims[0] as usize; // the layout checked that it is there and fits
        let sizes = from.row_bytes(cols).zip(to.row_bytes(cols));
        let row_bytes = sizes.ok_or_else(|| found(&format!("rows of {cols} {from} weights")))?;
        Ok(Job {
            name: &source.name,
            source,
            from,
            to,
            cols,
            row_bytes,
            add_one: plan.add_one,
            output,
            offset,
        })
    }

    fn rows(&self) -> u64 {
        self.source.rows_cols().map_or(1, |(rows, _)| rows)
    }
}

fn chunks(jobs: &[Job<'_>]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for (job, j) in jobs.iter().enumerate() {
        let step = (CHUNK / j.row_bytes.0 as u64).max(1);
        for row in (0..j.rows()).step_by(step as usize) {
            let rows = step.min(j.rows() - row) as usize;
            chunks.push(Chunk { job, row, rows });
        }
    }
    chunks
}

/// Threads take chunks in order, so that reads and writes stay nearly sequential.
fn work(
    source: &Source,
    jobs: &[Job<'_>],
    chunks: &[Chunk],
    how: How,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<(), ConvertError> {
    let codec = FastCodec::detect();
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let first_error = Mutex::new(None);
    let worker = || {
        let mut buffers = Buffers::new(codec);
        loop {
            if failed.load(Ordering::Relaxed) {
                return;
            }
            let result = if cancel.load(Ordering::Relaxed) {
                Err(ConvertError::Cancelled)
            } else {
                let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                convert(source, &jobs[chunk.job], chunk, how.scale, &mut buffers)
            };
            match result {
                Ok(bytes) => progress.advance(bytes),
                Err(e) => {
                    failed.store(true, Ordering::Relaxed);
                    let mut first = first_error.lock().unwrap_or_else(|e| e.into_inner());
                    first.get_or_insert(e);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..how.threads.get().min(chunks.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    match first_error.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

/// Converts one chunk; the source bytes it took.
fn convert(
    source: &Source,
    job: &Job<'_>,
    chunk: &Chunk,
    scale: Scale,
    buffers: &mut Buffers,
) -> Result<u64, ConvertError> {
    let (source_row, output_row) = job.row_bytes;
    read_rows(source, job.source, source_row, chunk, &mut buffers.raw)?;
    buffers.decode(job.from, job.cols * chunk.rows);
    if job.add_one {
        buffers.weights.iter_mut().for_each(|w| *w += 1.0);
    }
    check(job, chunk.row, &buffers.weights)?;
    let output = if job.from == job.to && !job.add_one {
        &buffers.raw
    } else {
        let out = &mut buffers.encoded;
        out.resize(output_row * chunk.rows, 0);
        match (job.to, scale) {
            (DType::Q4_0, Scale::Search) => encode_q4_0_searched(&buffers.weights, out),
            _ => buffers.codec.encode(job.to, &buffers.weights, out),
        }
        out
    };
    job.output.write_at(output, job.offset + chunk.row * output_row as u64)?;
    Ok(buffers.raw.len() as u64)
}

fn read_rows(
    source: &Source,
    tensor: &SourceTensor,
    row_bytes: usize,
    chunk: &Chunk,
    raw: &mut Vec<u8>,
) -> Result<(), ConvertError> {
    raw.resize(row_bytes * chunk.rows, 0);
    let file = &source.files[tensor.file];
    let offset = tensor.offset + chunk.row * row_bytes as u64;
    io::read_exact_at(&file.file, raw, offset).map_err(ConvertError::io("read", &file.path))
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

/// Fails when a weight is not finite or is more than the output type holds.
fn check(job: &Job<'_>, first_row: u64, weights: &[f32]) -> Result<(), ConvertError> {
    // Magnitudes order like their bits, with infinity and then NaN above all of them.
    let magnitude = |w: &f32| w.to_bits() & 0x7fff_ffff;
    let limit = limit(job.to);
    let largest = weights.iter().map(magnitude).fold(0, u32::max);
    if largest <= limit.to_bits() {
        return Ok(());
    }
    let at = weights.iter().position(|w| magnitude(w) > limit.to_bits()).unwrap_or(0);
    let position =
        Position { row: first_row + (at / job.cols) as u64, column: (at % job.cols) as u64 };
    let (tensor, value) = (job.name.to_owned(), weights[at]);
    Err(if value.is_finite() {
        ConvertError::Overflow { tensor, value, position, dtype: job.to }
    } else {
        ConvertError::NotFinite { tensor, value, position }
    })
}

/// Do two tensors of a source hold the same weights? They may differ in type.
pub(crate) fn same_weights(source: &Source, a: usize, b: usize) -> Result<bool, ConvertError> {
    let (a, b) = (&source.tensors[a], &source.tensors[b]);
    let (Ok(from_a), Ok(from_b)) = (&a.dtype, &b.dtype) else { return Ok(false) };
    let (true, Some((rows, cols))) = (a.shape == b.shape, a.rows_cols()) else { return Ok(false) };
    let cols = cols as usize;
    let (Some(bytes_a), Some(bytes_b)) = (from_a.row_bytes(cols), from_b.row_bytes(cols)) else {
        return Ok(false);
    };
    let codec = FastCodec::detect();
    let (mut left, mut right) = (Buffers::new(codec), Buffers::new(codec));
    let step = (CHUNK / bytes_a as u64).max(1);
    for row in (0..rows).step_by(step as usize) {
        let chunk = Chunk { job: 0, row, rows: step.min(rows - row) as usize };
        read_rows(source, a, bytes_a, &chunk, &mut left.raw)?;
        read_rows(source, b, bytes_b, &chunk, &mut right.raw)?;
        if from_a == from_b {
            if left.raw != right.raw {
                return Ok(false);
            }
            continue;
        }
        left.decode(*from_a, cols * chunk.rows);
        right.decode(*from_b, cols * chunk.rows);
        if left.weights != right.weights {
            return Ok(false);
        }
    }
    Ok(true)
}
