//! `lapidary eval`: what quantization costs, in figures.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use eval::choices::{self, Accuracy, Form};
use eval::drift::{self, LayerDrift};
use eval::lineup::{Lineup, Options};
use eval::report::{Page, PageRow, PageText, Reference as PageReference};
use eval::tensors::Size;
use eval::{Scheme, Scores, Text};
use quant::gguf::Gguf;
use runtime::{KvType, Model, Session, SessionOptions};

use super::{devices, eval_output, open};
use crate::args::{ChoicesForm, EvalArgs, EvalOutput, Kv};
use crate::interrupt;
use crate::progress::ScoreBar;

/// One line of the table: a model with a KV type.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) kv: Kv,
    pub(super) size: Size,
    model: Arc<Model>,
}

/// What was measured of it.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) scores: Option<Scores>,
    pub(super) accuracy: Option<Accuracy>,
    pub(super) drift: Vec<LayerDrift>,
}

/// The reference, as far as it was named.
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) size: Option<Size>,
    model: Option<Arc<Model>>,
    /// Holds a converted checkpoint until the end.
    _converted: Option<tempfile::TempDir>,
}

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    interrupt::install_for_work()?;
    let text = match &args.text {
        Some(path) => Some(read(path)?),
        None => None,
    };
    let items = match &args.choices {
        Some(path) => Some(choices::parse(&read(path)?, path)?),
        None => None,
    };
    // Not only after all the work.
    if let Some(folder) = args.report.as_deref().and_then(Path::parent)
        && folder != Path::new("")
        && !folder.is_dir()
    {
        bail!("cannot write a report in {}: there is no such folder", folder.display());
    }
    let subjects = subjects(args)?;
    if args.save_logits.is_some() && args.reference.is_none() && subjects.len() > 1 {
        bail!(
            "--save-logits saves the logits of one model: name it with --reference, or give one model and one --kv"
        );
    }
    let mut reference = reference(args)?;
    let mut measured: Vec<Measured> = subjects.iter().map(|_| Measured::default()).collect();
    let options = Options {
        ctx: args.ctx,
        scheme: args.stride.map_or(Scheme::SecondHalf, Scheme::Stride),
        limit: args.chunks,
        session: SessionOptions {
            threads: args.threads,
            kernels: quant::kernels::Kernels::from_env()?,
            ..devices::options(&args.device)?
        },
    };

    if let Some(text) = &text {
        if text.is_empty() {
            bail!("{}: the text is empty", args.text.as_deref().unwrap_or(Path::new("")).display());
        }
        for s in &subjects {
            open::note_beyond_trained(&s.model, "a window", args.ctx);
        }
        let runs = measure(args, &options, text, &subjects, &mut reference)?;
        for (m, scores) in measured.iter_mut().zip(runs) {
            m.scores = (scores.tokens() > 0).then_some(scores);
        }
        if args.report.is_some() && !interrupt::stopped() {
            layers(&options, text, &subjects, reference.as_ref(), &mut measured)?;
        }
    }
    if let (Some(items), false) = (&items, interrupt::stopped()) {
        let form = match args.choices_form {
            ChoicesForm::Chat => Form::Chat,
            ChoicesForm::Plain => Form::Plain,
        };
        for (s, m) in subjects.iter().zip(&mut measured) {
            let longest = choices::longest(&s.model, items, form);
            open::note_beyond_trained(&s.model, "a question", longest);
            let bar = ScoreBar::new(&s.name, items.len(), "questions");
            let mut session = session(s, &options, longest)?;
            let each = |done: &[choices::ItemScore]| {
                let acc = Accuracy::of(done).acc_norm.value;
                bar.at(done.len(), &format!("acc_norm {:.1}%", acc * 100.0));
            };
            let scores = choices::score_all(&mut session, items, form, interrupt::flag(), each)?;
            drop(bar);
            m.accuracy = (!scores.is_empty()).then(|| Accuracy::of(&scores));
        }
    }

    match args.output {
        EvalOutput::Md => eval_output::markdown(args, &subjects, &measured, reference.as_ref())?,
        EvalOutput::Json => eval_output::json(args, &subjects, &measured, reference.as_ref())?,
    }
    if let Some(out) = &args.report {
        let page = page(args, text.as_deref(), &subjects, &measured, reference.as_ref());
        std::fs::write(out, page).with_context(|| format!("cannot write {}", out.display()))?;
        eprintln!("{}", out.display());
    }
    if interrupt::stopped() {
        bail!("stopped; the figures are of what was read until then");
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Models times KV types, in the order typed.
fn subjects(args: &EvalArgs) -> Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for path in &args.models {
        let model = open::model(path)?;
        let size = size(&model)?;
        for &kv in &args.kv {
            subjects.push(Subject { name: stem(path), kv, size, model: model.clone() });
        }
    }
    Ok(subjects)
}

