//! What quantization costs the demo model, with and without training for it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use eval::Scheme;
use eval::lineup::{Lineup, Options};
use eval::stats::Mean;
use eval::tensors::Size;
use quant::DType;
use runtime::{KvType, SessionOptions};

use super::eval::size;
use super::eval_output::pm;
use super::open;
use crate::progress::ScoreBar;
use crate::{format, interrupt};

/// Windows of 512 tokens that are read: enough to tell the rows apart in a few seconds.
const WINDOWS: usize = 16;

/// Prints size, perplexity and divergence of `bf16`, of `q4_0` made of it, and of the checkpoint
/// that was trained for Q4_0 (`models/demo-qat`), on the start of `models/eval.txt`. `checkpoint`
/// is the folder of the demo checkpoint; prints nothing when one of its neighbours is not there.
pub(super) fn print(
    checkpoint: &Path,
    bf16: &Path,
    q4_0: &Path,
    dir: &Path,
    threads: Option<usize>,
) -> Result<()> {
    let (trained, text) = (beside(checkpoint, "demo-qat"), beside(checkpoint, "eval.txt"));
    if !trained.is_dir() || !text.is_file() {
        return Ok(());
    }
    let qat = dir.join("demo-qat-q4_0.gguf");
    let options = convert::Options {
        output: Some(qat.clone()),
        dtype: DType::Q4_0,
        ..convert::Options::new(&trained)
    };
    convert::convert(&options, &(), interrupt::flag())?;
    let text = std::fs::read_to_string(&text).with_context(|| text.display().to_string())?;

    let reference = open::model(bf16)?;
    let rows =
        [("q4_0 after training", open::model(q4_0)?), ("q4_0 trained for it", open::model(&qat)?)];
    let options = Options {
        ctx: 512,
        scheme: Scheme::SecondHalf,
        limit: Some(WINDOWS),
        session: SessionOptions { threads, ..SessionOptions::default() },
    };
    let [(name, model), (other_name, other)] = &rows;
    let mut lineup = Lineup::new(options, &text, name, model.clone(), KvType::F16)?;
    lineup.add(&text, other_name, other.clone(), KvType::F16)?;
    lineup.against(&text, "bf16", reference.clone(), KvType::F32)?;
    let bar = ScoreBar::new("What quantization costs", lineup.windows().len(), "windows");
    let scores = lineup.run(interrupt::flag(), |p| bar.at(p.windows.0, ""))?;
    drop(bar);
    if interrupt::stopped() {
        bail!("stopped");
    }

    outln!("\n── what quantization costs ──\n")?;
    outln!(
        "  {:<20} {:>8} {:>6}  {:<17}{:<19}same top token",
        "",
        "size",
        "bits",
        "perplexity",
        "divergence"
    )?;
    for (i, ((name, model), scores)) in rows.iter().zip(&scores).enumerate() {
        let sum = scores.summary();
        let against = sum.against.context("a reference was read")?;
        if i == 0 {
            line("bf16", size(&reference)?, against.perplexity.reference, "", "")?;
        }
        let top = format!("{} %", pm(against.same_top, 100.0, 2));
        line(name, size(model)?, sum.perplexity, &pm(against.kld, 1.0, 5), &top)?;
    }
    Ok(())
}

/// A neighbour of the folder of the demo checkpoint.
fn beside(checkpoint: &Path, name: &str) -> PathBuf {
    checkpoint.parent().unwrap_or(Path::new("")).join(name)
}

fn line(name: &str, size: Size, ppl: Mean, kld: &str, top: &str) -> Result<()> {
    let (weight, bits) = (format::bytes(size.file_bytes), size.bits_per_weight);
    let ppl = pm(ppl, 1.0, 4);
    let text = format!("  {name:<20} {weight:>8} {bits:>6.2}  {ppl:<17}{kld:<19}{top}");
    outln!("{}", text.trim_end())?;
    Ok(())
}
