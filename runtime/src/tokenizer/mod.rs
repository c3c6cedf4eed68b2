//! Text to token ids and back, with the vocabulary that the GGUF file carries.
//!
//! The ids are those that Hugging Face's `tokenizers` gives for Gemma's `tokenizer.json`, for any
//! text. [`Tokenizer`] owns all it needs and can be shared between threads.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use lapidary_runtime::tokenizer::{Special, Tokenizer};
//! let file = std::fs::read("gemma.gguf")?;
//! let tokenizer = Tokenizer::from_gguf(&quant::gguf::Gguf::parse(&file)?)?;
//! let ids = tokenizer.encode("Hello, world", Special::Plain);
//! assert_eq!(tokenizer.decode(&ids), "Hello, world");
//! # Ok(())
//! # }
//! ```

mod decode;
mod encode;
mod error;
mod hash;
mod load;
mod merge;
mod repair;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod verbatim;
mod vocab;

use std::ops::Range;

pub use decode::StreamDecoder;
use encode::{Boundaries, CharIds, Encoder};
pub use error::TokenizerError;
use verbatim::Verbatim;
pub use vocab::Kind;
use vocab::Vocab;

/// What becomes of the spelling of a control token, such as `<end_of_turn>`, in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// It is text like any other: for all that a user typed or a tool returned.
    Plain,
    /// It is the control token: for the text of a chat template, and nothing else.
    Parse,
}

/// The tokens with a role, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins a sequence.
    pub bos: Option<u32>,
    /// End a turn or a text: generation stops at any of them.
    pub eos: Vec<u32>,
    /// Stands for text that has no ids.
    pub unknown: Option<u32>,
    /// Fills a batch.
    pub padding: Option<u32>,
    /// Does the model want [`bos`](Self::bos) in front of a text that is no chat?
    /// [`Tokenizer::encode`] never adds it.
    pub add_bos: bool,
}

/// A vocabulary, and what turns text to its ids and back.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    verbatim: Verbatim,
    boundaries: Boundaries,
    char_ids: CharIds,
    /// The tokens `<0x00>` to `<0xFF>`.
    bytes: [Option<u32>; 256],
    special: SpecialIds,
    warnings: Vec<String>,
}

impl Tokenizer {
    /// The ids of a text. Nothing is put in front of it.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        let all = 0..text.len();
        match special {
            Special::Plain => self.encode_guarded(text, std::slice::from_ref(&all)),
            Special::Parse => self.encode_guarded(text, &[]),
        }
    }

    /// The ids of a text made of parts, which merge across their borders as if it had been one
    /// from the start. A control token is parsed only where all of its spelling lies in
    /// [`Special::Parse`] parts: nothing in, or completed by, a [`Special::Plain`] part makes one.
    pub fn encode_parts(&self, parts: &[(&str, Special)]) -> Vec<u32> {
        let mut text = String::with_capacity(parts.iter().map(|(part, _)| part.len()).sum());
        let mut plain = Vec::new();
        for &(part, special) in parts {
            let start = text.len();
            text.push_str(part);
            if special == Special::Plain && !part.is_empty() {
                plain.push(start..text.len());
            }
        }
        self.encode_guarded(&text, &plain)
    }

    /// `plain`: ranges, ascending and apart, that no control token may touch.
    pub(crate) fn encode_guarded(&self, text: &str, mut plain: &[Range<usize>]) -> Vec<u32> {
        let mut encoder = Encoder::new(self, text.len());
        let mut done = 0;
        let mut from = 0;
        while let Some(found) = self.verbatim.find(text, from) {
            from = found.end;
            while plain.first().is_some_and(|range| range.end <= found.start) {
                plain = &plain[1..];
            }
            let guarded = plain.first().is_some_and(|range| range.start < found.end);
            if guarded && self.vocab.kind(found.id) != Kind::UserDefined {
                continue;
            }
            if done < found.start {
                encoder.segment(&text[done..found.start]);
            }
            encoder.token(found.id);
            done = found.end;
        }
        if done < text.len() {
            encoder.segment(&text[done..]);
        }
        encoder.finish()
    }

    /// The text of ids. Control tokens are left out, as are ids outside of the vocabulary; bytes
    /// that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut out = String::new();
        let mut decoder = StreamDecoder::new();
        for &id in ids {
            decoder.push_to(self, id, &mut out);
        }
        decoder.flush(&mut out);
        out
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.vocab.len()
    }

    /// No tokens?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token with exactly this text, `▁` standing for spaces.
    pub fn token_to_id(&self, text: &str) -> Option<u32> {
        self.vocab.find(text.as_bytes()).map(|found| found.id)
    }

    /// The text of a token as the vocabulary has it, `▁` standing for spaces.
    pub fn token_text(&self, id: u32) -> Option<&str> {
        ((id as usize) < self.len()).then(|| self.vocab.text(id))
    }

    /// What a token adds to a text: for most the bytes of their spelling, with spaces where that has `▁`;
    /// of a character without a piece, one byte. Control tokens are spelled. Empty for ids outside of
    /// the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(text) = self.token_text(id) else { return Vec::new() };
        match decode::byte_of(text).filter(|_| self.kind(id) == Kind::Byte) {
            Some(byte) => vec![byte],
            None => text.replace(vocab::SPACE, " ").into_bytes(),
        }
    }

    /// What a token is for, after repairs; [`Kind::Unused`] for an id outside of the vocabulary.
    pub fn kind(&self, id: u32) -> Kind {
        self.vocab.kind(id)
    }

    /// The tokens with a role.
    pub fn special(&self) -> &SpecialIds {
        &self.special
    }

    /// Does generation stop at this token?
    pub fn is_eos(&self, id: u32) -> bool {
        self.special.eos.contains(&id)
    }

    /// What was wrong with the vocabulary in the file and has been mended, for people to read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Every control token: id and spelling.
    pub(crate) fn control_tokens(&self) -> impl Iterator<Item = (u32, &str)> {
        (0..self.len() as u32)
            .filter(|&id| matches!(self.vocab.kind(id), Kind::Control | Kind::Unknown))
            .map(|id| (id, self.vocab.text(id)))
    }

    fn has_all_bytes(&self) -> bool {
        self.bytes.iter().all(Option::is_some)
    }

    /// Appends the ids of a character that is no piece: those of its bytes, or, if the vocabulary
    /// lacks one of them, the unknown token, once for a run of such characters. Says whether the
    /// last id is now the unknown one.
    fn fall_back(&self, character: &[u8], in_unknown: bool, out: &mut Vec<u32>) -> bool {
        let len = out.len();
        out.extend(character.iter().map_while(|&byte| self.bytes[usize::from(byte)]));
        if out.len() - len == character.len() {
            return false;
        }
        out.truncate(len);
        if !in_unknown {
            out.extend(self.special.unknown);
        }
        true
    }
}