/// What the file of a model weighs.
pub(super) fn size(model: &Model) -> Result<Size> {
    let gguf = Gguf::parse(model.bytes()).with_context(|| model.path().display().to_string())?;
    Ok(Size::of(&gguf, model.bytes().len() as u64))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Opens the reference; a checkpoint is converted to bf16 first.
fn reference(args: &EvalArgs) -> Result<Option<Reference>> {
    let Some(path) = &args.reference else {
        return Ok(args.reference_logits.as_ref().map(|path| Reference {
            name: stem(path),
            size: None,
            model: None,
            _converted: None,
        }));
    };
    let (model, converted) = gguf_of(path)?;
    let size = Some(size(&model)?);
    Ok(Some(Reference { name: stem(path), size, model: Some(model), _converted: converted }))
}

/// A model of a .gguf file, or of a checkpoint folder through a temporary file.
pub(super) fn gguf_of(path: &Path) -> Result<(Arc<Model>, Option<tempfile::TempDir>)> {
    let (file, folder) = bf16_of(path)?;
    Ok((open::model(&file)?, folder))
}

/// A .gguf file as it is; a checkpoint folder converted to bf16, in a folder that lasts as long as
/// what is returned.
pub(super) fn bf16_of(path: &Path) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    if !path.is_dir() {
        return Ok((path.to_owned(), None));
    }
    let folder = tempfile::tempdir().context("a temporary folder for the reference")?;
    let file = folder.path().join(format!("{}.gguf", stem(path)));
    let options = convert::Options {
        output: Some(file.clone()),
        dtype: quant::DType::BF16,
        ..convert::Options::new(path)
    };
    let bar = crate::progress::ByteBar::new("Converting the reference to bf16");
    let result = convert::convert(&options, &bar, interrupt::flag());
    bar.clear();
    result?;
    Ok((file, Some(folder)))
}

/// With room for `context` positions.
fn session(s: &Subject, options: &Options, context: usize) -> Result<Session> {
    let options =
        SessionOptions { kv_type: s.kv.into(), context: Some(context), ..options.session.clone() };
    Ok(Session::new(s.model.clone(), &options)?)
}

/// Reads the text with every model. With a reference side by side, without one after the other, so
/// that models of different tokenizers can stand in one table.
fn measure(
    args: &EvalArgs,
    options: &Options,
    text: &str,
    subjects: &[Subject],
    reference: &mut Option<Reference>,
) -> Result<Vec<Scores>> {
    let begin =
        |s: &Subject| Lineup::new(options.clone(), text, &s.name, s.model.clone(), s.kv.into());
    let Some(reference) = reference else {
        let mut all = Vec::new();
        for s in subjects {
            let mut lineup = begin(s)?;
            if let Some(path) = &args.save_logits {
                lineup.save(path)?;
            }
            all.extend(with_bar(lineup, &s.name)?);
        }
        return Ok(all);
    };
    let (first, others) = subjects.split_first().context("no model was given")?;
    let mut lineup = begin(first)?;
    for s in others {
        lineup.add(text, &s.name, s.model.clone(), s.kv.into())?;
    }
    match &args.reference_logits {
        Some(path) => {
            let saved = lineup.against_saved(path)?;
            if let Some(model) = &reference.model {
                let hash = format!("{:016x}", eval::hash::xxh64(model.bytes()));
                if hash != saved.model_hash {
                    bail!(
                        "{}: its logits are of another file than {} ({}, hash {}, not {hash}); save them again with --save-logits",
                        path.display(),
                        model.path().display(),
                        saved.model,
                        saved.model_hash,
                    );
                }
            }
            reference.name = stem(Path::new(&saved.model));
        }
        None => {
            let model = reference.model.clone().context("a reference without a model")?;
            // As exact as there is: the cache is not to be part of the reference's error.
            lineup.against(text, &reference.name, model, KvType::F32)?;
        }
    }
    if let Some(path) = &args.save_logits {
        lineup.save(path)?;
    }
    with_bar(lineup, &first.name)
}

fn with_bar(lineup: Lineup, name: &str) -> Result<Vec<Scores>> {
    let bar = ScoreBar::new(name, lineup.windows().len(), "windows");
    let scores = lineup.run(interrupt::flag(), |p| {
        let ppl: Vec<String> = p.scores.iter().map(|s| format!("{:.3}", s.perplexity())).collect();
        bar.at(p.windows.0, &format!("PPL {}", ppl.join(" ")));
    })?;
    Ok(scores)
}

/// Residual streams against the reference's, for the report.
fn layers(
    options: &Options,
    text: &str,
    subjects: &[Subject],
    reference: Option<&Reference>,
    measured: &mut [Measured],
) -> Result<()> {
    let Some(model) = reference.and_then(|r| r.model.clone()) else { return Ok(()) };
    let small = SessionOptions { context: Some(drift::TOKENS), ..options.session.clone() };
    let tokens = Text::new(model.tokenizer(), text).ids;
    let tokens = &tokens[..tokens.len().min(drift::TOKENS)];
    let exact = SessionOptions { kv_type: KvType::F32, ..small.clone() };
    let mut reference = Session::new(model, &exact)?;
    for (s, m) in subjects.iter().zip(measured) {
        let options = SessionOptions { kv_type: s.kv.into(), ..small.clone() };
        let mut session = Session::new(s.model.clone(), &options)?;
        m.drift =
            drift::measure((&s.name, &mut session), ("the reference", &mut reference), tokens)?;
    }
    Ok(())
}

fn page(
    args: &EvalArgs,
    text: Option<&str>,
    subjects: &[Subject],
    measured: &[Measured],
    reference: Option<&Reference>,
) -> String {
    let rows = subjects.iter().zip(measured).map(|(s, m)| PageRow {
        name: s.name.clone(),
        kv: s.kv.name(),
        size: s.size,
        scores: m.scores.as_ref(),
        accuracy: m.accuracy,
        drift: &m.drift,
    });
    let tokenizer = subjects.first().map(|s| s.model.tokenizer());
    let name = |path: &Option<PathBuf>| path.as_deref().map(stem).unwrap_or_default();
    let text = text.map(|text| PageText {
        name: name(&args.text),
        how: eval_output::how(args),
        ids: tokenizer.map(|t| Text::new(t, text).ids).unwrap_or_default(),
        tokenizer,
    });
    let page = Page {
        text,
        questions_name: name(&args.choices),
        reference: reference.map(|r| PageReference { name: r.name.clone(), size: r.size }),
        rows: rows.collect(),
    };
    page.html()
}
