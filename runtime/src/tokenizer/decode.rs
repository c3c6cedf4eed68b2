//! Ids to text, all at once or as they come.

use super::Tokenizer;
use super::vocab::{Kind, SPACE};

/// Turns ids to text as they come, never half a character.
///
/// Byte tokens are held back until another token (or [`finish`](Self::finish)) ends their run: a
/// run that is valid UTF-8 is text, and of one that is not every byte is U+FFFD, which is what
/// Hugging Face makes of it. What has been pushed out is therefore never taken back, and all of it
/// together is [`Tokenizer::decode`] of the ids.
#[derive(Clone, Debug, Default)]
pub struct StreamDecoder {
    bytes: Vec<u8>,
}

impl StreamDecoder {
    /// A decoder at the beginning of a text.
    pub fn new() -> Self {
        Self::default()
    }

    /// The text that is certain once this id is known: empty for a control token, an id outside of
    /// the vocabulary, and a byte whose run goes on.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        let mut out = String::new();
        self.push_to(tokenizer, id, &mut out);
        out
    }

    /// Ends the text: what was held back, if anything.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.flush(&mut out);
        out
    }

    pub(super) fn push_to(&mut self, tokenizer: &Tokenizer, id: u32, out: &mut String) {
        let text = tokenizer.vocab.text(id);
        match tokenizer.vocab.kind(id) {
            // Hidden, and no end to a run of bytes.
            Kind::Control | Kind::Unknown => return,
            _ if id as usize >= tokenizer.vocab.len() => return,
            Kind::Byte => {
                if let Some(byte) = byte_of(text) {
                    return self.bytes.push(byte);
                }
            }
            Kind::Normal | Kind::UserDefined | Kind::Unused => {}
        }
        self.flush(out);
        for (i, part) in text.split(SPACE).enumerate() {
            if i > 0 {
                out.push(' ');
            }
            out.push_str(part);
        }
    }

    pub(super) fn flush(&mut self, out: &mut String) {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => out.push_str(text),
            Err(_) => out.extend(self.bytes.iter().map(|_| char::REPLACEMENT_CHARACTER)),
        }
        self.bytes.clear();
    }
}

/// The byte that `<0xNN>` stands for.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || digits.starts_with('+') {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}
