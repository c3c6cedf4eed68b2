//! Vocabularies for tests: from a `tokenizer.json` to the bytes of a GGUF file, the way different
//! converters write it.

#![allow(dead_code, unreachable_pub)] // each test file uses some of it

use std::collections::HashMap;

use lapidary_runtime::tokenizer::Tokenizer;
use quant::gguf::{Gguf, Layout, MetaValue};
use serde_json::{Value, json};

/// Whose file?
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Writer {
    /// What Lapidary's converter makes of `tokenizer.json`.
    Lapidary,
    /// llama.cpp's: user-defined `▁` written as spaces, added tokens scored -1000, `<unusedN>`
    /// control tokens, runs of tabs last and the shortest of them first.
    LlamaCpp,
    /// A file with the scores of `tokenizer.model` that has lost the kinds of all but the bytes.
    AllNormal,
}

/// The metadata of a file with the vocabulary of this `tokenizer.json`.
pub fn metadata(json: &Value, writer: Writer) -> Vec<(String, MetaValue)> {
    let model = &json["model"];
    let vocab = model["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocab.len()];
    for (text, id) in vocab {
        tokens[id.as_u64().unwrap() as usize] = text.clone();
    }
    let mut first_rank = HashMap::new();
    for (rank, merge) in model["merges"].as_array().unwrap().iter().enumerate() {
        let made: String = match merge {
            Value::String(s) => s.split(' ').collect(),
            pair => pair.as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect(),
        };
        first_rank.entry(made).or_insert(rank);
    }
    let mut scores: Vec<f32> =
        tokens.iter().map(|t| first_rank.get(t).map_or(-1e6, |&rank| -(rank as f32))).collect();
    let mut types: Vec<i32> = tokens
        .iter()
        .map(|t| if t.len() == 6 && t.starts_with("<0x") && t.ends_with('>') { 6 } else { 1 })
        .collect();
    for added in json["added_tokens"].as_array().unwrap() {
        let id = added["id"].as_u64().unwrap() as usize;
        let text = added["content"].as_str().unwrap();
        if id >= tokens.len() {
            assert_eq!(id, tokens.len(), "added tokens follow the vocabulary");
            tokens.push(text.into());
            scores.push(-1e6);
            types.push(1);
        }
        let special = added["special"].as_bool().unwrap();
        match writer {
            Writer::Lapidary => types[id] = if special { 3 } else { 4 },
            Writer::LlamaCpp => {
                types[id] = if special || text.starts_with("<unused") { 3 } else { 4 };
                if types[id] == 4 {
                    tokens[id] = tokens[id].replace('\u{2581}', " ");
                }
                scores[id] = -1000.0;
            }
            Writer::AllNormal => scores[id] = 0.0,
        }
    }
    if writer != Writer::Lapidary {
        for (token, score) in tokens.iter().zip(&mut scores) {
            if token.len() > 1 && token.bytes().all(|b| b == b'\t') {
                *score = -2e6 - token.len() as f32;
            }
        }
    }
    if writer == Writer::Lapidary
        && let Some(unk) = vocab.get(model["unk_token"].as_str().unwrap_or_default())
    {
        types[unk.as_u64().unwrap() as usize] = 2;
    }
    let id = |text: &str| vocab.get(text).map(|v| MetaValue::U32(v.as_u64().unwrap() as u32));
    let mut keys = vec![
        ("tokenizer.ggml.model".into(), MetaValue::String("llama".into())),
        ("tokenizer.ggml.tokens".into(), MetaValue::Strings(tokens)),
        ("tokenizer.ggml.scores".into(), MetaValue::F32s(scores)),
        ("tokenizer.ggml.token_type".into(), MetaValue::I32s(types)),
    ];
    for (role, text) in
        [("bos", "<bos>"), ("eos", "<eos>"), ("unknown", "<unk>"), ("padding", "<pad>")]
    {
        if let Some(id) = id(text) {
            keys.push((format!("tokenizer.ggml.{role}_token_id"), id));
        }
    }
    keys
}

/// The bytes of a file with this metadata and no tensors.
pub fn file(metadata: &[(String, MetaValue)]) -> Vec<u8> {
    Layout::new(metadata, &[]).unwrap().header
}

/// The tokenizer of a `tokenizer.json`, through a file.
pub fn tokenizer(json: &Value, writer: Writer) -> Tokenizer {
    let bytes = file(&metadata(json, writer));
    Tokenizer::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap()
}

/// A `tokenizer.json` built as Gemma's is: merges are all splits of all pieces, the best score
/// first, then the longer left part, then the longer right part. `pieces` come in the order of
/// their scores.
pub fn gemma_like(pieces: &[&str], user_defined: &[&str], control: &[&str]) -> Value {
    let mut vocab: Vec<String> = control.iter().map(|s| s.to_string()).collect();
    let mut added: Vec<Value> = Vec::new();
    let mut add = |id: usize, content: &str, special: bool| {
        added.push(json!({
            "id": id, "content": content, "special": special, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false
        }));
    };
    for (id, text) in control.iter().enumerate() {
        add(id, text, true);
    }
    for text in user_defined {
        add(vocab.len(), text, false);
        vocab.push(text.to_string());
    }
    vocab.extend((0..256).map(|b| format!("<0x{b:02X}>")));
    let first_piece = vocab.len();
    let mut seen: std::collections::HashSet<String> = vocab.iter().cloned().collect();
    vocab.extend(pieces.iter().filter(|p| seen.insert(p.to_string())).map(|p| p.to_string()));
    let ids: HashMap<&str, usize> =
        vocab.iter().enumerate().map(|(i, t)| (t.as_str(), i)).collect();
    let mut merges = Vec::new();
    for (id, text) in vocab.iter().enumerate() {
        let score = if id < first_piece { 0 } else { id };
        for (at, _) in text.char_indices().skip(1) {
            let (l, r) = text.split_at(at);
            if ids.contains_key(l) && ids.contains_key(r) {
                let (nl, nr) = (l.chars().count(), r.chars().count());
                merges.push((
                    score,
                    std::cmp::Reverse(nl),
                    std::cmp::Reverse(nr),
                    id,
                    json!([l, r]),
                ));
            }
        }
    }
    merges.sort_by_key(|m| (m.0, m.1, m.2, m.3));
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": ids.iter().map(|(t, i)| (t.to_string(), json!(i))).collect::<serde_json::Map<_, _>>(),
            "merges": merges.into_iter().map(|m| m.4).collect::<Vec<_>>()
        }
    })
}

