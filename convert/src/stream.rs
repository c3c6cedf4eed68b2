//! Running a plan: a file is made in pieces, several at a time, each written at once at its place. Memory is a
//! piece and a chunk of weights a thread, however large the model.

use std::num::NonZero;
use std::ops::Range;
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

/// Bytes of a file that are written at once, at a multiple of as many. Linux keeps in one page of memory what is
/// written so, where the file system can (XFS, ext4 since Linux 6.16), and maps it as one: a model that was just
/// converted starts and decodes faster than from pages of 4 KiB.
const PIECE: u64 = 2 << 20;

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
    /// Weights, and how many of them are a row.
    len: u64,
    cols: u64,
    add_one: bool,
    /// Where it begins in the output.
    offset: u64,
}

/// A file on its way.
struct Output<'a> {
    file: &'a Staged,
    /// What lies before the tensors, from the file's beginning on.
    header: &'a [u8],
    /// In the order of their offsets.
    jobs: Vec<Job<'a>>,
    len: u64,
}

/// What one thread makes and writes at once: these bytes of an output.
struct Piece {
    output: usize,
    bytes: Range<u64>,
}

/// A thread's buffers.
struct Buffers {
    codec: FastCodec,
    raw: Vec<u8>,
    weights: Vec<f32>,
    /// A chunk of the output of which only a part lies in the piece.
    chunk: Vec<u8>,
    /// A piece of the output.
    piece: Vec<u8>,
}

impl Buffers {
    fn new(codec: FastCodec) -> Self {
        Buffers {
            codec,
            raw: Vec::new(),
            weights: Vec::new(),
            chunk: Vec::new(),
            piece: Vec::new(),
        }
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
        // The length is set first, so that threads can write anywhere.
        let failed = ConvertError::io("write", &file.path);
        output.file().set_len(layout.file_len).map_err(failed)?;
        staged.push(output);
        layouts.push(layout);
    }
    let mut outputs = Vec::new();
    for ((plan, layout), file) in plan.files.iter().zip(&layouts).zip(&staged) {
        let mut jobs = Vec::new();
        for (tensor, &offset) in plan.tensors.iter().zip(&layout.offsets) {
            jobs.push(Job::new(&source.tensors[tensor.source], tensor, offset)?);
        }
        jobs.sort_by_key(|j| j.offset);
        outputs.push(Output { file, header: &layout.header, jobs, len: layout.file_len });
    }
    progress.begin(outputs.iter().flat_map(|o| &o.jobs).map(|j| j.source_bytes(j.len)).sum());
    work(&source, &outputs, PIECE, how, progress, cancel)?;
    // Windows does not rename over a file that is open for reading.
    drop(outputs);
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
        Ok(Job {
            name: &source.name,
            source,
            from,
            to,
            len: rows * cols as u64,
            cols: cols as u64,
            add_one: plan.add_one,
            offset,
        })
    }

    /// Bytes that `weights` weights take in the source, rounded down where they end within a block.
    fn source_bytes(&self, weights: u64) -> u64 {
        weights * self.from.block_bytes() as u64 / self.from.block_len() as u64
    }

    /// Where the block of the output begins that has weight `weight`, from the tensor's beginning.
    fn output_bytes(&self, weight: u64) -> u64 {
        weight / self.to.block_len() as u64 * self.to.block_bytes() as u64
    }

    /// The weights whose blocks begin in these bytes of the output.
    fn weights_in(&self, bytes: &Range<u64>) -> Range<u64> {
        let block = |at: u64| at.saturating_sub(self.offset).div_ceil(self.to.block_bytes() as u64);
        let weight = |at: u64| (block(at) * self.to.block_len() as u64).min(self.len);
        weight(bytes.start)..weight(bytes.end)
    }
}

