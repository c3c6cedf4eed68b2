//! `lapidary bench --image`: how long a vision tower takes for one picture.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Result, bail};
use quant::kernels::Kernels;
use quant::kernels::ceiling::{self, Clock};
use runtime::vision::{VisionOptions, VisionTower};
use serde_json::json;

use super::bench::{CEILING, GPU_WARM_UP, least, median, most};
#[cfg(feature = "gpu")]
use super::devices;
use crate::args::{BenchArgs, BenchOutput};
use crate::format;

/// Figures of the repetitions, one each.
#[derive(Default)]
struct Outcome {
    seconds: Vec<f64>,
    /// Products of 16-bit integers, GOPS; empty where that ceiling is not measured.
    peak: Vec<f64>,
    /// The tower's operations a second as a share of that.
    share: Vec<f64>,
}

pub(super) fn run(mmproj: &Path, kernels: Kernels, args: &BenchArgs) -> Result<()> {
    let threads = args.threads;
    let options = VisionOptions { kernels, threads, ..VisionOptions::default() };
    #[cfg_attr(not(feature = "gpu"), allow(unused_mut))]
    let mut tower = VisionTower::open_with(mmproj, &options)?;
    #[cfg(feature = "gpu")]
    if let Some(device) = devices::options(&args.device)?.gpu {
        tower.use_gpu(&device, |_| {})?;
    }
    let gpu = device_name(&tower);
    let (matrices, attention) = tower.config().flops();
    let flops = matrices + attention;
    // Any picture takes as long as any other.
    let pixels: Vec<f32> =
        (0..tower.config().pixels()).map(|i| (i as f32 * 0.01).sin() * 0.9).collect();
    let start = Instant::now();
    while gpu.is_some() && start.elapsed() < GPU_WARM_UP {
        tower.encode(&pixels, &AtomicBool::new(false))?;
    }
    let mut out = Outcome::default();
    for repetition in 0..args.repetitions.max(1) {
        eprint!("\rimage {}", repetition + 1);
        let peak = match gpu {
            Some(_) => None,
            None => ceiling::int16_peak(kernels, tower.threads(), CEILING, Clock::Wall),
        };
        let start = Instant::now();
        tower.encode(&pixels, &AtomicBool::new(false))?;
        let seconds = start.elapsed().as_secs_f64();
        out.seconds.push(seconds);
        out.peak.extend(peak);
        out.share.extend(peak.map(|p| flops / seconds / 1e9 / p));
    }
    eprint!("\r{:<40}\r", "");
    if device_name(&tower) != gpu {
        bail!("the GPU failed, and the CPU's figures are not its own");
    }
    let gops = flops / median(&out.seconds) / 1e9;
    match args.output {
        BenchOutput::Md => print_md(&tower, kernels, &out, gops)?,
        BenchOutput::Json => outln!("{:#}", as_json(&tower, kernels, &out, gops))?,
        BenchOutput::Csv => {
            outln!("test,seconds,min,max,gops,share_of_int16_peak")?;
            let (s, share) =
                (&out.seconds, share(&out).map_or(String::new(), |v| format!("{v:.4}")));
            outln!("image,{:.3},{:.3},{:.3},{gops:.1},{share}", median(s), least(s), most(s))?;
        }
    }
    Ok(())
}

/// The GPU that the layers are on.
fn device_name(tower: &VisionTower) -> Option<String> {
    #[cfg(feature = "gpu")]
    return tower.device().map(|device| device.name().to_owned());
    #[cfg(not(feature = "gpu"))]
    {
        let _ = tower;
        None
    }
}

fn share(out: &Outcome) -> Option<f64> {
    (!out.share.is_empty()).then(|| median(&out.share))
}

fn print_md(tower: &VisionTower, kernels: Kernels, out: &Outcome, gops: f64) -> Result<()> {
    let (c, path) = (tower.config(), tower.path());
    outln!("{}, {}", path.display(), format::bytes(std::fs::metadata(path)?.len()))?;
    let peak = match out.peak.is_empty() {
        true => "not measured".into(),
        false => format!("{:.0} GOPS", median(&out.peak)),
    };
    let threads = tower.threads();
    match device_name(tower) {
        Some(name) => outln!("{name}\n")?,
        None => outln!(
            "{threads} threads, {}; this machine multiplies int16 at {peak}\n",
            kernels.isa()
        )?,
    }
    let (matrices, attention) = tower.config().flops();
    outln!(
        "An image of {0} × {0}: {1} patches, {2} tokens; {3:.2} TFLOP in matrices, {4:.2} in attention.\n",
        c.image_size,
        c.patches(),
        c.tokens(),
        matrices / 1e12,
        attention / 1e12,
    )?;
    outln!("| test | seconds | min – max | rate | of int16 peak |")?;
    outln!("|---|---:|---:|---:|---:|")?;
    let share = share(out).map_or("-".into(), |v| format!("{:.0}%", 100.0 * v));
    let s = &out.seconds;
    let rate = match device_name(tower) {
        Some(_) => format!("{:.2} TFLOP/s", gops / 1e3),
        None => format!("{gops:.0} GOPS"),
    };
    outln!("| image | {:.2} | {:.2} – {:.2} | {rate} | {share} |", median(s), least(s), most(s))?;
    Ok(())
}

fn as_json(tower: &VisionTower, kernels: Kernels, out: &Outcome, gops: f64) -> serde_json::Value {
    let s = &out.seconds;
    let peak = (!out.peak.is_empty()).then(|| median(&out.peak));
    json!({
        "model": tower.path().display().to_string(),
        "machine": {
            "int16_gops": peak,
            "threads": tower.threads(),
            "gpu": device_name(tower),
            "isa": kernels.isa().name(),
        },
        "tests": [{
            "test": "image",
            "seconds": {"median": median(s), "min": least(s), "max": most(s)},
            "gops": gops,
            "share_of_int16_peak": share(out),
        }],
    })
}
