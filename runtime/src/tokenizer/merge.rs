//! Byte-pair merging of one word.
//!
//! Again and again the two neighbours that make the best piece are joined, until no two make one.
//! The file has a score for each piece where Hugging Face has a rank for each pair of pieces; the
//! ranks come from the scores like this: all pairs of pieces that concatenate to a piece are
//! merges, a higher score goes first, then the longer left part, then the longer right part
//! (lengths in characters). Equal merges are done from left to right. With that order the ids are
//! the same; see `tests/tokenizer_oracle.rs`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::vocab::{NO_RANK, Vocab};

/// Up to this many symbols the best merge is looked for among all of them, above that in a heap:
/// looking is quadratic, but nearly all words are short.
const FEW: usize = 24;

/// A stretch of the word that is a piece.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    id: u32,
    /// Where it starts in the word, in bytes.
    start: u32,
    /// 0 once it has been merged into its left neighbour.
    bytes: u32,
    chars: u32,
    /// How early, and into which id, it merges with the next symbol.
    key: Key,
    merged: u32,
    /// The neighbours, by index; [`NONE`] at the ends. Used with the heap only.
    prev: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// How early a merge is done: lower first.
type Key = u64;
const NO_MERGE: Key = Key::MAX;

/// Merges words; holds the memory for it.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    /// Merges that may be the next one, the earliest on top, of equal ones the leftmost: the key
    /// and the index of the left symbol. Some are out of date.
    heap: BinaryHeap<Reverse<(Key, u32)>>,
}

impl Merger {
    /// Adds a character that is a piece to the word.
    #[inline]
    pub(super) fn push(&mut self, id: u32, start: usize, bytes: usize) {
        let (start, bytes) = (start as u32, bytes as u32);
        let (key, merged) = (NO_MERGE, 0);
        self.symbols.push(Symbol {
            id,
            start,
            bytes,
            chars: 1,
            key,
            merged,
            prev: NONE,
            next: NONE,
        });
    }

    /// Merges the characters pushed, which lie one after the other in `word`, appends the ids to
    /// `out`, and is empty again.
    pub(super) fn finish(&mut self, vocab: &Vocab, word: &[u8], out: &mut Vec<u32>) {
        for i in 1..self.symbols.len() {
            let right = self.symbols[i];
            self.symbols[i - 1].meet(vocab, word, &right);
        }
        if self.symbols.len() <= FEW {
            self.merge_few(vocab, word);
        } else {
            self.merge_many(vocab, word);
        }
        out.extend(self.symbols.iter().filter(|s| s.bytes > 0).map(|s| s.id));
        self.symbols.clear();
    }

    fn merge_few(&mut self, vocab: &Vocab, word: &[u8]) {
        let symbols = &mut self.symbols;
        loop {
            let mut best = (NO_MERGE, 0);
            for (i, symbol) in symbols.iter().enumerate() {
                if symbol.key < best.0 {
                    best = (symbol.key, i);
                }
            }
            let (key, i) = best;
            if key == NO_MERGE {
                return;
            }
            let right = symbols.remove(i + 1);
            symbols[i].grow(&right);
            if let Some(&next) = symbols.get(i + 1) {
                symbols[i].meet(vocab, word, &next);
            }
            if i > 0 {
                let grown = symbols[i];
                symbols[i - 1].meet(vocab, word, &grown);
            }
        }
    }

    /// The next merge is always earlier than the ones to its left and right, so only such merges
    /// are put on the heap: when a merge has been done, those around it that have become so.
    fn merge_many(&mut self, vocab: &Vocab, word: &[u8]) {
        let Merger { symbols, heap } = self;
        let n = symbols.len() as u32;
        for (i, symbol) in (0..n).zip(symbols.iter_mut()) {
            symbol.prev = i.wrapping_sub(1);
            symbol.next = if i + 1 < n { i + 1 } else { NONE };
        }
        for i in 0..n {
            consider(symbols, i, heap);
        }
        while let Some(Reverse((key, left))) = heap.pop() {
            let a = symbols[left as usize];
            if a.bytes == 0 || a.key != key {
                continue;
            }
            let b = symbols[a.next as usize];
            symbols[left as usize].grow(&b);
            symbols[left as usize].next = b.next;
            symbols[a.next as usize].bytes = 0;
            if let Some(next) = symbols.get_mut(b.next as usize) {
                next.prev = left;
                let next = *next;
                symbols[left as usize].meet(vocab, word, &next);
            }
            let grown = symbols[left as usize];
            if let Some(before) = symbols.get_mut(a.prev as usize) {
                before.meet(vocab, word, &grown);
                let before = before.prev;
                consider(symbols, before, heap);
            }
            consider(symbols, a.prev, heap);
            consider(symbols, left, heap);
            consider(symbols, b.next, heap);
        }
    }
}

/// Puts the merge of a symbol with the next one on the heap if it is earlier than both its
/// neighbours. May do so twice, which does no harm.
fn consider(symbols: &[Symbol], at: u32, heap: &mut BinaryHeap<Reverse<(Key, u32)>>) {
    let Some(symbol) = symbols.get(at as usize) else { return };
    let key = |at: u32| symbols.get(at as usize).map_or(NO_MERGE, |s| s.key);
    let first = symbol.key < key(symbol.prev) && symbol.key <= key(symbol.next);
    if first && symbol.key != NO_MERGE {
        heap.push(Reverse((symbol.key, at)));
    }
}

impl Symbol {
    /// Takes in the next symbol. What comes after that has to be met.
    fn grow(&mut self, right: &Symbol) {
        self.id = self.merged;
        self.bytes += right.bytes;
        self.chars += right.chars;
        self.key = NO_MERGE;
    }

    /// Finds out about the merge with the next symbol.
    #[inline]
    fn meet(&mut self, vocab: &Vocab, word: &[u8], right: &Symbol) {
        let text = &word[self.start as usize..][..(self.bytes + right.bytes) as usize];
        (self.key, self.merged) = match vocab.find(text) {
            Some(found) if found.rank != NO_RANK => {
                // A piece has at most 65535 bytes, so its parts have fewer characters than that.
                let longer_left = u64::from(0xFFFF - self.chars);
                let longer_right = u64::from(0xFFFF - right.chars);
                (u64::from(found.rank) << 32 | longer_left << 16 | longer_right, found.id)
            }
            _ => (NO_MERGE, 0),
        };
    }
}
