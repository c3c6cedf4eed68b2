//! What is said over HTTP: OpenAI's requests, answers and errors, as far as they mean something here.
//!
//! The source is OpenAI's API reference (chat completions, completions, models). What llama.cpp's server
//! adds and people use is understood as well: `top_k`, `min_p`, `repeat_penalty`, `ignore_eos`, `timings`.

pub(crate) mod chat;
pub(crate) mod completions;
mod error;
mod pictures;
mod sampling;
mod written;

pub(crate) use error::{ApiError, Status};
pub(crate) use pictures::picture;
pub(crate) use sampling::{Common, Whole};
pub(crate) use written::{Choice, Echo, Head, Kind, LogProb, Usage};
