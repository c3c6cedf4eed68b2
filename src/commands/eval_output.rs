//! The figures of `lapidary eval`, as Markdown or JSON.

use std::io::Write;

use anyhow::Result;
use eval::stats::{Mean, fixed};
use serde_json::json;

use super::eval::{Measured, Reference, Subject};
use crate::args::EvalArgs;
use crate::format;

/// How the text was read, in words.
pub(super) fn how(args: &EvalArgs) -> String {
    match args.stride {
        Some(stride) => format!(
            "windows of {} tokens that advance by {stride}, each token scored once",
            args.ctx
        ),
        None => format!("windows of {} tokens, the second half of each scored", args.ctx),
    }
}

/// `value ± error`, both times `scale`.
pub(super) fn pm(m: Mean, scale: f64, digits: usize) -> String {
    format!("{} ± {}", fixed(m.value * scale, digits), fixed(m.error * scale, digits))
}

/// From one share to another, in %.
fn range(from: f64, to: f64) -> String {
    format!("{} … {}", fixed(from * 100.0, 2), fixed(to * 100.0, 2))
}

/// Tables on standard output.
pub(super) fn markdown(
    args: &EvalArgs,
    subjects: &[Subject],
    measured: &[Measured],
    reference: Option<&Reference>,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let many_kv = args.kv.len() > 1;
    let name = |s: &Subject| match many_kv {
        true => format!("{} (KV {})", s.name, s.kv.name()),
        false => s.name.clone(),
    };
    let scored: Vec<_> = subjects
        .iter()
        .zip(measured)
        .filter_map(|(s, m)| Some((s, m.scores.as_ref()?.summary())))
        .collect();
    // One number, or each model's where tokenizers differ.
    let mut tokens: Vec<_> = scored.iter().map(|(_, s)| s.tokens.to_string()).collect();
    if tokens.iter().all(|n| *n == tokens[0]) {
        tokens.truncate(1);
    }
    if !scored.is_empty() {
        let against = reference.map(|r| format!(", against {}", r.name)).unwrap_or_default();
        writeln!(
            out,
            "{} tokens scored: {}{against}; KV cache {}\n",
            tokens.join(", "),
            how(args),
            args.kv.iter().map(|k| k.name()).collect::<Vec<_>>().join(", "),
        )?;
        writeln!(
            out,
            "| model | size | bits/weight | PPL | bits/byte | KLD mean | KLD 99% | top-1 | tokens/s |"
        )?;
        writeln!(out, "|---|---:|---:|---:|---:|---:|---:|---:|---:|")?;
        let base = scored.iter().find_map(|(_, s)| Some(s.against.as_ref()?.perplexity.reference));
        if let (Some(r), Some(ppl)) = (reference, base) {
            let (size, bits) = match r.size {
                Some(s) => (format::bytes(s.file_bytes), format!("{:.2}", s.bits_per_weight)),
                None => ("-".into(), "-".into()),
            };
            writeln!(
                out,
                "| {} (reference) | {size} | {bits} | {} | - | - | - | - | - |",
                r.name,
                pm(ppl, 1.0, 4)
            )?;
        }
        for (s, sum) in &scored {
            let (kld, p99, top) = match &sum.against {
                Some(a) => (
                    pm(a.kld, 1.0, 5),
                    fixed(a.kld_spread.p99(), 4),
                    format!("{} %", pm(a.same_top, 100.0, 2)),
                ),
                None => ("-".into(), "-".into(), "-".into()),
            };
            writeln!(
                out,
                "| {} | {} | {:.2} | {} | {} | {kld} | {p99} | {top} | {:.0} |",
                name(s),
                format::bytes(s.size.file_bytes),
                s.size.bits_per_weight,
                pm(sum.perplexity, 1.0, 4),
                pm(sum.bits_per_byte, 1.0, 4),
                sum.tokens_per_second,
            )?;
        }
        if scored.iter().any(|(_, s)| s.against.is_some()) {
            details(&mut out, &scored, &name)?;
        }
    }
    let answered: Vec<_> =
        subjects.iter().zip(measured).filter_map(|(s, m)| Some((s, m.accuracy?))).collect();
    if let Some((_, first)) = answered.first() {
        writeln!(
            out,
            "\n{} questions, chance {:.1} %\n\n| model | acc | acc_norm (per byte) | per token |\n|---|---:|---:|---:|",
            first.items,
            first.chance * 100.0
        )?;
        for (s, a) in &answered {
            let of = |m: Mean| pm(m, 100.0, 1);
            writeln!(
                out,
                "| {} | {} % | {} % | {} % |",
                name(s),
                of(a.acc),
                of(a.acc_norm),
                of(a.acc_token)
            )?;
        }
    }
    Ok(())
}

