//! `lapidary logits`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use runtime::chat::{ImageTokens, Part};
use runtime::sampler::SamplingError;
use runtime::{Model, Prompt, RuntimeError};
use tempfile::NamedTempFile;

use super::open;
use crate::args::LogitsArgs;
use crate::eyes::{Eyes, Sight};
use crate::{interrupt, npy};

pub(crate) fn run(args: &LogitsArgs) -> Result<()> {
    interrupt::install_for_work()?;
    let model = open::model(&args.model)?;
    let mut eyes = Eyes::new(model.clone(), &args.pictures.eyes, args.engine.threads);
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

    let mut out = BufWriter::with_capacity(1 << 20, Output::create(&args.output)?);
    npy::header(&mut out, prompt.len(), vocab)?;
    let mut bad = None;
    session.append_all_logits(0, &prompt, |logits| -> Result<()> {
        if bad.is_none()
            && let Some(at) = logits.iter().position(|x| !x.is_finite())
        {
            bad = Some(SamplingError::Logit { token: (at % vocab) as u32, value: logits[at] });
        }
        if interrupt::stopped() {
            return Err(RuntimeError::Cancelled.into());
        }
        npy::values(&mut out, logits).with_context(|| args.output.display().to_string())
    })?;
    out.flush().with_context(|| args.output.display().to_string())?;
    out.into_inner().map_err(|e| e.into_error())?.finish(&args.output)?;
    eprintln!("{}: float32 [{}, {vocab}]", args.output.display(), prompt.len());
    if let Some(bad) = bad {
        eprintln!("these are not all finite: {bad}");
    }
    Ok(())
}

/// Where the logits go.
enum Output {
    /// To a file that appears whole, under this name, or not at all.
    Staged(NamedTempFile, PathBuf),
    /// To what is there and no file: a pipe, a device.
    Direct(File),
}

impl Output {
    fn create(path: &Path) -> Result<Self> {
        let shown = || format!("cannot write {}", path.display());
        let there = std::fs::metadata(path);
        if there.as_ref().is_ok_and(|m| m.is_dir()) {
            bail!("{}: a file is wanted, and this is a folder", path.display());
        }
        if there.as_ref().is_ok_and(|m| !m.is_file()) {
            return Ok(Output::Direct(
                OpenOptions::new().write(true).open(path).with_context(shown)?,
            ));
        }
        // What a link leads to is replaced, not the link.
        let target = match there {
            Ok(_) => path.canonicalize().with_context(shown)?,
            Err(_) => path.to_owned(),
        };
        let folder = target.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".lapidary-").suffix(".part");
        // Temporary files are private by default; this one becomes an ordinary file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let staged = builder
            .tempfile_in(folder)
            .with_context(|| format!("cannot write in {}", folder.display()))?;
        Ok(Output::Staged(staged, target))
    }

    fn finish(self, path: &Path) -> Result<()> {
        if let Output::Staged(staged, target) = self {
            staged.persist(target).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::Staged(file, _) => file.write(bytes),
            Output::Direct(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Staged(file, _) => file.flush(),
            Output::Direct(file) => file.flush(),
        }
    }
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
