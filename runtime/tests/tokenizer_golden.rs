//! Ids checked in, from Hugging Face `tokenizers` and from Transformers' `apply_chat_template`.

mod common;

use common::{Writer, tokenizer};
use lapidary_runtime::chat::{ChatTemplate, Message, Part, Role};
use lapidary_runtime::tokenizer::{Special, Tokenizer};
use serde_json::Value;

fn vocabulary() -> Value {
    serde_json::from_str(include_str!("../../tests/fixtures/tokenizer/tokenizer.json")).unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn tokenizers() -> impl Iterator<Item = (Writer, Tokenizer)> {
    let json = vocabulary();
    [Writer::Lapidary, Writer::LlamaCpp, Writer::AllNormal]
        .into_iter()
        .map(move |writer| (writer, tokenizer(&json, writer)))
}

#[test]
fn texts_have_the_ids_of_tokenizers() {
    let cases = lines(include_str!("../../tests/fixtures/tokenizer/cases.jsonl"));
    assert!(cases.len() >= 200);
    for (writer, tokenizer) in tokenizers() {
        for case in &cases {
            let text = case["text"].as_str().unwrap();
            let parsed = ids(&case["ids"]);
            assert_eq!(tokenizer.encode(text, Special::Parse), parsed, "{writer:?} {text:?}");
            // llama.cpp's converter makes `<unusedN>` control tokens, so no text spells them.
            if writer != Writer::LlamaCpp || !text.contains("<unused") {
                let plain = case.get("ids_plain").map_or(parsed, ids);
                assert_eq!(tokenizer.encode(text, Special::Plain), plain, "{writer:?} {text:?}");
            }
        }
    }
}

#[test]
fn conversations_have_the_ids_of_transformers() {
    let cases = lines(include_str!("chat_cases.jsonl"));
    for (writer, tokenizer) in tokenizers() {
        let chat = ChatTemplate::new(Some(include_str!("gemma3.jinja")), &tokenizer);
        assert_eq!(chat.warnings(), [""; 0]);
        let rules = ChatTemplate::new(None, &tokenizer);
        for case in &cases {
            let messages: Vec<Message> =
                case["messages"].as_array().unwrap().iter().map(message).collect();
            let text = case["messages"].to_string();
            if writer == Writer::LlamaCpp && text.contains("<unused") {
                continue;
            }
            let open = case["add_generation_prompt"].as_bool().unwrap();
            let expected = ids(&case["ids"]);
            let ours = chat.render_template(&tokenizer, &messages, open).unwrap();
            assert_eq!(ours, expected, "{writer:?} {text}");
            assert_eq!(rules.render(&tokenizer, &messages, open), expected, "{writer:?} {text}");
        }
    }
}

fn message(value: &Value) -> Message {
    let role = match value["role"].as_str().unwrap() {
        "system" => Role::System,
        "user" => Role::User,
        _ => Role::Assistant,
    };
    let parts = match &value["content"] {
        Value::String(text) => vec![Part::Text(text.clone())],
        list => list.as_array().unwrap().iter().map(part).collect(),
    };
    Message { role, parts }
}

fn part(value: &Value) -> Part {
    match value["type"].as_str().unwrap() {
        "image" => Part::Image { crops: 0 },
        _ => Part::Text(value["text"].as_str().unwrap().into()),
    }
}
