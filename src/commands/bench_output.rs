//! The figures of `lapidary bench`, as Markdown, JSON or comma-separated values.

#[cfg(feature = "gpu")]
use std::collections::HashMap;
#[cfg(feature = "gpu")]
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::bench::{Bench, Machine, Outcome, Test, least, median, most};
use crate::format;

pub(super) fn print_md(bench: &Bench, machine: &Machine, results: &[Outcome]) -> Result<()> {
    let model = bench.session.model();
    outln!("{}, {}", model.path().display(), format::bytes(model.bytes().len() as u64))?;
    match bench.gpu() {
        Some(name) => {
            outln!("{name}; it copies at {:.1} GB/s", machine.read_gb_s)?;
            #[cfg(feature = "gpu")]
            print_cost(bench, results)?;
            outln!()?;
        }
        None => {
            let int8 = machine.int8_gops.map_or("not measured".into(), |g| format!("{g:.0} GOPS"));
            let more = match (machine.f32_gops, machine.tile_gops) {
                (Some(g), _) => format!(", f32 at {g:.0} GFLOPS"),
                (_, Some(g)) => format!(", bf16 in its matrix unit at {g:.0} GOPS"),
                _ => String::new(),
            };
            outln!(
                "{} threads, {}; this machine reads {:.1} GB/s and multiplies int8 at {int8}{more}\n",
                bench.threads,
                bench.kernels.isa(),
                machine.read_gb_s,
            )?;
        }
    }
    outln!("| test | tokens/s | min – max | rate | of the ceiling |")?;
    outln!("|---|---:|---:|---:|---:|")?;
    for r in results {
        let (unit, ceiling) = match r.test {
            Test::Prefill(_) if bench.gpu().is_some() => ("TFLOP/s", "of int8 peak"),
            Test::Prefill(_) if bench.is_float() => ("GFLOPS", "of f32 peak"),
            Test::Prefill(_) => ("GOPS", "of int8 peak"),
            Test::Decode { .. } if bench.gpu().is_some() => ("GB/s", "of copy bandwidth"),
            Test::Decode { .. } => ("GB/s", "of read bandwidth"),
        };
        let rate = match unit {
            "TFLOP/s" => format!("{:.2}", median(&r.rate) / 1e3),
            _ => format!("{:.1}", median(&r.rate)),
        };
        let share = match r.share.is_empty() {
            true => "-".into(),
            false => format!("{:.0}% {ceiling}", 100.0 * median(&r.share)),
        };
        let share = match machine.share_of_tiles(r) {
            Some(of_tiles) => format!("{share}, {:.0}% of bf16 peak", 100.0 * of_tiles),
            None => share,
        };
        outln!(
            "| {} | {:.1} | {:.1} – {:.1} | {rate} {unit} | {share} |",
            r.name,
            median(&r.tokens_per_second),
            least(&r.tokens_per_second),
            most(&r.tokens_per_second),
        )?;
    }
    #[cfg(feature = "gpu")]
    results.iter().try_for_each(print_kernels)?;
    Ok(())
}

/// Where the time of a test went on the GPU: a token's, or that of the whole prompt.
#[cfg(feature = "gpu")]
fn print_kernels(r: &Outcome) -> Result<()> {
    let mut kernels: HashMap<(&str, [u32; 3]), (usize, Duration)> = HashMap::new();
    for k in &r.kernels {
        let found = kernels.entry((&k.name, k.grid)).or_default();
        *found = (found.0 + k.count, found.1 + k.time);
    }
    if kernels.is_empty() {
        return Ok(());
    }
    let (unit, times) = match r.test {
        Test::Decode { n, .. } => ("token", n * r.tokens_per_second.len()),
        Test::Prefill(_) => ("prompt", r.tokens_per_second.len()),
    };
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|a, b| b.1.1.cmp(&a.1.1).then_with(|| a.0.cmp(&b.0)));
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let all = kernels.iter().map(|(_, (_, time))| *time).sum::<Duration>();
    outln!("\n{}: {:.0} µs in kernels a {unit}\n", r.name, micros(all) / times as f64)?;
    outln!("| kernel | workgroups | times | µs each | µs a {unit} | share |")?;
    outln!("|---|---:|---:|---:|---:|---:|")?;
    for ((name, [x, y, z]), (count, time)) in kernels {
        outln!(
            "| {name} | {x} × {y} × {z} | {:.0} | {:.1} | {:.0} | {:.0}% |",
            count as f64 / times as f64,
            micros(time) / count as f64,
            micros(time) / times as f64,
            100.0 * time.as_secs_f64() / all.as_secs_f64(),
        )?;
    }
    Ok(())
}

