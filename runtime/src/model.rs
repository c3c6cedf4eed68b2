//! A model file, mapped and resolved.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use quant::gguf::Gguf;

use crate::config::GemmaConfig;
use crate::error::{ModelError, RuntimeError};
use crate::weights::Weights;

/// An opened model: the mapping and where everything in it lies. Weights are never copied.
pub struct Model {
    path: PathBuf,
    map: Mmap,
    config: GemmaConfig,
    weights: Weights,
}

impl Model {
    /// Maps a GGUF file and resolves the model in it.
    ///
    /// # Errors
    /// [`RuntimeError::Io`], [`RuntimeError::Gguf`] or [`RuntimeError::Model`], each naming the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RuntimeError> {
        let path = path.as_ref().to_path_buf();
        let io = |source| RuntimeError::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(io)?;
        // SAFETY: the mapping is private and read-only. A file that another process shortens while
        // it is mapped would end this one with a signal; that is the price of not copying weights,
        // and what every mapping of a model file lives with. Contents that change cannot break
        // memory safety: everything that was checked is kept outside the mapping.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let gguf = Gguf::parse(&map)
            .map_err(|source| RuntimeError::Gguf { path: path.clone(), source })?;
        let resolve = || -> Result<_, ModelError> {
            let config = GemmaConfig::from_gguf(&gguf)?;
            let weights = Weights::resolve(&gguf, &config)?;
            Ok((config, weights))
        };
        let (config, weights) =
            resolve().map_err(|source| RuntimeError::Model { path: path.clone(), source })?;
        Ok(Model { path, map, config, weights })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole mapped file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Shapes and constants.
    pub fn config(&self) -> &GemmaConfig {
        &self.config
    }

    /// The tensors.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }
}