/// What the divergence is made of.
fn details(
    out: &mut impl Write,
    scored: &[(&Subject, eval::scores::Summary)],
    name: &dyn Fn(&Subject) -> String,
) -> Result<()> {
    writeln!(out, "\n| against the reference | {} |", joined(scored, |s, _| name(s)))?;
    writeln!(out, "|---|{}", "---:|".repeat(scored.len()))?;
    type Cell = fn(&eval::scores::Divergence) -> String;
    let rows: [(&str, Cell); 16] = [
        ("ln(PPL / PPL ref)", |a| pm(a.perplexity.ln_ratio, 1.0, 5)),
        ("PPL / PPL ref", |a| pm(a.perplexity.ratio, 1.0, 5)),
        ("PPL - PPL ref", |a| pm(a.perplexity.difference, 1.0, 5)),
        ("KLD mean", |a| pm(a.kld, 1.0, 6)),
        ("KLD median", |a| fixed(a.kld_spread.median, 6)),
        ("KLD 90 %", |a| fixed(a.kld_spread.p90(), 6)),
        ("KLD 95 %", |a| fixed(a.kld_spread.p95(), 6)),
        ("KLD 99 %", |a| fixed(a.kld_spread.p99(), 6)),
        ("KLD 99.9 %", |a| fixed(a.kld_spread.p999(), 6)),
        ("KLD max", |a| fixed(a.kld_spread.max, 6)),
        ("Δp mean, %", |a| pm(a.delta_p, 100.0, 3)),
        ("Δp RMS, %", |a| pm(a.delta_p_rms, 100.0, 3)),
        ("Δp 1 % … 99 %", |a| {
            let s = &a.delta_p_spread;
            range(s.low[1], s.p99())
        }),
        ("Δp 5 % … 95 %", |a| {
            let s = &a.delta_p_spread;
            range(s.low[2], s.p95())
        }),
        ("same top token, %", |a| pm(a.same_top, 100.0, 3)),
        ("shared of top 5, %", |a| pm(a.shared_top, 100.0, 3)),
    ];
    for (label, cell) in rows {
        let cells = joined(scored, |_, s| s.against.as_ref().map_or("-".into(), cell));
        writeln!(out, "| {label} | {cells} |")?;
    }
    Ok(())
}

fn joined(
    scored: &[(&Subject, eval::scores::Summary)],
    cell: impl Fn(&Subject, &eval::scores::Summary) -> String,
) -> String {
    scored.iter().map(|(s, sum)| cell(s, sum)).collect::<Vec<_>>().join(" | ")
}

/// One JSON object on standard output.
pub(super) fn json(
    args: &EvalArgs,
    subjects: &[Subject],
    measured: &[Measured],
    reference: Option<&Reference>,
) -> Result<()> {
    let models: Vec<_> = subjects
        .iter()
        .zip(measured)
        .map(|(s, m)| {
            json!({
                "model": s.name,
                "kv": s.kv.name(),
                "size": s.size,
                "scores": m.scores.as_ref().map(eval::Scores::summary),
                "choices": m.accuracy,
                "drift": m.drift,
            })
        })
        .collect();
    let all = json!({
        "ctx": args.ctx,
        "stride": args.stride,
        "reference": reference.map(|r| json!({"model": r.name, "size": r.size})),
        "complete": !crate::interrupt::stopped(),
        "models": models,
    });
    writeln!(std::io::stdout().lock(), "{all:#}")?;
    Ok(())
}
