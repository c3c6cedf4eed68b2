//! Where weights come from: open files, and where in them each tensor lies. A safetensors
//! checkpoint and a GGUF file look the same from here on.

use std::fs::File;
use std::path::{Path, PathBuf};

use quant::DType;

use crate::ConvertError;

/// A file that weights are read from.
#[derive(Debug)]
pub struct SourceFile {
    /// Where it lies, for messages.
    pub path: PathBuf,
    /// Open for reading at positions; held open so that a rename over it does no harm.
    pub file: File,
}

impl SourceFile {
    pub(crate) fn open(path: &Path) -> Result<Self, ConvertError> {
        let file = File::open(path).map_err(ConvertError::io("open", path))?;
        Ok(SourceFile { path: path.into(), file })
    }

    /// Maps the file to parse its header. Only header pages are touched; weights are read with
    /// positioned reads, which do not count as this process's memory.
    pub(crate) fn map(&self) -> Result<memmap2::Mmap, ConvertError> {
        // SAFETY: the mapping is read-only and short-lived. Another process that truncates the
        // file while its header is parsed can make this one fault, as with any mapped model file;
        // it cannot make it write.
        unsafe { memmap2::Mmap::map(&self.file) }.map_err(ConvertError::io("map", &self.path))
    }
}

/// One tensor as the source has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTensor {
    /// Name in the source.
    pub name: String,
    /// Index of its file in [`Source::files`].
    pub file: usize,
    /// Where its bytes start in that file.
    pub offset: u64,
    /// Element type, or the name of one that Lapidary does not read (a buffer that is ignored
    /// anyway may have any type).
    pub dtype: Result<DType, String>,
    /// Dimensions, slowest first, as in safetensors.
    pub shape: Vec<u64>,
}

impl SourceTensor {
    /// The tensor as (rows, columns), rows running along the fastest dimension. `None` for a
    /// scalar.
    pub(crate) fn rows_cols(&self) -> Option<(u64, u64)> {
        let (&cols, outer) = self.shape.split_last()?;
        Some((outer.iter().product(), cols))
    }
}

/// All tensors of a model, and the files they lie in.
#[derive(Debug, Default)]
pub struct Source {
    /// Open files.
    pub files: Vec<SourceFile>,
    /// Tensors, in file order.
    pub tensors: Vec<SourceTensor>,
}

impl Source {
    /// Bytes of all files together.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().filter_map(|f| f.file.metadata().ok()).map(|m| m.len()).sum()
    }
}
