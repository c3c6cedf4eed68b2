//! Vocabularies for the tests of this crate.

use quant::gguf::{Gguf, Layout, MetaValue};

use super::{Tokenizer, TokenizerError};

/// Ids in [`byte_tokenizer`].
pub(crate) const START: u32 = 4;
pub(crate) const END: u32 = 5;

/// A token: text, score, type.
pub(crate) type Entry = (String, f32, i32);

/// Gemma's control tokens and the bytes: the least that can encode any text.
pub(crate) fn entries() -> Vec<Entry> {
    let control = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<start_of_image>",
        "<end_of_image>",
        "<image_soft_token>",
    ];
    let control = control.iter().map(|t| (t.to_string(), 0.0, 3));
    control.chain((0..256).map(|b| (format!("<0x{b:02X}>"), 0.0, 6))).collect()
}

/// The metadata for a vocabulary.
pub(crate) fn metadata(entries: &[Entry]) -> Vec<(String, MetaValue)> {
    let tokens = entries.iter().map(|e| e.0.clone()).collect();
    let scores = entries.iter().map(|e| e.1).collect();
    let types = entries.iter().map(|e| e.2).collect();
    let mut keys = vec![
        ("tokenizer.ggml.model", MetaValue::String("llama".into())),
        ("tokenizer.ggml.tokens", MetaValue::Strings(tokens)),
        ("tokenizer.ggml.scores", MetaValue::F32s(scores)),
        ("tokenizer.ggml.token_type", MetaValue::I32s(types)),
    ];
    let roles = [("padding", "<pad>"), ("eos", "<eos>"), ("bos", "<bos>"), ("unknown", "<unk>")];
    let names = roles.map(|(role, _)| format!("tokenizer.ggml.{role}_token_id"));
    for ((_, text), name) in roles.iter().zip(&names) {
        if let Some(id) = entries.iter().position(|e| e.0 == *text) {
            keys.push((name, MetaValue::U32(id as u32)));
        }
    }
    keys.into_iter().map(|(k, v)| (k.to_string(), v)).collect()
}

pub(crate) fn load(metadata: &[(String, MetaValue)]) -> Result<Tokenizer, TokenizerError> {
    let file = Layout::new(metadata, &[]).unwrap().header;
    Tokenizer::from_gguf(&Gguf::parse(&file).unwrap())
}

pub(crate) fn byte_tokenizer() -> Tokenizer {
    let mut entries = entries();
    entries.push(("\u{2581}".into(), -1.0, 1));
    load(&metadata(&entries)).unwrap()
}
