//! Text to ids.
//!
//! Verbatim tokens split the text; between them, spaces become `▁` and merging does the rest. No
//! piece of a Gemma vocabulary goes on across the start of a word (with one exception, see
//! [`Boundaries`]), so words are merged one at a time, and a word met before is not merged again.

use super::Tokenizer;
use super::merge::Merger;
use super::vocab::{SPACE, Vocab};

/// Longer words are cut here, so that positions inside a word fit 32 bits.
const MAX_WORD: usize = 1 << 30;
/// Longest word kept for the next time it is met.
const MAX_CACHED: usize = 64;

/// Where a text may be cut without changing how it is merged.
#[derive(Debug, Default)]
pub(super) struct Boundaries {
    /// Characters that some piece has in front of a `▁`, sorted. After them, a `▁` may belong to
    /// the piece that the character is in; after all others it starts a new word.
    glue: Vec<char>,
}

impl Boundaries {
    /// Takes note of a piece that merging can make.
    pub(super) fn note(&mut self, piece: &str) {
        // By bytes: this looks at every piece of the vocabulary, and nearly none has any.
        for at in 1..piece.len().saturating_sub(SPACE.len() - 1) {
            if piece.as_bytes()[at..].starts_with(SPACE.as_bytes())
                && let Some(before) = piece[..at].chars().next_back()
                && let Err(gap) = self.glue.binary_search(&before)
            {
                self.glue.insert(gap, before);
            }
        }
    }

    /// Can a `▁` after this character belong to the same piece?
    #[inline]
    fn glued(&self, before: char) -> bool {
        // Runs of spaces are pieces in every vocabulary worth the name.
        before == '\u{2581}' || self.glue.binary_search(&before).is_ok()
    }
}

/// A word met before: where it is in the normalized text, and its ids in the output.
#[derive(Clone, Copy, Debug, Default)]
struct Cached {
    hash: u64,
    start: usize,
    bytes: u16,
    ids: u16,
    first_id: usize,
}

/// One encoding under way.
pub(super) struct Encoder<'t> {
    tokenizer: &'t Tokenizer,
    /// The text so far, with `▁` for spaces.
    normalized: Vec<u8>,
    out: Vec<u32>,
    merger: Merger,
    /// Direct-mapped by hash; empty for short texts.
    cache: Vec<Cached>,
    /// The last id stands for unknown text, and more of it adds no other.
    in_unknown: bool,
}

impl<'t> Encoder<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, text_len: usize) -> Self {
        // A run of unknown characters is one id even across words, which a cache would not know.
        let slots = match text_len / 16 {
            n if n < 16 || !tokenizer.has_all_bytes() => 0,
            n => n.next_power_of_two().min(1 << 13),
        };
        Encoder {
            tokenizer,
            normalized: Vec::with_capacity(text_len + text_len / 2),
            out: Vec::with_capacity(text_len / 3 + 1),
            merger: Merger::default(),
            cache: vec![Cached::default(); slots],
            in_unknown: false,
        }
    }

    /// A token matched verbatim.
    pub(super) fn token(&mut self, id: u32) {
        self.out.push(id);
        self.in_unknown = false;
    }

    /// Text between verbatim tokens.
    pub(super) fn segment(&mut self, text: &str) {
        self.in_unknown = false;
        let mut word = self.normalized.len();
        let mut before = None;
        for c in text.chars() {
            let c = if c == ' ' { '\u{2581}' } else { c };
            if let Some(before) = before
                && (c == '\u{2581}' && !self.tokenizer.boundaries.glued(before)
                    || self.normalized.len() - word >= MAX_WORD)
            {
                self.word(word);
                word = self.normalized.len();
            }
            match u8::try_from(c) {
                Ok(byte) if byte.is_ascii() => self.normalized.push(byte),
                _ => self.normalized.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            before = Some(c);
        }
        self.word(word);
    }

    /// The word from `start` to the end of the normalized text.
    fn word(&mut self, start: usize) {
        let bytes = self.normalized.len() - start;
        if bytes == 0 {
            return;
        }
        if self.cache.is_empty() || bytes > MAX_CACHED {
            return self.merge(start);
        }
        let word = &self.normalized[start..];
        let hash = self.tokenizer.vocab.hash().of(word);
        let slot = hash as usize & (self.cache.len() - 1);
        let met = self.cache[slot];
        // The hash only says where to look: equal text is what makes it the same word.
        if met.hash == hash
            && usize::from(met.bytes) == bytes
            && &self.normalized[met.start..][..bytes] == word
        {
            self.out.extend_from_within(met.first_id..met.first_id + usize::from(met.ids));
            return;
        }
        let first_id = self.out.len();
        self.merge(start);
        let ids = (self.out.len() - first_id) as u16; // no more than bytes
        self.cache[slot] = Cached { hash, start, bytes: bytes as u16, ids, first_id };
    }

    /// Merges the word from `start` on. A character without a piece stands alone, as its bytes.
    fn merge(&mut self, start: usize) {
        let Tokenizer { vocab, char_ids, .. } = self.tokenizer;
        let word = &self.normalized[start..];
        let mut at = 0;
        while at < word.len() {
            let bytes = utf8_len(word[at]);
            let character = &word[at..at + bytes];
            match char_ids.get(vocab, character) {
                Some(id) => {
                    self.merger.push(id, at, bytes);
                    self.in_unknown = false;
                }
                None => {
                    self.merger.finish(vocab, word, &mut self.out);
                    self.in_unknown =
                        self.tokenizer.fall_back(character, self.in_unknown, &mut self.out);
                }
            }
            at += bytes;
        }
        self.merger.finish(vocab, word, &mut self.out);
    }

    pub(super) fn finish(self) -> Vec<u32> {
        self.out
    }
}

/// The ids of single characters.
#[derive(Debug)]
pub(super) struct CharIds {
    /// Those of ASCII, looked up beforehand.
    ascii: [Option<u32>; 128],
}

impl CharIds {
    /// `tab` is the id of a tab in a vocabulary that has no piece for it.
    ///
    /// Gemma 2's vocabulary is such a one: it has pieces for runs of tabs, but only the byte token
    /// for a single one, and Hugging Face's merges take that for the tab they start from.
    pub(super) fn new(vocab: &Vocab, tab: Option<u32>) -> Self {
        let mut ascii = [None; 128];
        for (byte, id) in (0u8..).zip(&mut ascii) {
            *id = piece(vocab, &[byte]);
        }
        let tab_id = &mut ascii[usize::from(b'\t')];
        *tab_id = tab_id.or(tab);
        CharIds { ascii }
    }

    #[inline]
    fn get(&self, vocab: &Vocab, character: &[u8]) -> Option<u32> {
        match *character {
            [byte] => self.ascii[usize::from(byte & 0x7F)],
            _ => piece(vocab, character),
        }
    }
}

/// The id of a piece that text can become.
fn piece(vocab: &Vocab, text: &[u8]) -> Option<u32> {
    vocab.find(text).map(|found| found.id).filter(|&id| vocab.kind(id).merges())
}

/// Bytes of the character that starts with this byte.
#[inline]
fn utf8_len(first: u8) -> usize {
    match first {
        0..0x80 => 1,
        0x80..0xE0 => 2,
        0xE0..0xF0 => 3,
        _ => 4,
    }
}
