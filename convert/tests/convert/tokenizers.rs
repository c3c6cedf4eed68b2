//! tokenizer.model and tokenizer.json must give the same vocabulary.

use lapidary_convert::Note;
use lapidary_convert::tokenizer::{TokenType, Vocab};
use serde_json::json;

use crate::common::*;

/// Reads a tokenizer made of these files.
fn read(files: &[(&str, Vec<u8>)]) -> (Vocab, Vec<Note>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    Vocab::read(dir.path(), VOCAB as u32).unwrap()
}

fn json() -> Vec<u8> {
    tokenizer_json().to_string().into_bytes()
}

#[test]
fn model_and_json_agree() {
    let from_json = read(&[("tokenizer.json", json())]);
    let from_both = read(&[("tokenizer.json", json()), ("tokenizer.model", tokenizer_model())]);
    assert_eq!(from_json, from_both);
    // Without tokenizer.json, its added tokens may stand in tokenizer_config.json.
    let decoder: serde_json::Map<_, _> = tokenizer_json()["added_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["id"].to_string(), t.clone()))
        .collect();
    let config = json!({"added_tokens_decoder": decoder}).to_string().into_bytes();
    let files = [("tokenizer_config.json", config), ("tokenizer.model", tokenizer_model())];
    assert_eq!(read(&files), from_json);
    // Or nowhere at all: then the model's own types and Gemma's known names decide.
    let (alone, notes) = read(&[("tokenizer.model", tokenizer_model())]);
    assert_eq!(alone, from_json.0);
    let marked_as_text = ["<mask>", "<start_of_turn>", "<end_of_turn>"].map(String::from);
    assert_eq!(notes, [Note::ControlRepaired(marked_as_text.to_vec())]);
}

#[test]
fn scores_and_types() {
    let (vocab, notes) = read(&[("tokenizer.json", json())]);
    assert_eq!(notes, []);
    use TokenType::*;
    let expected = [
        Control,
        Control,
        Control,
        Unknown,
        Control,
        Control,
        Control,
        UserDefined,
        UserDefined,
        Control,
        Byte,
        Byte,
        Byte,
    ];
    assert_eq!(vocab.types[..13], expected);
    assert!(vocab.types[13..24].iter().all(|&t| t == Normal));
    assert!(vocab.types[24..].iter().all(|&t| t == Unused));
    assert!(vocab.scores[..10].iter().all(|&s| s == -1000.0));
    assert_eq!(vocab.scores[10], 0.0);
    // Tabs merge first, though their id comes later: it makes no difference to text.
    let learnt: Vec<f32> = (0..11).map(|i| -(i as f32)).collect();
    assert_eq!(vocab.scores[13..24], learnt);
    assert!(vocab.scores[24..].iter().all(|&s| s == -10000.0));
    assert_eq!(vocab.tokens[24], "[PAD24]");
    assert_eq!(vocab.tokens[8], "  ", "text that is looked for before spaces are escaped");
}

#[test]
fn merges_may_be_written_the_old_way() {
    let mut t = tokenizer_json();
    for merge in t["model"]["merges"].as_array_mut().unwrap() {
        *merge = json!(format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()));
    }
    let old = read(&[("tokenizer.json", t.to_string().into_bytes())]);
    assert_eq!(old, read(&[("tokenizer.json", json())]));
}

#[test]
fn control_tokens_marked_as_text_are_repaired() {
    let mut t = tokenizer_json();
    for token in t["added_tokens"].as_array_mut().unwrap() {
        token["special"] = json!(false);
    }
    let (vocab, notes) = read(&[("tokenizer.json", t.to_string().into_bytes())]);
    assert_eq!(vocab, read(&[("tokenizer.json", json())]).0);
    let names = ["<pad>", "<eos>", "<bos>", "<mask>", "<start_of_turn>", "<end_of_turn>"];
    assert_eq!(notes, [Note::ControlRepaired(names.map(String::from).to_vec())]);

    // Or not listed as added tokens at all.
    t["added_tokens"] = json!(null);
    let (vocab, _) = read(&[("tokenizer.json", t.to_string().into_bytes())]);
    assert_eq!(vocab.types[6], TokenType::Control);
}

#[test]
fn holes_in_the_ids_are_padding() {
    let mut t = tokenizer_json();
    t["model"]["vocab"]["far"] = json!(30);
    let (vocab, _) = read(&[("tokenizer.json", t.to_string().into_bytes())]);
    assert_eq!((vocab.tokens[29].as_str(), vocab.types[29]), ("[PAD29]", TokenType::Unused));
    assert_eq!((vocab.tokens[30].as_str(), vocab.types[30]), ("far", TokenType::Normal));
}

#[test]
fn tokens_without_a_row_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), json()).unwrap();
    let (vocab, notes) = Vocab::read(dir.path(), 22).unwrap();
    assert_eq!((vocab.tokens.len(), vocab.scores.len(), vocab.types.len()), (22, 22, 22));
    let tokens = ["é", "▁the▁"].map(String::from).to_vec();
    assert_eq!(notes, [Note::TokensBeyondRows { tokens, rows: 22 }]);
    let (vocab, notes) = Vocab::read(dir.path(), 8).unwrap();
    assert_eq!(vocab.tokens.len(), 8);
    assert!(notes[0].to_string().starts_with("16 tokens"), "{}", notes[0]);
}

#[test]
fn tokenizers_that_are_refused() {
    let refused = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut t = tokenizer_json();
        edit(&mut t);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), t.to_string()).unwrap();
        Vocab::read(dir.path(), VOCAB as u32).unwrap_err().to_string()
    };
    type Edit<'a> = &'a dyn Fn(&mut serde_json::Value);
    let cases: [(&str, Edit<'_>); 11] = [
        ("Unigram", &|t| t["model"]["type"] = json!("Unigram")),
        ("ByteLevel", &|t| t["pre_tokenizer"] = json!({"type": "ByteLevel"})),
        ("both have the id 14", &|t| t["model"]["vocab"]["again"] = json!(14)),
        ("4294967296 tokens", &|t| t["model"]["vocab"]["far"] = json!(4294967295u32)),
        ("0 tokens", &|t| t["model"]["vocab"] = json!({})),
        ("two pieces", &|t| t["model"]["merges"] = json!([["a"]])),
        ("two pieces", &|t| t["model"]["merges"] = json!([["a", "b", "c"]])),
        ("one piece", &|t| t["model"]["merges"] = json!(["a"])),
        ("invalid type", &|t| t["model"]["vocab"] = json!([])),
        ("invalid value", &|t| t["model"]["vocab"]["x"] = json!(-1)),
        ("missing field", &|t| t["model"] = json!({})),
    ];
    for (says, edit) in cases {
        let message = refused(edit);
        assert!(message.contains(says), "{says:?}: {message}");
    }
}
