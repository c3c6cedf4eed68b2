//! The scores that SentencePiece would have given, from the ranks of merges.
//!
//! SentencePiece numbers BPE pieces in the order it learnt them and scores a piece minus its
//! place in that order, so ids alone give the scores back exactly, provided that ids and merges
//! agree. They need not agree everywhere: Gemma's tokenizer.json merges runs of tabs first, although
//! their ids come last. That changes nothing, because order only matters between pieces that can
//! compete for the same text, and these share no character with any other piece. So the check is
//! made within groups of pieces that share characters, directly or through others.

use std::collections::HashMap;

/// Scores for `pieces` (in id order, each with the rank of the merge that first makes it, if one
/// does): 0, -1, -2, … in the order of ids where that order merges as the ranks do, else in the
/// order of ranks, unmerged pieces last.
pub(super) fn from_ranks(pieces: &[(&str, Option<u32>)]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    if !ids_follow_ranks(pieces) {
        order.sort_by_key(|&i| pieces[i].1.unwrap_or(u32::MAX)); // stable: ties stay in id order
    }
    let mut scores = vec![0.0; pieces.len()];
    for (place, &i) in order.iter().enumerate() {
        scores[i] = -(place as f32);
    }
    scores
}

/// Do ranks rise with ids within every group of pieces that share characters?
fn ids_follow_ranks(pieces: &[(&str, Option<u32>)]) -> bool {
    let mut groups = Groups::default();
    for (piece, _) in pieces.iter().filter(|(_, rank)| rank.is_some()) {
        let mut chars = piece.chars();
        let Some(first) = chars.next() else { continue };
        let first = groups.of(first);
        for c in chars {
            let other = groups.of(c);
            groups.join(first, other);
        }
    }
    let mut last = HashMap::new();
    pieces.iter().all(|(piece, rank)| match (piece.chars().next(), rank) {
        (Some(c), Some(rank)) => {
            let group = groups.of(c);
            let group = groups.root(group);
            last.insert(group, *rank).is_none_or(|before| before < *rank)
        }
        _ => true,
    })
}

/// Disjoint sets of characters.
#[derive(Default)]
struct Groups {
    ids: HashMap<char, usize>,
    parents: Vec<usize>,
}

impl Groups {
    fn of(&mut self, c: char) -> usize {
        let next = self.parents.len();
        let id = *self.ids.entry(c).or_insert(next);
        if id == next {
            self.parents.push(next);
        }
        id
    }

    fn root(&mut self, mut i: usize) -> usize {
        while self.parents[i] != i {
            self.parents[i] = self.parents[self.parents[i]];
            i = self.parents[i];
        }
        i
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a] = b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_where_they_agree_with_the_merges() {
        let pieces = [("ab", Some(3)), ("abc", Some(5)), ("a", None), ("b", None)];
        assert_eq!(from_ranks(&pieces), [0.0, -1.0, -2.0, -3.0]);
        assert!(from_ranks(&pieces)[0].is_sign_negative(), "SentencePiece writes -0");
    }

    #[test]
    fn pieces_that_never_meet_may_be_out_of_order() {
        let pieces = [("ab", Some(3)), ("abc", Some(5)), ("\t\t", Some(1)), ("\t\t\t", Some(2))];
        assert_eq!(from_ranks(&pieces), [0.0, -1.0, -2.0, -3.0]);
    }

    #[test]
    fn merges_decide_where_ids_disagree() {
        let pieces = [("ab", Some(5)), ("bc", Some(3)), ("c", None)];
        assert_eq!(from_ranks(&pieces), [-1.0, 0.0, -2.0]);
        // Joined through a third piece.
        let pieces = [("ab", Some(5)), ("cd", Some(3)), ("bc", Some(6))];
        assert_eq!(from_ranks(&pieces), [-1.0, 0.0, -2.0]);
    }
}
