//! The tokenizer that a GGUF file describes.

use quant::gguf::{Array, Gguf, Value, ValueType};

use super::decode::byte_of;
use super::encode::{Boundaries, CharIds};
use super::error::TokenizerError;
use super::repair;
use super::verbatim::Verbatim;
use super::vocab::{Kind, NO_RANK, SPACE, Vocab};
use super::{SpecialIds, Tokenizer};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";

impl Tokenizer {
    /// Reads the vocabulary of a file. Nothing of the file is kept borrowed.
    ///
    /// # Errors
    /// Any [`TokenizerError`]: a vocabulary is refused when it is not there, not of the `llama`
    /// kind, or does not add up. What can be mended is, and is told by
    /// [`warnings`](Tokenizer::warnings).
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, TokenizerError> {
        match gguf.str(MODEL)? {
            Some("llama") => {}
            Some(other) => return Err(TokenizerError::Model { found: other.into() }),
            None => return Err(TokenizerError::Missing { key: MODEL }),
        }
        let mut warnings = Vec::new();
        let tokens = gguf.array(TOKENS)?.ok_or(TokenizerError::Missing { key: TOKENS })?;
        let mut vocab = texts_and_kinds(tokens, types(gguf, tokens.len())?)?;
        let scores = scores(gguf, &vocab)?;

        let mended = repair::kinds(&mut vocab, &mut warnings);
        let runs = repair::Runs::new(&vocab, &scores);
        let mut boundaries = Boundaries::default();
        let duplicates = vocab.index(|vocab, id| {
            if !vocab.kind(id).merges() {
                return NO_RANK;
            }
            boundaries.note(vocab.text(id));
            if runs.contains(vocab, id) { 0 } else { rank(scores[id as usize]) }
        });
        if duplicates > 0 {
            warnings.push(format!(
                "{duplicates} tokens have the text of an earlier token and are never produced"
            ));
        }
        if mended {
            repair::unreachable(&mut vocab, &mut warnings);
        }

        let mut bytes = [None; 256];
        for id in 0..vocab.len() as u32 {
            if vocab.kind(id) == Kind::Byte
                && let Some(byte) = byte_of(vocab.text(id))
            {
                bytes[usize::from(byte)].get_or_insert(id);
            }
        }
        let special = special_ids(gguf, &vocab)?;
        if special.unknown.is_none()
            && let Some(missing) = (0..=255u8).find(|&b| bytes[usize::from(b)].is_none())
        {
            return Err(TokenizerError::NoFallback { missing: format!("<0x{missing:02X}>") });
        }
        if gguf.bool("tokenizer.ggml.add_space_prefix")? == Some(true) {
            warnings.push(
                "tokenizer.ggml.add_space_prefix is true, which no Gemma model has: ignored".into(),
            );
        }

        let verbatim = Verbatim::new((0..vocab.len() as u32).filter_map(|id| {
            let kind = vocab.kind(id);
            matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined)
                .then(|| (vocab.text(id), id))
        }));
        let char_ids = CharIds::new(&vocab, bytes[usize::from(b'\t')]);
        Ok(Tokenizer { vocab, verbatim, boundaries, char_ids, bytes, special, warnings })
    }
}

fn texts_and_kinds(tokens: Array<'_>, types: Option<Array<'_>>) -> Result<Vocab, TokenizerError> {
    let texts = tokens.strings().ok_or(TokenizerError::ItemType {
        key: TOKENS,
        expected: "strings",
        found: tokens.item_type().name(),
    })?;
    let mut vocab = Vocab::with_capacity(tokens.len(), tokens.bytes().len() - 8 * tokens.len());
    let mut types = types.map(|t| t.iter());
    for (id, text) in (0..).zip(texts) {
        let kind = match types.as_mut().and_then(|t| t.next()).as_ref().and_then(Value::as_i64) {
            // A file without types: all are normal, but for what their text says.
            None => Kind::Normal,
            Some(value) => Kind::from_id(value).ok_or_else(|| TokenizerError::Type {
                id,
                text: text.into(),
                value,
            })?,
        };
        // llama.cpp's converter writes the user-defined runs of `▁` as spaces.
        if kind == Kind::UserDefined && text.len() > 1 && text.bytes().all(|b| b == b' ') {
            vocab.push(&SPACE.repeat(text.len()), kind)?;
        } else {
            vocab.push(text, kind)?;
        }
    }
    Ok(vocab)
}

