//! Converts a model from the command line, plainly: `convert SOURCE OUT [TYPE [EMBED_TYPE]]`.
//! The `lapidary convert` command is the comfortable way.

use std::sync::atomic::AtomicBool;

use lapidary_convert as convert;
use quant::DType;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, out, types @ ..] = args.as_slice() else {
        return Err("usage: convert SOURCE OUT [TYPE [EMBED_TYPE]]".into());
    };
    let mut options = convert::Options::new(source);
    options.output = Some(out.into());
    options.force = true;
    let parse = |name: &String| DType::from_name(name).ok_or(format!("unknown type {name}"));
    if let Some(name) = types.first() {
        options.dtype = parse(name)?;
    }
    if let Some(name) = types.get(1) {
        options.embed = Some(parse(name)?);
    }
    let summary = convert::convert(&options, &(), &AtomicBool::new(false))?;
    for file in &summary.files {
        println!("{}: {:.2} bits per weight", file.path.display(), file.bits_per_weight());
        for (dtype, share) in &file.shares {
            println!("  {} {dtype} tensors, {} bytes", share.tensors, share.bytes);
        }
    }
    for note in &summary.notes {
        println!("note: {note}");
    }
    println!("{} bytes read in {:.2?}", summary.source_bytes, summary.elapsed);
    Ok(())
}
