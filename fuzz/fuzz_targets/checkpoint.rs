//! A whole checkpoint folder: config.json, a tokenizer and weights, all hostile. It is converted
//! or refused; what comes out can be read.
//!
//! The input is cut into files: a byte that picks the tokenizer's kind, then the lengths of
//! config.json and tokenizer as two bytes each, then the three files.
#![no_main]

use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[kind, a, b, c, d], rest)) = bytes.split_first_chunk::<5>() else { return };
    let cut = |n: [u8; 2]| usize::from(u16::from_le_bytes(n));
    let (config, rest) = rest.split_at(cut([a, b]).min(rest.len()));
    let (tokenizer, weights) = rest.split_at(cut([c, d]).min(rest.len()));

    let dir = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.path().join(name), bytes).expect("a file in it");
    };
    let name = if kind & 1 == 0 { "tokenizer.json" } else { "tokenizer.model" };
    write("config.json", config);
    write(name, tokenizer);
    write("model.safetensors", weights);

    let out = dir.path().join("out.gguf");
    let options = convert::Options {
        output: Some(out.clone()),
        threads: std::num::NonZero::new(1),
        ..convert::Options::new(dir.path())
    };
    match convert::convert(&options, &(), &AtomicBool::new(false)) {
        Ok(_) => {
            let file = std::fs::read(&out).expect("the file that was written");
            quant::gguf::Gguf::parse(&file).expect("what was written can be read");
        }
        Err(_) => assert!(!out.exists()),
    }
});
