//! The tokenizer against Hugging Face's `tokenizers`, on text made to be hard.
//!
//! Those on the 262144-piece vocabulary need Gemma's `tokenizer.json`, which is not ours to check
//! in; with it:
//!
//! ```sh
//! LAPIDARY_TOKENIZER_JSON=.../tokenizer.json \
//!     cargo test --release -p lapidary-runtime --test tokenizer_oracle -- --ignored --nocapture
//! ```

mod common;

use std::time::{Duration, Instant};

use common::{Oracle, Rng, Writer, gemma_like, hard_text, tokenizer};
use lapidary_runtime::tokenizer::{Special, StreamDecoder, Tokenizer};

/// Everything that must hold for one text; `kinds_agree`: the same tokens are control tokens.
fn check(ours: &Tokenizer, oracle: &Oracle, text: &str, kinds_agree: bool) {
    let theirs = oracle.encode(text, true);
    let ids = ours.encode(text, Special::Parse);
    assert_eq!(ids, theirs, "{text:?}");
    let whole = ours.decode(&ids);
    if kinds_agree {
        assert_eq!(ours.encode(text, Special::Plain), oracle.encode(text, false), "{text:?}");
        assert_eq!(whole, oracle.decode(&ids), "{ids:?}");
    }
    let mut stream = StreamDecoder::new();
    let mut streamed: String = ids.iter().map(|&id| stream.push(ours, id)).collect();
    streamed += &stream.finish();
    assert_eq!(streamed, whole, "{ids:?}");
}

/// A vocabulary small enough that every pair of pieces meets.
fn small() -> serde_json::Value {
    let singles = "▁abcdefgh\n\t<>éñ中文🙂/t";
    let mut pieces: Vec<String> = vec![];
    for s in [
        "aa", "aaa", "aaaa", "ab", "ba", "aba", "bab", "abab", "cab", "abc", "bc", "▁a", "▁ab",
        "▁▁a", "b▁", "a▁b", "中文", "é中", "🙂🙂", "\t\t", "\t\t\t", "\t\t\t\t", "aX", "Xa", "d",
        "de", "ed", "ede", "dede", "<a", "a>", "b\n", "f\t", "th", "▁th", "gh", "hg", "hghg",
        "ghgh", "ghg",
    ] {
        pieces.push(s.into());
    }
    pieces.extend(singles.chars().map(String::from));
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    gemma_like(
        &pieces,
        &["\n\n", "\n\n\n", "▁▁", "▁▁▁", "▁▁▁▁", "<b>", "</b>", "<unused0>"],
        &["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
    )
}

#[test]
fn small_vocabulary_agrees() {
    let json = small();
    let oracle = Oracle::new(&json.to_string());
    let ours = tokenizer(&json, Writer::Lapidary);
    assert_eq!(ours.warnings(), [""; 0]);
    let pieces: Vec<String> =
        (0..ours.len() as u32).map(|id| ours.token_text(id).unwrap().into()).collect();
    let mut rng = Rng(1);
    for _ in 0..20_000 {
        let text = hard_text(&mut rng, &pieces);
        check(&ours, &oracle, &text, true);
    }
    let alphabet: Vec<char> = "aaaabbcdeghX ▁\n\t<>é中🙂".chars().collect();
    for _ in 0..20_000 {
        let text: String = (0..rng.below(60)).map(|_| *rng.pick(&alphabet)).collect();
        check(&ours, &oracle, &text, true);
    }
}

#[test]
fn any_ids_decode_alike() {
    let json = small();
    let oracle = Oracle::new(&json.to_string());
    let ours = tokenizer(&json, Writer::Lapidary);
    let mut rng = Rng(2);
    for _ in 0..20_000 {
        // Mostly bytes, and of those mostly the ones UTF-8 is made of.
        let ids: Vec<u32> = (0..rng.below(12))
            .map(|_| match rng.below(4) {
                0 => rng.below(ours.len() + 5) as u32,
                1 => ours.token_to_id(&format!("<0x{:02X}>", 0xC2 + rng.below(3))).unwrap(),
                _ => ours.token_to_id(&format!("<0x{:02X}>", 0x80 + rng.below(16))).unwrap(),
            })
            .collect();
        assert_eq!(ours.decode(&ids), oracle.decode(&ids), "{ids:?}");
    }
}

fn real() -> (String, serde_json::Value) {
    let path = std::env::var("LAPIDARY_TOKENIZER_JSON")
        .expect("set LAPIDARY_TOKENIZER_JSON to the path of Gemma's tokenizer.json");
    let text = std::fs::read_to_string(path).unwrap();
    let json = serde_json::from_str(&text).unwrap();
    (text, json)
}

/// `LAPIDARY_FUZZ_SECONDS` (10) long for each kind of file.
#[test]
#[ignore = "needs LAPIDARY_TOKENIZER_JSON"]
fn real_vocabulary_agrees() {
    let (text, json) = real();
    let oracle = Oracle::new(&text);
    let env = |name: &str, or: u64| {
        std::env::var(name).ok().map_or(or, |s| s.parse().expect("a whole number"))
    };
    let seconds = env("LAPIDARY_FUZZ_SECONDS", 10);
    let seed = env("LAPIDARY_FUZZ_SEED", 1);
    for writer in [Writer::Lapidary, Writer::LlamaCpp, Writer::AllNormal] {
        let ours = tokenizer(&json, writer);
        println!("{writer:?}: {:?}", ours.warnings());
        let pieces: Vec<String> =
            (0..ours.len() as u32).map(|id| ours.token_text(id).unwrap().into()).collect();
        let mut rng = Rng(seed);
        let (mut n, mut bytes) = (0u64, 0);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            for _ in 0..1000 {
                let text = hard_text(&mut rng, &pieces);
                // A control token is what the file says, and llama.cpp's says so of `<unused0>`.
                let kinds_agree = writer != Writer::LlamaCpp || !text.contains("<unused");
                check(&ours, &oracle, &text, kinds_agree);
                n += 1;
                bytes += text.len();
            }
        }
        println!("{writer:?}: {n} texts, {bytes} bytes, no difference");
    }
}

