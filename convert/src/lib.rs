//! Hugging Face safetensors checkpoints to GGUF files, and GGUF files to smaller ones.
//!
//! A conversion is planned before a weight is touched: [`plan`] gives every source tensor its
//! place, or refuses the checkpoint by the tensor's name. Then several threads make the files piece by
//! piece; they appear whole or not at all.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//!
//! use lapidary_convert as convert;
//!
//! let options = convert::Options::new("gemma-3-1b-it");
//! let summary = convert::convert(&options, &(), &AtomicBool::new(false))?;
//! println!("{}", summary.files[0].path.display());
//! # Ok::<(), convert::ConvertError>(())
//! ```

pub mod checkpoint;
pub mod config;
mod error;
mod io;
mod json;
pub mod metadata;
mod output;
pub mod plan;
mod requantize;
mod sidecar;
pub mod source;
mod stream;
mod summary;
mod tensors;
pub mod tokenizer;
mod weights;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use quant::DType;
use quant::codec;

pub use error::{ConvertError, Position};
pub use summary::{FileSummary, Note, Share, Summary};
use tensors::Types;

/// How the scale of a Q4_0 block is chosen. Readers don't notice: the format is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// From the weight of largest magnitude, bit for bit as the reference does. QAT checkpoints are
    /// trained for this rounding.
    #[default]
    Absmax,
    /// The best of several candidates in the sense of least squares: see
    /// [`quant::codec::encode_q4_0_searched`].
    Search,
}

/// What is to be converted, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// A checkpoint folder, or a .gguf file to be requantized.
    pub source: PathBuf,
    /// The file to write; see [`Options::output_path`] for where it goes otherwise.
    pub output: Option<PathBuf>,
    /// Type of the matrices.
    pub dtype: DType,
    /// Type of the embedding, which is the head as well; see [`Options::embed_type`].
    pub embed: Option<DType>,
    /// Type of the vision tower's matrices; see [`Options::vision_type`].
    pub vision: Option<DType>,
    /// How Q4_0 scales are chosen.
    pub scale: Scale,
    /// Threads to work with; as many as the machine runs at once if `None`.
    pub threads: Option<NonZero<usize>>,
    /// Replace files that exist.
    pub force: bool,
}

impl Options {
    /// Q4_0 matrices from `source`, everything else at its default.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        Options {
            source: source.into(),
            output: None,
            dtype: DType::Q4_0,
            embed: None,
            vision: None,
            scale: Scale::default(),
            threads: None,
            force: false,
        }
    }

    /// The file that will be written: as asked for, or `<model>-<type>.gguf` in the current
    /// folder.
    pub fn output_path(&self) -> PathBuf {
        if let Some(path) = &self.output {
            return path.clone();
        }
        let name = checkpoint::model_name(&self.source);
        let name = name.strip_suffix(".gguf").unwrap_or(&name);
        format!("{name}-{}.gguf", self.dtype).into()
    }

    /// The embedding's type: as asked for, or q8_0 with q4_0 and the matrices' own with others.
    /// Q8_0 costs an embedding nothing measurable; 4 bits do.
    pub fn embed_type(&self) -> DType {
        self.embed.unwrap_or(match self.dtype {
            DType::Q4_0 => DType::Q8_0,
            other => other,
        })
    }

    /// The vision tower's type: as asked for, or the matrices' own where that is a float type, else
    /// f16: the tower is small beside the text model.
    pub fn vision_type(&self) -> DType {
        self.vision.unwrap_or(if self.dtype.is_float() { self.dtype } else { DType::F16 })
    }

    fn types(&self) -> Result<Types, ConvertError> {
        let (embed, vision) = (self.embed_type(), self.vision_type());
        let types = Types { matrix: self.dtype, embed, vision };
        for dtype in [types.matrix, types.embed, types.vision] {
            if !codec::can_encode(dtype) {
                return Err(ConvertError::Unwritable { dtype });
            }
        }
        Ok(types)
    }
}

/// Told how far a conversion is. Called from several threads.
pub trait Progress: Sync {
    /// Streaming starts; `total` source bytes will be read.
    fn begin(&self, total: u64);
    /// Another `bytes` source bytes are done.
    fn advance(&self, bytes: u64);
}

/// No progress is shown.
impl Progress for () {
    fn begin(&self, _total: u64) {}
    fn advance(&self, _bytes: u64) {}
}

/// Converts a checkpoint or requantizes a GGUF file. Setting `cancel` stops it within a chunk.
///
/// # Errors
/// Any [`ConvertError`]. Whatever goes wrong, no partial file stays behind and no existing file
/// is damaged.
pub fn convert(
    options: &Options,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<Summary, ConvertError> {
    let started = Instant::now();
    let types = options.types()?;
    let out = options.output_path();
    output::Staged::check(&out, options.force)?;
    let (source, plan) = if options.source.is_dir() {
        checkpoint::plan(&options.source, &out, types)?
    } else if options.source.extension().is_some_and(|e| e == "gguf") {
        requantize::plan(&options.source, &out, types)?
    } else {
        return Err(ConvertError::NotAModel { path: options.source.clone() });
    };
    for file in &plan.files {
        output::Staged::check(&file.path, options.force)?;
        // A GGUF file may be replaced by what is made from it; a checkpoint's shard may not.
        let shard =
            |s: &source::SourceFile| options.source.is_dir() && same_file(&s.path, &file.path);
        if source.files.iter().any(shard) {
            return Err(ConvertError::WouldReplaceSource { path: file.path.clone() });
        }
    }
    let source_bytes = source.bytes();
    let threads = options
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN));
    let lengths = {
        let how = stream::How { threads, force: options.force, scale: options.scale };
        stream::run(source, &plan, how, progress, cancel)?
    };
    let files = plan.files.into_iter().zip(lengths).map(|(file, bytes)| {
        let specs = file.tensors.iter().map(|t| &t.spec);
        FileSummary::new(file.path, bytes, specs)
    });
    Ok(Summary {
        files: files.collect(),
        source_bytes,
        elapsed: started.elapsed(),
        notes: plan.notes,
    })
}

/// Are these two paths the same file?
fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
