//! A model file, mapped and resolved.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::Mmap;
use quant::gguf::Gguf;

use crate::chat::ChatTemplate;
use crate::config::GemmaConfig;
use crate::error::{ModelError, RuntimeError};
use crate::grammar::{Form, Grammar, GrammarError, Grammars};
use crate::mapping::map;
use crate::sampler::SamplingParams;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;

/// An opened model: the mapping and where everything in it lies. Weights are never copied.
pub struct Model {
    path: PathBuf,
    bytes: Bytes,
    config: GemmaConfig,
    weights: Weights,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    sampling: SamplingParams,
    grammars: OnceLock<Result<Grammars, GrammarError>>,
}

/// Where the file's bytes are.
pub(crate) enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Bytes {
    pub(crate) fn get(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

impl Model {
    /// Maps a GGUF file and resolves the model in it.
    ///
    /// # Errors
    /// [`RuntimeError::Io`], [`RuntimeError::Gguf`] or [`RuntimeError::Model`], each naming the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RuntimeError> {
        let path = path.as_ref();
        Self::resolve(path.to_owned(), Bytes::Mapped(map(path)?))
    }

    /// Resolves a model whose file is mapped already, or was written to memory that is (see
    /// [`memory`](crate::mapping::memory)); `path` names it in errors.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_map(path: impl Into<PathBuf>, map: Mmap) -> Result<Self, RuntimeError> {
        Self::resolve(path.into(), Bytes::Mapped(map))
    }

    /// Resolves a model whose file is in memory; `path` names it in errors.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes(path: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self, RuntimeError> {
        Self::resolve(path.into(), Bytes::Owned(bytes))
    }

    fn resolve(path: PathBuf, bytes: Bytes) -> Result<Self, RuntimeError> {
        let gguf = Gguf::parse(bytes.get())
            .map_err(|source| RuntimeError::Gguf { path: path.clone(), source })?;
        let parts = || -> Result<_, ModelError> {
            gguf.whole()?;
            let config = GemmaConfig::from_gguf(&gguf)?;
            let weights = Weights::resolve(&gguf, &config)?;
            let tokenizer = Tokenizer::from_gguf(&gguf)?;
            let template = ChatTemplate::from_gguf(&gguf, &tokenizer);
            let sampling = SamplingParams::from_gguf(&gguf)?;
            Ok((config, weights, tokenizer, template, sampling))
        };
        let (config, weights, tokenizer, template, sampling) =
            parts().map_err(|source| RuntimeError::Model { path: path.clone(), source })?;
        let grammars = OnceLock::new();
        Ok(Model { path, bytes, config, weights, tokenizer, template, sampling, grammars })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get()
    }

    /// Shapes and constants.
    pub fn config(&self) -> &GemmaConfig {
        &self.config
    }

    /// The tensors.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The embedding of a token as it enters the model, times √hidden: `out` is `[hidden]`.
    #[cfg(feature = "gpu")]
    pub(crate) fn embedding(&self, token: u32, out: &mut [f32]) {
        let w = &self.weights.embed;
        quant::codec::decode_row(w.dtype, w.view(self.bytes()).row(token as usize), out);
        out.iter_mut().for_each(|v| *v *= self.config.embed_scale);
    }

    /// The vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat format.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// How the file says to sample, Gemma's defaults where it says nothing.
    pub fn sampling(&self) -> &SamplingParams {
        &self.sampling
    }

    /// A form that answers can be held to; see [`Sampler::with_grammar`](crate::sampler::Sampler::with_grammar).
    /// The first one takes half a second more.
    ///
    /// # Errors
    /// [`GrammarError`].
    pub fn grammar(&self, form: &Form) -> Result<Grammar, GrammarError> {
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.tokenizer));
        grammars.as_ref().map_err(Clone::clone)?.grammar(form)
    }

    /// What was wrong in the file and has been made good, for people to read.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.tokenizer.warnings().iter().chain(self.template.warnings()).map(String::as_str)
    }
}
