//! `lapidary logits`.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use runtime::RuntimeError;
use runtime::tokenizer::Special;

use super::open;
use crate::args::LogitsArgs;
use crate::{interrupt, npy};

pub(crate) fn run(args: &LogitsArgs) -> Result<()> {
    interrupt::install()?;
    let model = open::model(&args.model)?;
    let tokens = match &args.prompt {
        Some(text) => {
            let tokenizer = model.tokenizer();
            let special = tokenizer.special();
            let bos = special.bos.filter(|_| special.add_bos);
            bos.into_iter().chain(tokenizer.encode(text, Special::Plain)).collect()
        }
        None => args.tokens.clone(),
    };
    if tokens.is_empty() {
        bail!("there are no tokens: the prompt is empty");
    }
    // The cache need not be longer than the text.
    let mut engine = args.engine.clone();
    engine.ctx = Some(engine.ctx.unwrap_or(tokens.len()));
    let vocab = model.weights().vocab();
    let mut session = open::session(model, &engine)?;

    let folder = args.output.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
    let staged = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("cannot write in {}", folder.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, staged);
    npy::header(&mut out, tokens.len(), vocab)?;
    session.append_all_logits(0, &tokens, |logits| -> Result<()> {
        if interrupt::stopped() {
            return Err(RuntimeError::Cancelled.into());
        }
        npy::values(&mut out, logits).with_context(|| args.output.display().to_string())
    })?;
    out.flush().with_context(|| args.output.display().to_string())?;
    let staged = out.into_inner().map_err(|e| e.into_error())?;
    staged.persist(&args.output).with_context(|| args.output.display().to_string())?;
    eprintln!("{}: float32 [{}, {vocab}]", args.output.display(), tokens.len());
    Ok(())
}
