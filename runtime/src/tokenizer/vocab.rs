//! The vocabulary: token texts in one arena, and a table from text to id.
//!
//! A Gemma vocabulary has 262144 pieces and must be there a few milliseconds after the file is
//! mapped, so nothing is allocated per piece: texts lie end to end in one arena, and one
//! open-addressing table of 16-byte slots finds them. A slot carries all that a merge candidate
//! needs (length, rank, where the text is), so that a lookup touches two cache lines at most.

use super::error::TokenizerError;
use super::hash::Hash;

/// What a token is for, as `tokenizer.ggml.token_type` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An ordinary piece, made by merging.
    Normal = 1,
    /// Stands for text that has no ids.
    Unknown = 2,
    /// Steers the model; never text.
    Control = 3,
    /// Matched verbatim in the text, before any merging.
    UserDefined = 4,
    /// Fills a row of the embedding, no more.
    Unused = 5,
    /// One byte of a character that has no piece, `<0x00>` to `<0xFF>`.
    Byte = 6,
}

impl Kind {
    pub(super) fn from_id(id: i64) -> Option<Self> {
        use Kind::*;
        [Normal, Unknown, Control, UserDefined, Unused, Byte].into_iter().find(|&k| k as i64 == id)
    }

    /// Can merging make it?
    pub(super) fn merges(self) -> bool {
        matches!(self, Kind::Normal | Kind::UserDefined)
    }
}

/// The rank of a piece that no merge makes.
pub(super) const NO_RANK: u32 = u32::MAX;
/// The longest token text, in bytes: its length takes 16 bits of a slot.
pub(super) const MAX_TEXT: usize = u16::MAX as usize;

/// `▁` (U+2581), which stands for a space in pieces.
pub(super) const SPACE: &str = "\u{2581}";

/// A piece found in the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) id: u32,
    /// Lower merges first; [`NO_RANK`] when no merge makes the piece.
    pub(super) rank: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// High half: 16 bits of the hash. Low half: length of the text.
    tag: u32,
    id: u32,
    start: u32,
    rank: u32,
}

/// A slot without a token. Ids stay below it: they are counted in bytes of a `u32` arena.
const EMPTY: Slot = Slot { tag: 0, id: u32::MAX, start: 0, rank: NO_RANK };

/// Texts, kinds and merge ranks of all tokens.
#[derive(Debug)]
pub(super) struct Vocab {
    arena: String,
    /// Where each text ends in the arena; it starts where the one before ends.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    hash: Hash,
    slots: Vec<Slot>,
}

impl Vocab {
    /// Tokens with nothing to find them by yet.
    pub(super) fn with_capacity(tokens: usize, bytes: usize) -> Self {
        Vocab {
            arena: String::with_capacity(bytes),
            ends: Vec::with_capacity(tokens),
            kinds: Vec::with_capacity(tokens),
            hash: Hash::new(),
            slots: Vec::new(),
        }
    }

    /// Adds the next token.
    pub(super) fn push(&mut self, text: &str, kind: Kind) -> Result<(), TokenizerError> {
        let id = self.ends.len();
        if text.len() > MAX_TEXT {
            return Err(TokenizerError::TooLong { id, bytes: text.len(), max: MAX_TEXT });
        }
        self.arena.push_str(text);
        let (Ok(end), true) = (u32::try_from(self.arena.len()), id < EMPTY.id as usize) else {
            let bytes = self.arena.len() as u64;
            return Err(TokenizerError::TooLarge { tokens: id, bytes });
        };
        self.ends.push(end);
        self.kinds.push(kind);
        Ok(())
    }

    /// Enters every token into the table, `rank` telling how early merging makes it. The first of
    /// several tokens with one text is the one found; returns how many were not the first.
    pub(super) fn index(&mut self, mut rank: impl FnMut(&Vocab, u32) -> u32) -> usize {
        // At most half full: most lookups are for text that is no piece, and end at a gap.
        let mut slots = vec![EMPTY; (self.len() * 2).next_power_of_two()];
        let mask = slots.len() - 1;
        // Where a token goes is a cache miss. The slots of a batch are touched before any is looked
        // into, so that the misses overlap: that makes loading twice as fast.
        const BATCH: usize = 32;
        let mut hashes = [0; BATCH];
        let mut touched = 0;
        let mut duplicates = 0;
        let (mut hashed_to, mut start) = (0, 0);
        for (ends, first) in self.ends.chunks(BATCH).zip((0u32..).step_by(BATCH)) {
            for (hash, &end) in hashes.iter_mut().zip(ends) {
                *hash = self.hash.of(&self.arena.as_bytes()[hashed_to as usize..end as usize]);
                hashed_to = end;
                touched ^= slots[*hash as usize & mask].id;
            }
            for ((&hash, &end), id) in hashes.iter().zip(ends).zip(first..) {
                let text = &self.arena.as_bytes()[start as usize..end as usize];
                let tag = tag(hash, text.len());
                let mut at = hash as usize & mask;
                loop {
                    let slot = &slots[at];
                    if slot.id == EMPTY.id {
                        slots[at] = Slot { tag, id, start, rank: rank(self, id) };
                        break;
                    }
                    if slot.tag == tag
                        && self.arena.as_bytes()[slot.start as usize..].starts_with(text)
                    {
                        duplicates += 1;
                        break;
                    }
                    at = (at + 1) & mask;
                }
                start = end;
            }
        }
        std::hint::black_box(touched);
        self.slots = slots;
        duplicates
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of a token; empty for an id that is none.
    pub(super) fn text(&self, id: u32) -> &str {
        let i = id as usize;
        let start = if i == 0 { 0 } else { self.ends.get(i - 1).copied().unwrap_or(0) };
        match self.ends.get(i) {
            Some(&end) => &self.arena[start as usize..end as usize],
            None => "",
        }
    }

    /// What a token is for; [`Kind::Unused`] for an id that is none.
    pub(super) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    pub(super) fn set_kind(&mut self, id: u32, kind: Kind) {
        self.kinds[id as usize] = kind;
    }

    pub(super) fn hash(&self) -> Hash {
        self.hash
    }

    /// The token with this text.
    #[inline]
    pub(super) fn find(&self, text: &[u8]) -> Option<Found> {
        if text.len() > MAX_TEXT || self.slots.is_empty() {
            return None;
        }
        let hash = self.hash.of(text);
        let tag = tag(hash, text.len());
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = &self.slots[at];
            if slot.id == EMPTY.id {
                return None;
            }
            if slot.tag == tag
                && &self.arena.as_bytes()[slot.start as usize..][..text.len()] == text
            {
                return Some(Found { id: slot.id, rank: slot.rank });
            }
            at = (at + 1) & mask;
        }
    }
}

/// Hash bits that do not choose the slot, and the length.
#[inline]
fn tag(hash: u64, len: usize) -> u32 {
    ((hash >> 32) as u32 & 0xFFFF_0000) | len as u32
}
