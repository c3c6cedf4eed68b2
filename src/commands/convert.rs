//! `lapidary convert`: a checkpoint to one GGUF file, or a GGUF file to a smaller one.

use std::num::NonZero;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use convert::{FileSummary, Options, Summary};
use quant::DType;

use crate::progress::ByteBar;
use crate::{format, interrupt};

/// Make one small GGUF file of a checkpoint
///
/// Takes a folder as the Hub publishes it (config.json, tokenizer, safetensors), or a .gguf file
/// to be stored in another type. What comes out runs here and in llama.cpp. A model that sees gets
/// a second file for its eyes, mmproj-OUT.gguf, beside the first.
///
/// Memory stays small whatever the model's size. Nothing half-written is ever left behind.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lapidary convert gemma-3-1b-it                   2 GB of bf16 become 0.7 GB, mostly q4_0
  lapidary convert gemma-3-4b-it -o small.gguf     small.gguf, and mmproj-small.gguf to see
  lapidary convert gemma-3-4b-it --vision-type q8_0       eyes of half the size
  lapidary convert gemma-3-1b-it --type q8_0       larger, and next to nothing is lost
  lapidary convert gemma-3-1b --scale search       q4_0 of weights not trained for it
  lapidary convert gemma-3-1b-it --type bf16       every weight as it is
  lapidary convert qat.gguf -o lean.gguf           the same with its f16 embedding in q8_0")]
pub(crate) struct ConvertArgs {
    /// A checkpoint folder, or a .gguf file
    #[arg(value_name = "CHECKPOINT_DIR | MODEL.gguf")]
    source: PathBuf,
    /// Where to write [default: MODEL-TYPE.gguf, in this folder]
    #[arg(short, long, value_name = "OUT.gguf")]
    output: Option<PathBuf>,
    /// How the weight matrices are stored; norms are always f32
    #[arg(long = "type", value_enum, value_name = "TYPE", default_value_t = Type::Q4_0)]
    dtype: Type,
    /// How the embedding is stored, which is the output head too [default: q8_0 with q4_0, else as
    /// --type]
    #[arg(long, value_enum, value_name = "TYPE")]
    embed_type: Option<Type>,
    /// How the vision tower's matrices are stored; rows that are not whole blocks stay f16
    /// [default: as --type where that is a float type, else f16]
    #[arg(long, value_enum, value_name = "TYPE")]
    vision_type: Option<Type>,
    /// How the scale of each q4_0 block is chosen; the file's format is the same
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Scale::Absmax)]
    scale: Scale,
    /// Threads to work with [default: as many as the machine runs at once]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

/// How q4_0 scales are chosen.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scale {
    /// From the largest weight, as llama.cpp does and as QAT checkpoints are trained for
    Absmax,
    /// The best of several by least squares: less rounding error, for checkpoints that are not QAT
    Search,
}

impl From<Scale> for convert::Scale {
    fn from(s: Scale) -> Self {
        match s {
            Scale::Absmax => convert::Scale::Absmax,
            Scale::Search => convert::Scale::Search,
        }
    }
}

/// Types that can be written.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Type {
    /// 4.5 bits a weight: what the QAT checkpoints are trained for
    #[value(name = "q4_0")]
    Q4_0,
    /// 8.5 bits a weight
    #[value(name = "q8_0")]
    Q8_0,
    /// 16 bits: the checkpoint's own, as a rule
    Bf16,
    /// 16 bits, more precision and less range
    F16,
    /// 32 bits
    F32,
}

impl From<Type> for DType {
    fn from(t: Type) -> DType {
        match t {
            Type::Q4_0 => DType::Q4_0,
            Type::Q8_0 => DType::Q8_0,
            Type::Bf16 => DType::BF16,
            Type::F16 => DType::F16,
            Type::F32 => DType::F32,
        }
    }
}

/// Converts, with a bar on standard error and the result on standard output.
///
/// # Errors
/// Whatever [`convert::convert`] refuses, and Ctrl-C.
pub(crate) fn run(args: &ConvertArgs) -> Result<()> {
    interrupt::install_for_work()?;
    if args.vision_type.is_some() && !args.source.is_dir() {
        bail!(
            "--vision-type is for checkpoint folders: {} holds no vision tower",
            args.source.display()
        );
    }
    let options = Options {
        source: args.source.clone(),
        output: args.output.clone(),
        dtype: args.dtype.into(),
        embed: args.embed_type.map(DType::from),
        vision: args.vision_type.map(DType::from),
        scale: args.scale.into(),
        threads: args.threads,
        force: args.force,
    };
    let bar = ByteBar::new("Converting");
    let result = convert::convert(&options, &bar, interrupt::flag());
    bar.clear();
    out!("{}", report(&result?))?;
    Ok(())
}

/// The summary as it is printed.
fn report(summary: &Summary) -> String {
    let mut out = String::new();
    for file in &summary.files {
        out += &describe(file);
    }
    out += &format!(
        "Read {} in {:.1} s.\n",
        format::bytes(summary.source_bytes),
        summary.elapsed.as_secs_f64()
    );
    for note in &summary.notes {
        out += &format!("Note: {note}.\n");
    }
    out
}

fn describe(file: &FileSummary) -> String {
    let mut out = format!(
        "{}: {}, {} weights, {:.2} bits each\n",
        file.path.display(),
        format::bytes(file.bytes),
        format::count(file.weights()),
        file.bits_per_weight(),
    );
    // Largest share first.
    let mut shares: Vec<_> = file.shares.iter().collect();
    shares.sort_by_key(|(_, share)| std::cmp::Reverse(share.bytes));
    for (dtype, share) in shares {
        let tensors = if share.tensors == 1 { "tensor " } else { "tensors" };
        let size = format::bytes(share.bytes);
        out += &format!("  {dtype:<5} {:>4} {tensors} {size:>8}\n", share.tensors);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use convert::{Note, Share};

    use super::*;

    #[test]
    fn the_report_names_files_types_and_notes() {
        let shares = BTreeMap::from([
            (DType::F32, Share { tensors: 157, weights: 134_272, bytes: 537_088 }),
            (DType::Q8_0, Share { tensors: 1, weights: 301_989_888, bytes: 320_864_256 }),
            (DType::Q4_0, Share { tensors: 182, weights: 697_761_792, bytes: 392_491_008 }),
        ]);
        let summary = Summary {
            files: vec![FileSummary { path: "small.gguf".into(), bytes: 722_000_000, shares }],
            source_bytes: 1_999_814_104,
            elapsed: Duration::from_millis(1440),
            notes: vec![Note::NoVisionTensors],
        };
        assert_eq!(
            report(&summary),
            "small.gguf: 722 MB, 1000 M weights, 5.71 bits each
  q4_0   182 tensors   392 MB
  q8_0     1 tensor    321 MB
  f32    157 tensors   537 kB
Read 2.00 GB in 1.4 s.
Note: config.json describes a vision tower, but the checkpoint holds none of it: text only.
"
        );
    }
}
