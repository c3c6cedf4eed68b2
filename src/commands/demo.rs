//! `lapidary demo`: the whole way, from checkpoint to answers, on the small model that comes along.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use quant::DType;
use runtime::chat::Message;
use runtime::generate::Generator;
use runtime::sampler::{Sampler, SamplingParams};
use runtime::{Model, SessionOptions};

use super::run::{answer, report};
use super::{demo_pictures, demo_table, devices};
use crate::args::DemoArgs;
use crate::{format, interrupt};

/// Prompts that the demo model was trained to answer.
const PROMPTS: [&str; 4] = [
    "Hello! Who are you?",
    "What is the capital of France?",
    "What is 3 + 4?",
    "Tell me a story about a fox.",
];

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    interrupt::install_for_work()?;
    let checkpoint = find(args.models.as_deref())?;
    let dir = tempfile::tempdir().context("a temporary folder")?;
    let source = checkpoint.join("model.safetensors");
    let bytes = std::fs::metadata(&source).with_context(|| source.display().to_string())?.len();
    outln!("{} weighs {} in bf16. Converted:\n", checkpoint.display(), format::bytes(bytes))?;

    let mut files = Vec::new();
    for dtype in [DType::BF16, DType::Q8_0, DType::Q4_0] {
        let options = convert::Options {
            output: Some(dir.path().join(format!("demo-{dtype}.gguf"))),
            dtype,
            ..convert::Options::new(&checkpoint)
        };
        let summary = convert::convert(&options, &(), interrupt::flag())?;
        let file = summary.files.into_iter().next().context("no file was written")?;
        let weights: u64 = file.shares.values().map(|s| s.weights).sum();
        let stored: u64 = file.shares.values().map(|s| s.bytes).sum();
        outln!(
            "  {dtype:<5} {:>8}  {:>5.2} bits per weight  {:>5.0} ms",
            format::bytes(file.bytes),
            stored as f64 * 8.0 / weights.max(1) as f64,
            summary.elapsed.as_secs_f64() * 1e3,
        )?;
        files.push((dtype, file.path));
    }

    for (dtype, path) in &files {
        outln!("\n── {dtype} ──")?;
        let model = Arc::new(Model::open(path)?);
        let options = SessionOptions { threads: args.threads, ..SessionOptions::default() };
        let mut generator = Generator::new(devices::session(model.clone(), options, &args.device)?);
        let mut sampler = Sampler::new(SamplingParams::greedy())?;
        for prompt in PROMPTS {
            outln!("\n> {prompt}")?;
            let ids = model.template().render(model.tokenizer(), &[Message::user(prompt)], true);
            let (done, _) = answer(&mut generator, &mut sampler, &ids, 256)?;
            outln!()?;
            report(&done, None);
            if interrupt::stopped() {
                bail!("stopped");
            }
        }
    }
    if let Some((dtype, path)) = files.last() {
        demo_pictures::run(path, dtype.name(), &checkpoint.with_file_name("pictures"), args)?;
    }
    let [(_, bf16), .., (_, q4_0)] = &files[..] else { bail!("files were not written") };
    demo_table::print(&checkpoint, bf16, q4_0, dir.path(), args.threads)?;
    outln!("\nYour own: lapidary convert CHECKPOINT_DIR, then lapidary run FILE.gguf")?;
    Ok(())
}

/// The demo checkpoint: where it was said to be, here, or where this program was built.
fn find(given: Option<&Path>) -> Result<PathBuf> {
    let candidates: Vec<PathBuf> = match given {
        Some(dir) => vec![dir.to_owned(), dir.join("demo")],
        None => vec![
            Path::new("models/demo").to_owned(),
            Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"),
        ],
    };
    match candidates.iter().find(|c| c.join("config.json").is_file()) {
        Some(found) => Ok(found.clone()),
        None => bail!(
            "the demo checkpoint is not in {}; say where models/demo is with --models",
            candidates.iter().map(|c| c.display().to_string()).collect::<Vec<_>>().join(" or ")
        ),
    }
}
