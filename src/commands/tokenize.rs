//! `lapidary tokenize`.

use std::io::{Read, Write};

use anyhow::{Context, Result};
use runtime::tokenizer::Special;

use super::open;
use crate::args::TokenizeArgs;

pub(crate) fn run(args: &TokenizeArgs) -> Result<()> {
    let model = open::model(&args.model)?;
    let mut text = args.text.clone();
    if text == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
    }
    let special = if args.special { Special::Parse } else { Special::Plain };
    let tokenizer = model.tokenizer();
    let ids = tokenizer.encode(&text, special);
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&ids)?)?;
    } else {
        for id in &ids {
            writeln!(out, "{id:>7}  {:?}", tokenizer.token_text(*id).unwrap_or("?"))?;
        }
        eprintln!("{} tokens, {} bytes", ids.len(), text.len());
    }
    Ok(())
}
