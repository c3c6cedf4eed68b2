//! `lapidary inspect`.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use quant::DType;
use quant::gguf::{Gguf, Value};
use runtime::vision::VisionConfig;
use serde_json::json;

use crate::args::InspectArgs;
use crate::format;

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let path = args.model.display().to_string();
    let map = runtime::mapping::map(&args.model)?;
    let gguf = Gguf::parse(&map).with_context(|| path.clone())?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", as_json(&gguf, map.len(), args.tensors))?;
        return Ok(());
    }

    let weights: u64 = gguf.tensors().iter().map(|t| t.elements()).sum();
    let bytes: u64 = gguf.tensors().iter().map(|t| t.data.len() as u64).sum();
    writeln!(
        out,
        "{path}\n  GGUF v{}, {}, {} weights in {} {}, {:.2} bits per weight\n",
        gguf.version(),
        format::bytes(map.len() as u64),
        format::count(weights),
        gguf.tensors().len(),
        tensors(gguf.tensors().len() as u64),
        bytes as f64 * 8.0 / weights.max(1) as f64,
    )?;
    if let Err(part) = gguf.whole() {
        writeln!(out, "  {part}\n")?;
    }
    for (dtype, share) in shares(&gguf) {
        writeln!(
            out,
            "  {dtype:<6} {:>4} {:<7}  {:>9} weights  {:>9}",
            share.tensors,
            tensors(share.tensors),
            format::count(share.weights),
            format::bytes(share.bytes),
        )?;
    }
    if let Ok(tower) = VisionConfig::from_gguf(&gguf) {
        let (size, patch) = (tower.image_size, tower.patch_size);
        writeln!(
            out,
            "\n  A vision tower of {} layers: sees {size}×{size} pixels in {} patches of {patch}×{patch},\n  makes {} tokens of a picture, for a model of {} features a token.",
            tower.layers,
            tower.patches(),
            tower.tokens(),
            tower.projection_dim,
        )?;
    }
    writeln!(out)?;
    let width = gguf.metadata().iter().map(|(k, _)| k.len()).max().unwrap_or(0);
    for (key, value) in gguf.metadata() {
        writeln!(out, "  {key:<width$}  {}", shown(value))?;
    }
    if args.tensors {
        let width = gguf.tensors().iter().map(|t| t.name.len()).max().unwrap_or(0);
        writeln!(out, "\n  tensors, slowest dimension first:")?;
        for t in gguf.tensors() {
            let dims: Vec<String> = t.dims.iter().rev().map(u64::to_string).collect();
            writeln!(
                out,
                "  {:<width$}  {:<6} {:>9}  [{}]",
                t.name,
                t.dtype,
                format::bytes(t.data.len() as u64),
                dims.join(", ")
            )?;
        }
    }
    Ok(())
}

/// The word behind a number of tensors.
fn tensors(n: u64) -> &'static str {
    if n == 1 { "tensor" } else { "tensors" }
}

/// Tensors of one type.
#[derive(Default)]
struct Share {
    tensors: u64,
    weights: u64,
    bytes: u64,
}

fn shares(gguf: &Gguf<'_>) -> BTreeMap<DType, Share> {
    let mut shares = BTreeMap::<_, Share>::new();
    for t in gguf.tensors() {
        let share = shares.entry(t.dtype).or_default();
        share.tensors += 1;
        share.weights += t.elements();
        share.bytes += t.data.len() as u64;
    }
    shares
}

/// A value on one line: long strings and arrays by their beginning.
fn shown(value: &Value<'_>) -> String {
    const LIMIT: usize = 60;
    let cut = |s: String| match s.char_indices().nth(LIMIT) {
        Some((at, _)) => format!("{}…", &s[..at]),
        None => s,
    };
    match value {
        Value::String(s) => cut(format!("{s:?}")),
        Value::Array(a) => {
            let first: Vec<String> = a.iter().take(4).map(|v| shown(&v)).collect();
            let more = if a.len() > 4 { ", …" } else { "" };
            format!("[{}{more}] ({} {})", first.join(", "), a.len(), a.item_type().name())
        }
        v => plain(v),
    }
}

fn plain(value: &Value<'_>) -> String {
    match *value {
        Value::F32(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        ref v => v.as_i64().map_or_else(|| v.as_u64().unwrap_or(0).to_string(), |v| v.to_string()),
    }
}

fn as_json(gguf: &Gguf<'_>, len: usize, tensors: bool) -> serde_json::Value {
    let metadata: serde_json::Map<_, _> =
        gguf.metadata().iter().map(|(k, v)| ((*k).to_owned(), json_value(v))).collect();
    let types: Vec<_> = shares(gguf)
        .into_iter()
        .map(|(d, s)| {
            json!({"type": d.name(), "tensors": s.tensors, "weights": s.weights, "bytes": s.bytes})
        })
        .collect();
    let mut out = json!({
        "version": gguf.version(),
        "file_bytes": len,
        "alignment": gguf.alignment(),
        "types": types,
        "metadata": metadata,
    });
    if tensors {
        out["tensors"] = gguf
            .tensors()
            .iter()
            .map(|t| {
                json!({
                    "name": t.name, "type": t.dtype.name(), "shape": t.dims.iter().rev().collect::<Vec<_>>(),
                    "offset": t.offset, "bytes": t.data.len(),
                })
            })
            .collect();
    }
    out
}

fn json_value(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::String(s) => (*s).into(),
        Value::Bool(b) => (*b).into(),
        Value::F32(v) => (*v).into(),
        Value::F64(v) => (*v).into(),
        // A vocabulary would bury everything else: long arrays are summed up.
        Value::Array(a) if a.len() > 64 => {
            json!({"array": a.item_type().name(), "len": a.len()})
        }
        Value::Array(a) => a.iter().map(|v| json_value(&v)).collect(),
        v => v.as_i64().map_or_else(|| v.as_u64().into(), Into::into),
    }
}