/// Hugging Face's tokenizer, with and without control tokens parsed.
pub struct Oracle {
    pub parse: tokenizers::Tokenizer,
    pub plain: tokenizers::Tokenizer,
}

impl Oracle {
    pub fn new(json: &str) -> Self {
        let parse: tokenizers::Tokenizer = json.parse().unwrap();
        let mut plain = parse.clone();
        plain.set_encode_special_tokens(true);
        Oracle { parse, plain }
    }

    pub fn encode(&self, text: &str, parse: bool) -> Vec<u32> {
        let tokenizer = if parse { &self.parse } else { &self.plain };
        tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
    }

    pub fn decode(&self, ids: &[u32]) -> String {
        self.parse.decode(ids, true).unwrap()
    }
}

/// A small deterministic generator (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Text made to be hard to tokenize: pieces and parts of pieces, repeated, overlapping, mixed with
/// white space, control tokens and characters of all scripts.
pub fn hard_text(rng: &mut Rng, pieces: &[String]) -> String {
    let mut out = String::new();
    let kind = rng.below(8);
    for _ in 0..1 + rng.below(12) {
        match if kind == 7 { rng.below(7) } else { kind } {
            0 => out.push_str(rng.pick(pieces).as_str()),
            1 => {
                // Pieces cut anywhere: neighbours that could have merged otherwise.
                let piece = rng.pick(pieces);
                let chars: Vec<char> = piece.chars().collect();
                let cut = rng.below(chars.len() + 1);
                let part = if rng.below(2) == 0 { &chars[..cut] } else { &chars[cut..] };
                out.extend(part);
            }
            2 => {
                let piece = rng.pick(pieces).clone();
                let times = 1 + rng.below(9);
                out.push_str(&piece.repeat(times));
            }
            3 => {
                let space = *rng.pick(&['\n', ' ', '\t', '\u{2581}', '\r', '\u{a0}', '\u{3000}']);
                out.extend(std::iter::repeat_n(space, 1 + rng.below(40)));
                if rng.below(2) == 0 {
                    out.push_str(rng.pick(pieces).as_str());
                }
            }
            4 => {
                let range = *rng.pick(&[0x7F, 0x250, 0x3000, 0xFFFF, 0x11_0000]);
                for _ in 0..rng.below(6) {
                    out.extend(char::from_u32(rng.below(range) as u32));
                }
            }
            5 => {
                // A piece overlapping itself or another: conjugates and periods.
                let (a, b) = (rng.pick(pieces).clone(), rng.pick(pieces).clone());
                let first: String = a.chars().take(1 + rng.below(3)).collect();
                let last: String = b.chars().rev().take(1 + rng.below(3)).collect();
                for part in [&first, &a, &last, &a, &first] {
                    out.push_str(part);
                }
            }
            _ => {
                let letters: Vec<char> = "aeinorst .,'-<>/_0123456789".chars().collect();
                for _ in 0..rng.below(10) {
                    out.push(*rng.pick(&letters));
                }
            }
        }
        if rng.below(3) == 0 {
            out.push(' ');
        }
    }
    if rng.below(2) == 0 { out.replace('\u{2581}', " ") } else { out }
}
