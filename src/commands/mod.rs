//! One file a verb.

pub(crate) mod bench;
mod bench_image;
mod bench_output;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod demo;
pub(crate) mod devices;
pub(crate) mod eval;
pub(crate) mod inspect;
pub(crate) mod logits;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod tokenize;

mod chat;
mod conversation;
mod demo_pictures;
mod demo_table;
mod dropped;
mod eval_output;
mod open;
