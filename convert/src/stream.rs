//! Running a plan: files are made in pieces, several at a time, each written at once at its place. Memory is a
//! piece and a chunk of weights a thread, however large the model.

use std::num::NonZero;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use quant::gguf::{Layout, TensorSpec};

use crate::output::Staged;
use crate::plan::Plan;
use crate::source::Source;
use crate::weights::{Buffers, Job};
use crate::{ConvertError, Progress, Scale};

/// Bytes of a file that are written at once, at a multiple of as many. Linux keeps in one page of memory what is
/// written so, where the file system can (XFS, ext4 since Linux 6.16), and maps it as one: a model that was just
/// converted starts and decodes faster than from pages of 4 KiB.
const PIECE: u64 = 2 << 20;

/// How a plan is run.
#[derive(Clone, Copy)]
pub(crate) struct How {
    pub(crate) threads: NonZero<usize>,
    /// Replace files that exist.
    pub(crate) force: bool,
    /// How Q4_0 scales are chosen.
    pub(crate) scale: Scale,
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
struct Piece<'a> {
    output: &'a Output<'a>,
    bytes: Range<u64>,
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
    progress.begin(outputs.iter().flat_map(|o| &o.jobs).map(Job::all_source_bytes).sum());
    work(&source, &outputs, PIECE, how, progress, cancel)?;
    // Windows does not rename over a file that is open for reading.
    drop(outputs);
    drop(source);
    for output in staged {
        output.persist()?;
    }
    Ok(layouts.iter().map(|l| l.file_len).collect())
}

fn pieces<'a>(outputs: &'a [Output<'a>], size: u64) -> Vec<Piece<'a>> {
    let of = |output: &'a Output<'a>| {
        let starts = (0..output.len).step_by(size as usize);
        starts.map(move |at| Piece { output, bytes: at..(at + size).min(output.len) })
    };
    outputs.iter().flat_map(of).collect()
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
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let first_error = Mutex::new(None);
    let worker = || {
        let mut maker = Maker {
            source,
            scale: how.scale,
            progress,
            cancel,
            weights: Buffers::new(),
            chunk: Vec::new(),
            piece: Vec::new(),
        };
        while !failed.load(Ordering::Relaxed) {
            let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            if let Err(e) = maker.make(piece) {
                failed.store(true, Ordering::Relaxed);
                let mut first = first_error.lock().unwrap_or_else(|e| e.into_inner());
                first.get_or_insert(e);
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

/// A thread's way of making pieces.
struct Maker<'a> {
    source: &'a Source,
    scale: Scale,
    progress: &'a dyn Progress,
    cancel: &'a AtomicBool,
    weights: Buffers,
    /// A chunk of which only a part lies in the piece.
    chunk: Vec<u8>,
    /// Bytes `..made` of it are made.
    piece: Vec<u8>,
}

impl Maker<'_> {
    /// Makes a piece of a file and writes it.
    fn make(&mut self, piece: &Piece<'_>) -> Result<(), ConvertError> {
        let Piece { output, bytes } = piece;
        self.piece.resize((bytes.end - bytes.start) as usize, 0);
        let mut made = 0;
        if let Some(header) = output.header.get(bytes.start as usize..) {
            made = header.len().min(self.piece.len());
            self.piece[..made].copy_from_slice(&header[..made]);
        }
        let first = output.jobs.partition_point(|j| j.end() <= bytes.start);
        for job in output.jobs[first..].iter().take_while(|j| j.offset < bytes.end) {
            let mut counted = job.begun_in(bytes).start;
            for chunk in job.chunks(bytes) {
                if self.cancel.load(Ordering::Relaxed) {
                    return Err(ConvertError::Cancelled);
                }
                made = self.add(job, chunk.clone(), bytes, made)?;
                // A block that crosses from one piece to the next is made in both, and counted in one.
                let until = chunk.end.clamp(counted, job.begun_in(bytes).end);
                self.progress.advance(job.source_bytes(until) - job.source_bytes(counted));
                counted = until;
            }
        }
        self.piece[made..].fill(0);
        output.file.write_at(&self.piece, bytes.start)
    }

    /// Adds what of a chunk of weights lies in the piece, and zeros before it, to the `made` bytes that there
    /// are; how many there are then.
    fn add(
        &mut self,
        job: &Job<'_>,
        chunk: Range<u64>,
        bytes: &Range<u64>,
        made: usize,
    ) -> Result<usize, ConvertError> {
        let (at, end) =
            (job.offset + job.output_bytes(chunk.start), job.offset + job.output_bytes(chunk.end));
        let inside = at.max(bytes.start)..end.min(bytes.end);
        let place = (inside.start - bytes.start) as usize..(inside.end - bytes.start) as usize;
        self.piece[made.min(place.start)..place.start].fill(0);
        let out = &mut self.piece[place.clone()];
        if inside == (at..end) {
            job.convert(self.source, chunk, self.scale, &mut self.weights, out)?;
        } else {
            self.chunk.resize((end - at) as usize, 0);
            job.convert(self.source, chunk, self.scale, &mut self.weights, &mut self.chunk)?;
            out.copy_from_slice(&self.chunk[(inside.start - at) as usize..][..out.len()]);
        }
        Ok(place.end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use quant::DType;
    use quant::codec::{decode_row, encode_row};

    use super::*;
    use crate::plan::TensorPlan;
    use crate::source::{SourceFile, SourceTensor};

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
            for (i, (_, dtype, cols, rows, add_one)) in kinds.into_iter().enumerate() {
                let dims = vec![cols as u64, rows as u64];
                let spec = TensorSpec { name: String::new(), dtype, dims };
                let plan = TensorPlan { spec, source: i, add_one };
                jobs.push(Job::new(&source.tensors[i], &plan, offsets[i]).unwrap());
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
