//! The vocabulary as `tokenizer.ggml.*` holds it, from tokenizer.model where there is one, else
//! from tokenizer.json; both ways give the same tokens, scores and types.

mod hf;
mod scores;
mod sentencepiece;

use std::collections::HashMap;
use std::path::Path;

use crate::json::{self, Object};
use crate::{ConvertError, Note};
use hf::AddedToken;

/// More tokens than any vocabulary has.
const MAX_TOKENS: usize = 1 << 22;

/// What llama.cpp scores a token that never takes part in merging.
const SCORE_ADDED: f32 = -1000.0;
/// What it scores rows of the embedding that no token stands for.
const SCORE_PADDING: f32 = -10000.0;

/// Kinds of token, numbered as in `tokenizer.ggml.token_type` (and in SentencePiece).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum TokenType {
    /// A piece of text that merges make.
    Normal = 1,
    /// What stands for text that has no token.
    Unknown = 2,
    /// Steers the model; never comes from text.
    Control = 3,
    /// Text that is one token wherever it stands.
    UserDefined = 4,
    /// A row that no token stands for.
    Unused = 5,
    /// One byte of text that has no other token.
    Byte = 6,
}

impl TokenType {
    fn from_id(id: u64) -> Option<Self> {
        use TokenType::*;
        [Normal, Unknown, Control, UserDefined, Unused, Byte].into_iter().find(|&t| t as u64 == id)
    }
}

/// A token of the base vocabulary.
#[derive(Clone, Debug, PartialEq)]
struct Piece {
    text: String,
    score: f32,
    kind: TokenType,
}

/// A whole vocabulary, in id order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vocab {
    /// Text of each token; a space is `▁` in normal ones and itself in user-defined ones.
    pub tokens: Vec<String>,
    /// Merges that make a token of higher score come first.
    pub scores: Vec<f32>,
    /// Kind of each token.
    pub types: Vec<TokenType>,
}

/// Gemma's control tokens. Checkpoints have been published that mark some of them as text, and
/// then whatever a user types can end a turn.
const CONTROL: [&str; 11] = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<mask>",
    "<2mass>",
    "[@BOS@]",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
];

/// Is this token one of Gemma's control tokens, whatever the file marks it as?
pub(crate) fn is_control(text: &str) -> bool {
    CONTROL.contains(&text)
}

/// Reserved rows that no text should reach; llama.cpp makes them control tokens as well.
fn is_reserved(text: &str) -> bool {
    text.starts_with("<unused") && text.ends_with('>')
}

impl Vocab {
    /// Reads the tokenizer of the checkpoint in `dir`, whose embedding has `rows` rows.
    ///
    /// # Errors
    /// When there is none, or one that GGUF's `llama` tokenizer cannot express. Tokens beyond the
    /// rows are left out, with a note.
    pub fn read(dir: &Path, rows: u32) -> Result<(Vocab, Vec<Note>), ConvertError> {
        let (model, json) = (dir.join("tokenizer.model"), dir.join("tokenizer.json"));
        let wrong =
            |path: &Path, message: String| ConvertError::Tokenizer { path: path.into(), message };
        let model_bytes = json::read(&model)?;
        let json_bytes = json::read(&json)?;
        let parse_error = |source| ConvertError::Json { path: json.clone(), source };
        let (pieces, added) = match (model_bytes, json_bytes) {
            (Some(bytes), beside) => {
                let pieces = sentencepiece::read(&bytes).map_err(|e| wrong(&model, e))?;
                let added = match beside {
                    Some(json) => {
                        serde_json::from_slice::<hf::AddedOnly>(json::skip_mark(&json))
                            .map_err(parse_error)?
                            .added_tokens
                    }
                    None => added_tokens_elsewhere(dir)?,
                };
                (pieces, added)
            }
            (None, Some(bytes)) => {
                let tokenizer: hf::Tokenizer =
                    serde_json::from_slice(json::skip_mark(&bytes)).map_err(parse_error)?;
                let pieces = pieces_of(&tokenizer).map_err(|e| wrong(&json, e))?;
                (pieces, tokenizer.added_tokens)
            }
            (None, None) => return Err(ConvertError::NoTokenizer { path: dir.into() }),
        };
        Ok(Vocab::assemble(pieces, &added, rows as usize))
    }

