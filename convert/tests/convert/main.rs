//! Whole conversions of small checkpoints made on the spot, and everything that must be refused.

mod common;
mod dialects;
mod hostile;
mod refusals;
mod requantize;
mod safety;
mod sidecars;
mod tokenizers;
