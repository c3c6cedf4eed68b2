//! `lapidary compare`: where the loss is, tensor by tensor and layer by layer.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use eval::drift::{self, LayerDrift};
use eval::tensors::{self, TensorDifference};
use quant::gguf::Gguf;
use runtime::{KvType, Session, SessionOptions};
use serde_json::json;

use super::eval::gguf_of;
use crate::args::{CompareArgs, EvalOutput};
use crate::{format, interrupt};

pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    interrupt::install_for_work()?;
    let (a, _a_folder) = gguf_of(&args.model)?;
    let (b, _b_folder) = gguf_of(&args.reference)?;
    let differences = {
        let (name_a, name_b) = (shown(&args.model), shown(&args.reference));
        let parse = |m: &runtime::Model| Gguf::parse(m.bytes()).map(|_| ());
        parse(&a).with_context(|| name_a.clone())?;
        parse(&b).with_context(|| name_b.clone())?;
        tensors::compare((&name_a, &Gguf::parse(a.bytes())?), (&name_b, &Gguf::parse(b.bytes())?))?
    };
    let drift = match &args.text {
        None => Vec::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let ids = eval::Text::new(b.tokenizer(), &text).ids;
            let ids = &ids[..ids.len().min(drift::TOKENS)];
            let options = SessionOptions {
                context: Some(drift::TOKENS),
                kv_type: KvType::F32,
                threads: args.threads,
                kernels: quant::kernels::Kernels::from_env()?,
                ..SessionOptions::default()
            };
            let mut sa = Session::new(a.clone(), &options)?;
            let mut sb = Session::new(b.clone(), &options)?;
            drift::measure((&shown(&args.model), &mut sa), (&shown(&args.reference), &mut sb), ids)?
        }
    };
    let mut out = std::io::stdout().lock();
    match args.output {
        EvalOutput::Json => {
            writeln!(out, "{:#}", json!({"tensors": differences, "drift": drift}))?;
        }
        EvalOutput::Md => {
            table(&mut out, &differences)?;
            layers(&mut out, &drift)?;
        }
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Those that differ, worst first; the others are counted.
fn table(out: &mut impl Write, differences: &[TensorDifference]) -> Result<()> {
    let (differ, same): (Vec<_>, Vec<_>) = differences.iter().partition(|d| d.snr_db.is_some());
    if !differ.is_empty() {
        let width = differ.iter().map(|d| d.name.len()).max().unwrap_or(0);
        writeln!(
            out,
            "| {:<width$} | type | bits | weights | RMSE | max error | relative | SNR dB | cosine |",
            "tensor"
        )?;
        writeln!(out, "|{}|---|---:|---:|---:|---:|---:|---:|---:|", "-".repeat(width + 2))?;
        for d in &differ {
            writeln!(
                out,
                "| {:<width$} | {:<6} | {:>5.2} | {:>6} | {:.3e} | {:.3e} | {:.5} | {:>5.2} | {:.6} |",
                d.name,
                d.dtype,
                d.bits,
                format::count(d.weights),
                d.rmse,
                d.max,
                d.relative,
                d.snr_db.unwrap_or(f64::INFINITY),
                d.cosine,
            )?;
        }
    }
    match (differ.len(), same.len()) {
        (_, 0) => {}
        (0, 1) => writeln!(out, "The one tensor holds the same weights.")?,
        (0, n) => writeln!(out, "All {n} tensors hold the same weights.")?,
        (_, n) => writeln!(out, "\n{n} tensors hold the same weights in both.")?,
    }
    Ok(())
}

fn layers(out: &mut impl Write, drift: &[LayerDrift]) -> Result<()> {
    if drift.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nThe residual stream after each layer, mean over positions:\n")?;
    writeln!(out, "| layers | relative drift | cosine |\n|---:|---:|---:|")?;
    for d in drift {
        writeln!(out, "| {} | {:.5} | {:.6} |", d.depth, d.relative, d.cosine)?;
    }
    Ok(())
}
