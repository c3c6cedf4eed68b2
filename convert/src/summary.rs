//! What a conversion did, for the person who asked for it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use quant::DType;
use quant::gguf::TensorSpec;

/// Something worth knowing about a conversion that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// Matrices whose rows are not whole blocks were left in f16.
    KeptF16 {
        /// Their names in the output.
        tensors: Vec<String>,
    },
    /// The head is the embedding and was not written twice.
    HeadTied {
        /// Its name in the source.
        tensor: String,
    },
    /// The head differs from the embedding and was written as `output.weight`.
    HeadUntied {
        /// Its name in the source.
        tensor: String,
        /// llama.cpp knows no Gemma 2 with a head of its own.
        loads_in_llama_cpp: bool,
    },
    /// config.json says that the head is not the embedding, but no head is there.
    HeadMissing,
    /// config.json describes a vision tower of which no tensor is there.
    NoVisionTensors,
    /// These control tokens were marked as text and are control tokens now.
    ControlRepaired(Vec<String>),
    /// These tokens have ids past the embedding's rows and were left out.
    TokensBeyondRows {
        /// The tokens.
        tokens: Vec<String>,
        /// Rows of the embedding.
        rows: u64,
    },
    /// No chat template was found.
    NoChatTemplate,
    /// Pictures are not resized bilinearly, and GGUF has no key that says so.
    Resample {
        /// `resample` of the preprocessor's file.
        value: String,
    },
    /// Queries are scaled by a size that llama.cpp does not expect in this model; it reads no key for that.
    QueryScale {
        /// `query_pre_attn_scalar`.
        scalar: String,
        /// What llama.cpp takes in its place.
        theirs: u32,
    },
    /// Weights went from a block format to a wider one, which brings nothing back.
    Widened {
        /// What they were.
        from: DType,
        /// What they became.
        to: DType,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::KeptF16 { tensors } => {
                let (n, first) = (tensors.len(), tensors.first().map_or("", String::as_str));
                write!(f, "kept in f16, their rows not being multiples of 32: {first}")?;
                if n > 1 { write!(f, " and {} more", n - 1) } else { Ok(()) }
            }
            Note::HeadTied { tensor } => {
                write!(f, "{tensor} is the embedding once more; it is stored once")
            }
            Note::HeadUntied { tensor, loads_in_llama_cpp } => {
                write!(f, "{tensor} differs from the embedding; it is stored as output.weight")?;
                if !loads_in_llama_cpp {
                    f.write_str(" (llama.cpp does not load such a Gemma 2)")?;
                }
                Ok(())
            }
            Note::HeadMissing => f.write_str(
                "config.json has tie_word_embeddings false, but the checkpoint holds no lm_head.weight: the \
                 embedding is the head",
            ),
            Note::NoVisionTensors => {
                f.write_str("config.json describes a vision tower, but the checkpoint holds none of it: text only")
            }
            Note::ControlRepaired(tokens) => {
                write!(f, "marked as control tokens, which the source had as text: {}", tokens.join(" "))
            }
            Note::TokensBeyondRows { tokens, rows } if tokens.len() <= 8 => write!(
                f,
                "left out, having no row among the embedding's {rows}: {}",
                tokens.join(" ")
            ),
            Note::TokensBeyondRows { tokens, rows } => write!(
                f,
                "{} tokens have no row among the embedding's {rows} and were left out; is this the \
                 model's own tokenizer?",
                tokens.len()
            ),
            Note::NoChatTemplate => {
                f.write_str("no chat template was found; readers will use their own for Gemma")
            }
            Note::QueryScale { scalar, theirs } => {
                write!(f, "queries are scaled by 1/√{scalar} (query_pre_attn_scalar); llama.cpp will scale them by 1/√{theirs} and answer otherwise")
            }
            Note::Resample { value } => write!(
                f,
                "the preprocessor resizes pictures with resample {value}, for which GGUF has no key: \
                 readers resize bilinearly (2)"
            ),
            Note::Widened { from, to } => {
                write!(f, "weights stored as {from} became {to}: larger, and no more accurate")
            }
        }
    }
}

/// Tensors of one type in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many tensors.
    pub tensors: u64,
    /// How many weights.
    pub weights: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// One file that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSummary {
    /// Where it lies.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its tensors by type.
    pub shares: BTreeMap<DType, Share>,
}

impl FileSummary {
    pub(crate) fn new<'a>(
        path: PathBuf,
        bytes: u64,
        tensors: impl Iterator<Item = &'a TensorSpec>,
    ) -> Self {
        let mut shares = BTreeMap::<DType, Share>::new();
        for t in tensors {
            let share = shares.entry(t.dtype).or_default();
            share.tensors += 1;
            share.weights += t.dims.iter().product::<u64>();
            share.bytes += t.bytes().unwrap_or(0);
        }
        FileSummary { path, bytes, shares }
    }

    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.shares.values().map(|s| s.weights).sum()
    }

    /// Bits that a weight takes, on average.
    pub fn bits_per_weight(&self) -> f64 {
        let bytes: u64 = self.shares.values().map(|s| s.bytes).sum();
        8.0 * bytes as f64 / self.weights().max(1) as f64
    }
}

/// What a conversion did.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The files written: the text model, then the vision tower if there is one.
    pub files: Vec<FileSummary>,
    /// Bytes of the source files.
    pub source_bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// What is worth knowing.
    pub notes: Vec<Note>,
}