fn pieces(outputs: &[Output<'_>], size: u64) -> Vec<Piece> {
    let of = |output: usize, len: u64| {
        let from = (0..len).step_by(size as usize);
        from.map(move |at| Piece { output, bytes: at..(at + size).min(len) })
    };
    outputs.iter().enumerate().flat_map(|(i, o)| of(i, o.len)).collect()
}

/// Threads take pieces of `size` bytes in order, so that reads and writes stay nearly sequential.
fn work(
    source: &Source,
    outputs: &[Output<'_>],
    size: u64,
    how: How,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<(), ConvertError> {
    let pieces = pieces(outputs, size);
    let codec = FastCodec::detect();
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let first_error = Mutex::new(None);
    let worker = || {
        let mut buffers = Buffers::new(codec);
        // Another thread's error ends this one as well.
        let go_on = || match cancel.load(Ordering::Relaxed) {
            true => Err(ConvertError::Cancelled),
            false => Ok(!failed.load(Ordering::Relaxed)),
        };
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let output = &outputs[piece.output];
            match make(source, output, piece, how.scale, &mut buffers, progress, &go_on) {
                Ok(true) => {}
                Ok(false) => return,
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
        for _ in 1..how.threads.get().min(pieces.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    match first_error.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

/// Makes one piece of a file and writes it; `false` when told not to go on.
fn make(
    source: &Source,
    output: &Output<'_>,
    piece: &Piece,
    scale: Scale,
    buffers: &mut Buffers,
    progress: &dyn Progress,
    go_on: &dyn Fn() -> Result<bool, ConvertError>,
) -> Result<bool, ConvertError> {
    let Range { start, end } = piece.bytes;
    let mut bytes = std::mem::take(&mut buffers.piece);
    bytes.resize((end - start) as usize, 0);
    let mut made = 0; // bytes of the piece
    if let Some(header) = output.header.get(start as usize..) {
        made = header.len().min(bytes.len());
        bytes[..made].copy_from_slice(&header[..made]);
    }
    let first = output.jobs.partition_point(|j| j.offset + j.output_bytes(j.len) <= start);
    for job in output.jobs[first..].iter().take_while(|j| j.offset < end) {
        let mut own = job.weights_in(&piece.bytes);
        // The block that begins in the piece before ends here.
        let mut at = own.start;
        if job.offset + job.output_bytes(at) > start && at > 0 {
            at -= job.to.block_len() as u64;
        }
        // Chunks begin with a block of the source, which may be larger.
        let block = job.from.block_len().max(job.to.block_len()) as u64;
        let step = (CHUNK * job.from.block_len() as u64 / job.from.block_bytes() as u64)
            .next_multiple_of(block);
        while at < own.end {
            if !go_on()? {
                return Ok(false);
            }
            let from = at / block * block;
            at = (from + step).min(own.end.next_multiple_of(block)).min(job.len);
            let (place, len) = (
                job.offset + job.output_bytes(from),
                (job.output_bytes(at) - job.output_bytes(from)) as usize,
            );
            // What of the chunk lies in the piece.
            let skip = (start.saturating_sub(place) as usize).min(len);
            let until = (end.saturating_sub(place) as usize).min(len);
            let to = (place + skip as u64).saturating_sub(start) as usize;
            let gap = made.min(to);
            bytes[gap..to].fill(0);
            made = to + (until - skip);
            let out = &mut bytes[to..made];
            if out.len() == len {
                convert(source, job, from..at, scale, buffers, out)?;
            } else {
                let mut chunk = std::mem::take(&mut buffers.chunk);
                chunk.resize(len, 0);
                convert(source, job, from..at, scale, buffers, &mut chunk)?;
                out.copy_from_slice(&chunk[skip..until]);
                buffers.chunk = chunk;
            }
            let done = at.clamp(own.start, own.end);
            progress.advance(job.source_bytes(done) - job.source_bytes(own.start));
            own.start = done;
        }
    }
    bytes[made..].fill(0);
    let written = output.file.write_at(&bytes, start);
    buffers.piece = bytes;
    written.map(|()| true)
}

/// Converts some weights, whole blocks, into `out`, which is as long as they are then.
fn convert(
    source: &Source,
    job: &Job<'_>,
    weights: Range<u64>,
    scale: Scale,
    buffers: &mut Buffers,
    out: &mut [u8],
) -> Result<(), ConvertError> {
    read(source, job.source, job.from, &weights, &mut buffers.raw)?;
    buffers.decode(job.from, (weights.end - weights.start) as usize);
    if job.add_one {
        buffers.weights.iter_mut().for_each(|w| *w += 1.0);
    }
    check(job, weights.start, &buffers.weights)?;
    match (job.to, scale) {
        (to, _) if to == job.from && !job.add_one => out.copy_from_slice(&buffers.raw),
        (DType::Q4_0, Scale::Search) => encode_q4_0_searched(&buffers.weights, out),
        _ => buffers.codec.encode(job.to, &buffers.weights, out),
    }
    Ok(())
}

/// Reads some weights, whole blocks, of a tensor.
fn read(
    source: &Source,
    tensor: &SourceTensor,
    dtype: DType,
    weights: &Range<u64>,
    raw: &mut Vec<u8>,
) -> Result<(), ConvertError> {
    let place = |weight: u64| weight / dtype.block_len() as u64 * dtype.block_bytes() as u64;
    raw.resize((place(weights.end) - place(weights.start)) as usize, 0);
    let file = &source.files[tensor.file];
    io::read_exact_at(&file.file, raw, tensor.offset + place(weights.start))
        .map_err(ConvertError::io("read", &file.path))
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
fn check(job: &Job<'_>, first: u64, weights: &[f32]) -> Result<(), ConvertError> {
    // Magnitudes order like their bits, with infinity and then NaN above all of them.
    let magnitude = |w: &f32| w.to_bits() & 0x7fff_ffff;
    let limit = limit(job.to);
    let largest = weights.iter().map(magnitude).fold(0, u32::max);
    if largest <= limit.to_bits() {
        return Ok(());
    }
    let at = weights.iter().position(|w| magnitude(w) > limit.to_bits()).unwrap_or(0);
    let weight = first + at as u64;
    let position = Position { row: weight / job.cols, column: weight % job.cols };
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
    let whole = from_a.row_bytes(cols as usize).and(from_b.row_bytes(cols as usize));
    if whole.is_none() {
        return Ok(false);
    }
    let codec = FastCodec::detect();
    let (mut left, mut right) = (Buffers::new(codec), Buffers::new(codec));
    let step = (CHUNK / 4).next_multiple_of(from_a.block_len().max(from_b.block_len()) as u64);
    let len = rows * cols;
    for at in (0..len).step_by(step as usize) {
        let weights = at..(at + step).min(len);
        read(source, a, *from_a, &weights, &mut left.raw)?;
        read(source, b, *from_b, &weights, &mut right.raw)?;
        if from_a == from_b {
            if left.raw != right.raw {
                return Ok(false);
            }
            continue;
        }
        let count = (weights.end - weights.start) as usize;
        left.decode(*from_a, count);
        right.decode(*from_b, count);
        if left.weights != right.weights {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use quant::codec::{decode_row, encode_row};

    use super::*;
    use crate::source::SourceFile;

    /// Counts what it is told.
    #[derive(Default)]
    struct Count(AtomicU64);

    impl Progress for Count {
        fn begin(&self, _: u64) {}
        fn advance(&self, bytes: u64) {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    #[test]
    fn wherever_pieces_end() {
        let dir = tempfile::tempdir().unwrap();
        // Whole numbers as F32, Q8_0, Q6_K (with bytes as they come, but a scale) and more BF16 than a chunk.
        let kinds = [
            (DType::F32, DType::F32, 33, 1, false),
            (DType::F32, DType::F32, 5, 1, true),
            (DType::Q8_0, DType::Q4_0, 96, 7, false),
            (DType::Q6_K, DType::Q8_0, 512, 3, false),
            (DType::Q8_0, DType::Q8_0, 64, 5, false),
            (DType::BF16, DType::Q4_0, 1024, 300, false),
        ];
        let header: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        let (mut stored, mut expected) = (Vec::new(), header.clone());
        let (mut tensors, mut offsets) = (Vec::new(), Vec::new());
        for (from, to, cols, rows, add_one) in kinds {
            let mut bytes = vec![0; from.row_bytes(cols).unwrap() * rows];
            if from == DType::Q6_K {
                for (i, block) in bytes.chunks_exact_mut(from.block_bytes()).enumerate() {
                    block.iter_mut().enumerate().for_each(|(j, b)| *b = (i * 31 + j * 17) as u8);
                    block[208..].copy_from_slice(&[0x00, 0x3C]); // 1.0
                }
            } else {
                let weights: Vec<f32> =
                    (0..cols * rows).map(|i| ((i * i + 3 * i) % 251) as f32 - 120.0).collect();
                encode_row(from, &weights, &mut bytes);
            }
            let mut weights = vec![0.0; cols * rows];
            decode_row(from, &bytes, &mut weights);
            weights.iter_mut().for_each(|w| *w += f32::from(u8::from(add_one)));
            expected.resize(expected.len().next_multiple_of(32), 0);
            offsets.push(expected.len() as u64);
            let mut encoded = bytes.clone();
            if from != to || add_one {
                encoded.resize(to.row_bytes(cols).unwrap() * rows, 0);
                encode_row(to, &weights, &mut encoded);
            }
            expected.extend(encoded);
            tensors.push(SourceTensor {
                name: format!("{from} {to}"),
                file: 0,
                offset: stored.len() as u64,
                dtype: Ok(from),
                shape: vec![rows as u64, cols as u64],
            });
            stored.extend(bytes);
        }
        expected.resize(expected.len().next_multiple_of(32), 0);
        let path = dir.path().join("source");
        std::fs::write(&path, &stored).unwrap();
        let source = Source { files: vec![SourceFile::open(&path).unwrap()], tensors };

        for size in [50, 64, 1000, 4096, 99_999, PIECE] {
            let path = dir.path().join(format!("{size}"));
            let staged = Staged::create(&path, false).unwrap();
            let mut jobs = Vec::new();
            for (i, (from, to, cols, rows, add_one)) in kinds.into_iter().enumerate() {
                let (source, offset) = (&source.tensors[i], offsets[i]);
                let (len, cols) = ((cols * rows) as u64, cols as u64);
                jobs.push(Job { name: "", source, from, to, len, cols, add_one, offset });
            }
            let len = expected.len() as u64;
            let output = Output { file: &staged, header: &header, jobs, len };
            let how = How { threads: NonZero::new(2).unwrap(), force: false, scale: Scale::Absmax };
            let count = Count::default();
            work(&source, &[output], size, how, &count, &AtomicBool::new(false)).unwrap();
            staged.persist().unwrap();
            assert!(std::fs::read(&path).unwrap() == expected, "pieces of {size}");
            assert_eq!(count.0.into_inner(), stored.len() as u64);
        }
    }
}