/// What a token costs on the GPU, after the context of each test of decoding.
#[cfg(feature = "gpu")]
fn print_cost(bench: &Bench, results: &[Outcome]) -> Result<()> {
    let mut depths: Vec<usize> = results.iter().filter_map(Outcome::decoded_after).collect();
    depths.dedup();
    for depth in depths {
        let Some(cost) = bench.cost(depth) else { return Ok(()) };
        outln!(
            "a token after {depth} others: {} of weights, {} of keys and values, {} dispatches",
            format::bytes(cost.weights),
            format::bytes(cost.cache),
            cost.dispatches
        )?;
    }
    Ok(())
}

/// What the share of a prefill is called.
fn share_of_products(bench: &Bench) -> &'static str {
    if bench.is_float() { "share_of_f32_peak" } else { "share_of_int8_peak" }
}

pub(super) fn print_csv(bench: &Bench, results: &[Outcome]) -> Result<()> {
    outln!(
        "test,tokens_per_second,min,max,gb_per_second,share_of_read_bandwidth,gops,{}",
        share_of_products(bench)
    )?;
    for r in results {
        let pair = [median(&r.rate), median(&r.share)].map(|v| format!("{v:.4}")).join(",");
        let (read, products) = match r.test {
            Test::Decode { .. } => (pair, ",".into()),
            Test::Prefill(_) => (",".into(), pair),
        };
        let t = &r.tokens_per_second;
        outln!("{},{:.3},{:.3},{:.3},{read},{products}", r.name, median(t), least(t), most(t))?;
    }
    Ok(())
}

pub(super) fn as_json(bench: &Bench, machine: &Machine, results: &[Outcome]) -> serde_json::Value {
    let tests: Vec<_> = results
        .iter()
        .map(|r| {
            let t = &r.tokens_per_second;
            let (rate, share) = match r.test {
                Test::Decode { .. } => ("gb_per_second", "share_of_read_bandwidth"),
                Test::Prefill(_) => ("gops", share_of_products(bench)),
            };
            let mut test = json!({
                "test": r.name,
                "tokens_per_second": {"median": median(t), "min": least(t), "max": most(t)},
            });
            test[rate] = json!(median(&r.rate));
            #[cfg(feature = "gpu")]
            if let Some(cost) = r.decoded_after().and_then(|depth| bench.cost(depth)) {
                test["token"] = json!({
                    "weight_bytes": cost.weights,
                    "cache_bytes": cost.cache,
                    "dispatches": cost.dispatches,
                });
            }
            if !r.share.is_empty() {
                test[share] = json!(median(&r.share));
            }
            if let Some(share) = machine.share_of_tiles(r) {
                test["share_of_bf16_peak"] = json!(share);
            }
            test
        })
        .collect();
    json!({
        "model": bench.session.model().path().display().to_string(),
        "machine": {
            "read_gb_s": machine.read_gb_s,
            "int8_gops": machine.int8_gops,
            "f32_gops": machine.f32_gops,
            "bf16_gops": machine.tile_gops,
            "threads": bench.threads,
            "isa": bench.kernels.isa().name(),
            "gpu": bench.gpu(),
        },
        "tests": tests,
    })
}
