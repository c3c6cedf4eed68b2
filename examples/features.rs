//! The features that a vision tower makes of a picture, as a NumPy file: to compare towers, types and
//! programs with.
//!
//! ```text
//! cargo run --release --example features -- mmproj-MODEL.gguf PICTURE OUT.npy [auto|exact|fast]
//! ```

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use quant::kernels::Kernels;
use runtime::vision::{Precision, VisionOptions, VisionTower};
use vision::{Preprocessor, Rgb};

#[path = "../src/npy.rs"]
mod npy;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [tower, picture, out, how @ ..] = args.as_slice() else {
        bail!("features MMPROJ PICTURE OUT.npy [auto|exact|fast]");
    };
    let precision = match how.first().map_or("auto", String::as_str) {
        "auto" => Precision::Auto,
        "exact" => Precision::Exact,
        "fast" => Precision::Fast,
        other => bail!("{other}: auto, exact or fast"),
    };
    let options = VisionOptions { kernels: Kernels::from_env()?, precision, threads: None };
    let tower = VisionTower::open_with(tower, &options)?;
    let c = tower.config();
    let resize = Preprocessor { size: c.image_size, mean: c.mean, std: c.std };
    let pixels = resize.pixels(&Rgb::open(Path::new(picture))?);
    let start = Instant::now();
    let rows = tower.encode(&pixels, &AtomicBool::new(false))?;
    eprintln!("{:.2} s", start.elapsed().as_secs_f64());
    let file = std::fs::File::create(out).with_context(|| out.clone())?;
    let mut file = std::io::BufWriter::new(file);
    npy::header(&mut file, rows.len(), rows.width())?;
    npy::values(&mut file, rows.data())?;
    Ok(file.flush()?)
}