    /// Lays added tokens over the base vocabulary and fills up to `rows`.
    fn assemble(pieces: Vec<Piece>, added: &[AddedToken], rows: usize) -> (Vocab, Vec<Note>) {
        let base = pieces.len();
        let mut vocab = Vocab::default();
        for id in 0..rows {
            vocab.tokens.push(format!("[PAD{id}]"));
            vocab.scores.push(SCORE_PADDING);
            vocab.types.push(TokenType::Unused);
        }
        // The 1B has a token for images but no row for it; a tokenizer of another model may have
        // thousands.
        let mut beyond: Vec<String> = Vec::new();
        for (id, piece) in pieces.into_iter().enumerate() {
            if id >= rows {
                beyond.push(piece.text);
                continue;
            }
            // A hole in the ids has no text; it stays a pad.
            if piece.kind != TokenType::Unused || !piece.text.is_empty() {
                vocab.set(id, piece.text, piece.score, piece.kind);
            }
        }
        let mut notes = Vec::new();
        for token in added {
            let id = token.id as usize;
            if id >= rows {
                // Those that the base vocabulary has too are counted.
                if id >= base {
                    beyond.push(token.content.clone());
                }
                continue;
            }
            let kind = match vocab.types[id] {
                TokenType::Unknown => TokenType::Unknown,
                _ if token.special => TokenType::Control,
                _ => TokenType::UserDefined,
            };
            vocab.set(id, token.content.clone(), SCORE_ADDED, kind);
        }
        let mut repaired = Vec::new();
        for id in 0..rows {
            let (text, kind) = (&vocab.tokens[id], vocab.types[id]);
            let kind = match kind {
                TokenType::Normal | TokenType::UserDefined if is_control(text) => {
                    repaired.push(text.clone());
                    TokenType::Control
                }
                TokenType::Normal | TokenType::UserDefined if is_reserved(text) => {
                    TokenType::Control
                }
                kind => kind,
            };
            vocab.types[id] = kind;
            if matches!(kind, TokenType::Unknown | TokenType::Control | TokenType::UserDefined) {
                vocab.scores[id] = SCORE_ADDED;
            }
            if kind == TokenType::UserDefined {
                // These are looked for in the text before its spaces are escaped.
                vocab.tokens[id] = vocab.tokens[id].replace('▁', " ");
            }
        }
        if !repaired.is_empty() {
            notes.push(Note::ControlRepaired(repaired));
        }
        beyond.retain(|t| t != "<image_soft_token>");
        if !beyond.is_empty() {
            notes.push(Note::TokensBeyondRows { tokens: beyond, rows: rows as u64 });
        }
        (vocab, notes)
    }

    fn set(&mut self, id: usize, text: String, score: f32, kind: TokenType) {
        self.tokens[id] = text;
        self.scores[id] = score;
        self.types[id] = kind;
    }

    /// The id of the token with this text.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.tokens.iter().position(|t| t == text).map(|i| i as u32)
    }
}

/// Added tokens where there is a tokenizer.model but no tokenizer.json.
fn added_tokens_elsewhere(dir: &Path) -> Result<Vec<AddedToken>, ConvertError> {
    let mut added = Vec::new();
    if let Some(config) = Object::read(&dir.join("tokenizer_config.json"))? {
        for (id, token) in config.object("added_tokens_decoder").into_iter().flat_map(|o| o.map) {
            let (Ok(id), Some(content)) = (id.parse(), token["content"].as_str()) else { continue };
            let special = token["special"].as_bool().unwrap_or(false);
            added.push(AddedToken { id, content: content.into(), special });
        }
    }
    if added.is_empty() {
        let listed = Object::read(&dir.join("added_tokens.json"))?;
        for (content, id) in listed.into_iter().flat_map(|o| o.map) {
            if let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                added.push(AddedToken { id, content, special: false });
            }
        }
    }
    added.sort_by_key(|t| t.id);
    Ok(added)
}

/// The base vocabulary of a tokenizer.json as tokenizer.model would list it.
fn pieces_of(tokenizer: &hf::Tokenizer) -> Result<Vec<Piece>, String> {
    let model = &tokenizer.model;
    match model.kind.as_deref() {
        Some("BPE") | None => {}
        Some(other) => return Err(format!("its model is {other}; Gemma's is BPE")),
    }
    if tokenizer.pre_tokenizer.as_ref().is_some_and(|p| p.kind == "ByteLevel") {
        return Err("its pieces are bytes (ByteLevel); Gemma's are text with byte fallback".into());
    }
    let size = model.vocab.0.iter().map(|(_, id)| *id as usize + 1).max().unwrap_or(0);
    if size > MAX_TOKENS || size == 0 {
        return Err(format!("its vocabulary has {size} tokens"));
    }
    let unused = || Piece { text: String::new(), score: 0.0, kind: TokenType::Unused };
    let mut pieces: Vec<Piece> = std::iter::repeat_with(unused).take(size).collect();
    for (text, id) in &model.vocab.0 {
        let piece = &mut pieces[*id as usize];
        if piece.kind != TokenType::Unused {
            return Err(format!("{:?} and {text:?} both have the id {id}", piece.text));
        }
        piece.kind = if Some(text) == model.unk_token.as_ref() {
            TokenType::Unknown
        } else if model.byte_fallback && is_byte(text) {
            TokenType::Byte
        } else {
            TokenType::Normal
        };
        piece.text.clone_from(text);
    }
    let added: HashMap<u32, ()> = tokenizer.added_tokens.iter().map(|t| (t.id, ())).collect();
    let merged = |i: usize, p: &Piece| {
        p.kind == TokenType::Normal && !added.contains_key(&(i as u32)) && !is_control(&p.text)
    };
    let ranked: Vec<(usize, (&str, Option<u32>))> = pieces
        .iter()
        .enumerate()
        .filter(|(i, p)| merged(*i, p))
        .map(|(i, p)| (i, (p.text.as_str(), model.merges.0.get(&p.text).copied())))
        .collect();
    let scores = scores::from_ranks(&ranked.iter().map(|r| r.1).collect::<Vec<_>>());
    let ids: Vec<usize> = ranked.iter().map(|r| r.0).collect();
    for (id, score) in ids.into_iter().zip(scores) {
        pieces[id].score = score;
    }
    Ok(pieces)
}

/// `<0x0A>` and the like.
fn is_byte(text: &str) -> bool {
    text.strip_prefix("<0x")
        .and_then(|t| t.strip_suffix('>'))
        .is_some_and(|hex| hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}
