//! Whole conversions of small checkpoints made on the spot, and everything that must be refused.

mod common;
mod dialects;
