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
pub(super) struct Symbol {
    pub(super) id: u32,
    /// Where it starts in the word, in bytes.
    start: u32,
    bytes: u32,
    chars: u32,
    /// The neighbours, by index; [`NONE`] at the ends. Used by the heap only.
    prev: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// How early a merge is done: lower first.
type Key = u64;
const NO_MERGE: Key = Key::MAX;

/// A merge that was possible when it was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    key: Key,
    /// Index of the left symbol; equal merges go from left to right.
    left: u32,
    /// Bytes of both symbols when it was entered: they are still the same two if their lengths
    /// still add up to this, because symbols only ever grow.
    bytes: u32,
    id: u32,
}

/// Merges words; holds the memory for it.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    /// For each symbol, the merge with the next one: its key and the id it makes.
    merges: Vec<(Key, u32)>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Adds a character that is a piece to the word.
    #[inline]
    pub(super) fn push(&mut self, id: u32, start: usize, bytes: usize) {
        let (start, bytes) = (start as u32, bytes as u32);
        self.symbols.push(Symbol { id, start, bytes, chars: 1, prev: NONE, next: NONE });
    }

    /// Merges the characters pushed, which lie one after the other in `word`, appends the ids to
    /// `out`, and is empty again.
    pub(super) fn finish(&mut self, vocab: &Vocab, word: &[u8], out: &mut Vec<u32>) {
        if self.symbols.len() <= FEW {
            self.merge_few(vocab, word);
            out.extend(self.symbols.iter().map(|s| s.id));
        } else {
            self.merge_many(vocab, word);
            let mut at = 0;
            while at != NONE {
                let symbol = &self.symbols[at as usize];
                out.push(symbol.id);
                at = symbol.next;
            }
        }
        self.symbols.clear();
    }

    fn merge_few(&mut self, vocab: &Vocab, word: &[u8]) {
        let symbols = &mut self.symbols;
        let merges = &mut self.merges;
        merges.clear();
        merges.extend(symbols.windows(2).map(|pair| merge(vocab, word, &pair[0], &pair[1])));
        loop {
            let mut best = (NO_MERGE, 0);
            for (i, &(key, _)) in merges.iter().enumerate() {
                if key < best.0 {
                    best = (key, i);
                }
            }
            let (key, i) = best;
            if key == NO_MERGE {
                return;
            }
            let right = symbols.remove(i + 1);
            symbols[i].grow(&right, merges[i].1);
            merges.remove(i);
            if let Some(next) = symbols.get(i + 1) {
                merges[i] = merge(vocab, word, &symbols[i], next);
            }
            if i > 0 {
                merges[i - 1] = merge(vocab, word, &symbols[i - 1], &symbols[i]);
            }
        }
    }

    fn merge_many(&mut self, vocab: &Vocab, word: &[u8]) {
        let symbols = &mut self.symbols;
        let n = symbols.len() as u32;
        for (i, symbol) in (0..n).zip(symbols.iter_mut()) {
            symbol.prev = i.wrapping_sub(1);
            symbol.next = if i + 1 < n { i + 1 } else { NONE };
        }
        let candidate = |symbols: &[Symbol], left: u32| {
            let a = &symbols[left as usize];
            let b = symbols.get(a.next as usize)?;
            let (key, id) = merge(vocab, word, a, b);
            let bytes = a.bytes + b.bytes;
            (key != NO_MERGE).then_some(Reverse(Candidate { key, left, bytes, id }))
        };
        // Built in one go: linear, where pushing one by one is not.
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.clear();
        entries.extend((0..n).filter_map(|i| candidate(symbols, i)));
        let mut heap = BinaryHeap::from(entries);
        while let Some(Reverse(Candidate { left, bytes, id, .. })) = heap.pop() {
            let a = symbols[left as usize];
            let Some(&b) = symbols.get(a.next as usize) else { continue };
            if a.bytes == 0 || a.bytes + b.bytes != bytes {
                continue;
            }
            symbols[left as usize].grow(&b, id);
            symbols[left as usize].next = b.next;
            symbols[a.next as usize].bytes = 0;
            if let Some(next) = symbols.get_mut(b.next as usize) {
                next.prev = left;
            }
            heap.extend(candidate(symbols, left));
            if a.prev != NONE {
                heap.extend(candidate(symbols, a.prev));
            }
        }
        self.heap = heap;
    }
}

impl Symbol {
    fn grow(&mut self, right: &Symbol, id: u32) {
        self.id = id;
        self.bytes += right.bytes;
        self.chars += right.chars;
    }
}

/// The merge of two neighbours.
#[inline]
fn merge(vocab: &Vocab, word: &[u8], left: &Symbol, right: &Symbol) -> (Key, u32) {
    let text = &word[left.start as usize..][..(left.bytes + right.bytes) as usize];
    match vocab.find(text) {
        Some(found) if found.rank != NO_RANK => {
            // A piece has at most 65535 bytes, so its parts have fewer characters than that.
            let longer_left = u64::from(0xFFFF - left.chars);
            let longer_right = u64::from(0xFFFF - right.chars);
            (u64::from(found.rank) << 32 | longer_left << 16 | longer_right, found.id)
        }
        _ => (NO_MERGE, 0),
    }
}