fn types<'a>(gguf: &Gguf<'a>, tokens: usize) -> Result<Option<Array<'a>>, TokenizerError> {
    let Some(types) = gguf.array(TYPES)? else { return Ok(None) };
    let found = types.item_type();
    if !matches!(found, ValueType::I32 | ValueType::U32 | ValueType::I8 | ValueType::U8) {
        let (key, expected) = (TYPES, "i32");
        return Err(TokenizerError::ItemType { key, expected, found: found.name() });
    }
    if types.len() != tokens {
        return Err(TokenizerError::Count { key: TYPES, found: types.len(), tokens });
    }
    Ok(Some(types))
}

fn scores(gguf: &Gguf<'_>, vocab: &Vocab) -> Result<Vec<f32>, TokenizerError> {
    let scores = gguf.array(SCORES)?.ok_or(TokenizerError::Missing { key: SCORES })?;
    let found = scores.item_type().name();
    let scores =
        scores.f32s().ok_or(TokenizerError::ItemType { key: SCORES, expected: "f32", found })?;
    if scores.len() != vocab.len() {
        let tokens = vocab.len();
        return Err(TokenizerError::Count { key: SCORES, found: scores.len(), tokens });
    }
    if let Some(id) = scores.iter().position(|s| s.is_nan()) {
        let id = id as u32;
        return Err(TokenizerError::Score { id, text: vocab.text(id).into() });
    }
    Ok(scores)
}

/// Ranks order as scores do, the highest first; 0 is left to what goes before all scores.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // -0.0 becomes 0.0
    // The bits of floats ascend with the value when positive and descend when negative.
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    !ascending
}

fn special_ids(gguf: &Gguf<'_>, vocab: &Vocab) -> Result<SpecialIds, TokenizerError> {
    let check = |key, id: i64| match u32::try_from(id) {
        Ok(id) if (id as usize) < vocab.len() => Ok(id),
        _ => Err(TokenizerError::TokenId { key, id, tokens: vocab.len() }),
    };
    let id = |key| match gguf.get(key).map(|v| v.as_i64()) {
        None => Ok(None),
        // Some converters write -1 for a token that there is not.
        Some(Some(-1)) => Ok(None),
        Some(Some(id)) => check(key, id).map(Some),
        // Not an integer: let the container word the error.
        Some(None) => gguf.u64(key).map(|_| None).map_err(TokenizerError::from),
    };
    let mut eos = Vec::new();
    for key in [
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",
    ] {
        eos.extend(id(key)?);
    }
    const EOS_LIST: &str = "tokenizer.ggml.eos_token_ids";
    if let Some(list) = gguf.array(EOS_LIST)? {
        let (expected, found) = ("integers", list.item_type().name());
        let ids = list.i64s().ok_or(TokenizerError::ItemType { key: EOS_LIST, expected, found })?;
        for id in ids {
            eos.push(check(EOS_LIST, id)?);
        }
    }
    let control = |text: &str| {
        let id = vocab.find(text.as_bytes())?.id;
        (vocab.kind(id) == Kind::Control).then_some(id)
    };
    eos.extend(control("<end_of_turn>"));
    // Each once, the file's own first.
    let mut seen = std::collections::HashSet::new();
    eos.retain(|&id| seen.insert(id));
    Ok(SpecialIds {
        bos: id("tokenizer.ggml.bos_token_id")?,
        eos,
        unknown: id("tokenizer.ggml.unknown_token_id")?,
        padding: id("tokenizer.ggml.padding_token_id")?,
        add_bos: gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(true),
    })
}
