//! `lapidary logits`.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use runtime::chat::{ImageTokens, Part};
use runtime::{Model, Prompt, RuntimeError};

use super::open;
use crate::args::LogitsArgs;
use crate::eyes::{Eyes, Sight};
use crate::{interrupt, npy};

pub(crate) fn run(args: &LogitsArgs) -> Result<()> {
    interrupt::install()?;
    let model = open::model(&args.model)?;
    let mut eyes = Eyes::new(model.clone(), &args.pictures, args.engine.threads);
    // The cache need not be longer than the text, which is as long before its pictures are looked at.
    let blank = prompt(args, &model, eyes.blank(&args.pictures.images)?)?;
    if blank.is_empty() {
        bail!("there are no tokens: the prompt is empty");
    }
    let mut engine = args.engine.clone();
    engine.ctx = Some(engine.ctx.unwrap_or(blank.len()));
    let vocab = model.weights().vocab();
    let mut session = open::session(model.clone(), &engine)?;
    let sights = eyes.beside(&session).look_at_all(&args.pictures.images)?;
    let prompt = prompt(args, &model, sights)?;

    let folder = args.output.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
    let staged = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("cannot write in {}", folder.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, staged);
    npy::header(&mut out, prompt.len(), vocab)?;
    session.append_all_logits(0, &prompt, |logits| -> Result<()> {
        if interrupt::stopped() {
            return Err(RuntimeError::Cancelled.into());
        }
        npy::values(&mut out, logits).with_context(|| args.output.display().to_string())
    })?;
    out.flush().with_context(|| args.output.display().to_string())?;
    let staged = out.into_inner().map_err(|e| e.into_error())?;
    staged.persist(&args.output).with_context(|| args.output.display().to_string())?;
    eprintln!("{}: float32 [{}, {vocab}]", args.output.display(), prompt.len());
    Ok(())
}

/// The tokens, or those of the text, with the pictures in their places.
fn prompt(args: &LogitsArgs, model: &Model, sights: Vec<Sight>) -> Result<Prompt> {
    let text = args.prompt.clone().map(Part::Text);
    let parts: Vec<Part> = sights.iter().map(Sight::part).chain(text).collect();
    let views = sights.into_iter().flat_map(|sight| sight.views);
    Ok(match &args.prompt {
        Some(_) => runtime::chat::raw(model.tokenizer(), &parts, views)?,
        // Soft tokens alone are tokens like others; pictures need their places.
        None if args.pictures.images.is_empty() => args.tokens.clone().into(),
        None => {
            let soft = ImageTokens::resolve(model.tokenizer())?.soft;
            Prompt::with_images(args.tokens.clone(), soft, views)?
        }
    })
}
