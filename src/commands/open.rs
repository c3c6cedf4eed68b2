//! From what was typed to an opened model and a session.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use runtime::sampler::SamplingParams;
use runtime::{Model, Session, SessionOptions};

use super::devices;
use crate::args::{EngineArgs, SamplingArgs};

/// Opens a model and says on standard error what it warns of.
pub(super) fn model(path: &Path) -> Result<Arc<Model>> {
    let model = Model::open(path)?;
    for warning in model.warnings() {
        eprintln!("lapidary: {}: {warning}", path.display());
    }
    Ok(Arc::new(model))
}

/// A session with one sequence.
pub(super) fn session(model: Arc<Model>, args: &EngineArgs) -> Result<Session> {
    session_of(model, args, 1)
}

/// A session with so many sequences.
pub(super) fn session_of(
    model: Arc<Model>,
    args: &EngineArgs,
    sequences: usize,
) -> Result<Session> {
    let kernels = quant::kernels::Kernels::from_env()?;
    if let Some(ctx) = args.ctx {
        note_beyond_trained(&model, "a context", ctx);
    }
    let options = SessionOptions {
        context: args.ctx,
        kv_type: args.kv.into(),
        threads: args.threads,
        sequences,
        kernels,
        ..SessionOptions::default()
    };
    devices::session(model, options, &args.device)
}

/// Says so where `what` of `positions` is longer than what the model has seen.
pub(super) fn note_beyond_trained(model: &Model, what: &str, positions: usize) {
    let trained = model.config().context_length;
    if positions > trained {
        eprintln!(
            "lapidary: {what} of {positions} goes beyond the {trained} positions that the model was trained for"
        );
    }
}

/// The file's sampling defaults with what was typed over them; the seed, where none was, is nobody's choice.
pub(super) fn sampling(model: &Model, args: &SamplingArgs) -> SamplingParams {
    let mut p = model.sampling().clone();
    if let Some(v) = args.temp {
        p.temperature = v;
    }
    if let Some(v) = args.top_k {
        p.top_k = v;
    }
    if let Some(v) = args.top_p {
        p.top_p = v;
    }
    if let Some(v) = args.min_p {
        p.min_p = v;
    }
    if let Some(v) = args.repeat_penalty {
        p.repeat_penalty = v;
    }
    p.seed = args.seed.unwrap_or_else(SamplingParams::fresh_seed);
    p
}