/// Prints loading time and speed; `LAPIDARY_TEXT` names a file to encode.
#[test]
#[ignore = "needs LAPIDARY_TOKENIZER_JSON; a measurement"]
fn real_speed() {
    use quant::gguf::Gguf;
    let (text, json) = real();
    let file = common::file(&common::metadata(&json, Writer::Lapidary));
    let best = |f: &mut dyn FnMut()| {
        let times = (0..25).map(|_| {
            let start = Instant::now();
            f();
            start.elapsed()
        });
        times.min().unwrap()
    };
    let parsed = Gguf::parse(&file).unwrap();
    println!("parse the file: {:?}", best(&mut || drop(Gguf::parse(&file).unwrap())));
    println!(
        "load the vocabulary: {:?}",
        best(&mut || drop(Tokenizer::from_gguf(&parsed).unwrap()))
    );

    let ours = Tokenizer::from_gguf(&parsed).unwrap();
    let oracle = Oracle::new(&text);
    let mut rng = Rng(3);
    let mut texts = vec![
        ("this file", include_str!("tokenizer_oracle.rs").repeat(100)),
        ("one word", (0..1_000_000).map(|_| *rng.pick(&['a', 'b', 'e', 'n', 't', 's'])).collect()),
        ("one letter", "a".repeat(1_000_000)),
        ("spaces", " ".repeat(1_000_000)),
        ("newlines", "\n".repeat(1_000_000)),
        (
            "all scripts",
            (0..200_000).filter_map(|_| char::from_u32(rng.below(0x3_0000) as u32)).collect(),
        ),
    ];
    if let Ok(path) = std::env::var("LAPIDARY_TEXT") {
        texts.push(("LAPIDARY_TEXT", std::fs::read_to_string(path).unwrap()));
    }
    for (name, text) in texts {
        let rate = |time: Duration| text.len() as f64 / 1e6 / time.as_secs_f64();
        let us = best(&mut || drop(ours.encode(&text, Special::Plain)));
        let start = Instant::now();
        let theirs = oracle.encode(&text, false);
        let them = start.elapsed();
        assert!(ours.encode(&text, Special::Plain) == theirs, "{name}");
        let short: String = text.chars().take(200).collect();
        let short_us = best(&mut || drop(ours.encode(&short, Special::Plain)));
        println!(
            "{name}: {:.1} MB, {:.1} MB/s, tokenizers {:.2} MB/s; its first 200 characters {short_us:?}",
            text.len() as f64 / 1e6,
            rate(us),
            rate(them)
        );
        let ids = ours.encode(&text, Special::Plain);
        let time = best(&mut || drop(ours.decode(&ids)));
        println!("    decode {:.0} MB/s", rate(time));
    }
}
