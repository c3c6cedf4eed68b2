//! The scores that SentencePiece would have given, from the ranks of merges.
//!
//! SentencePiece numbers BPE pieces in the order it learnt them and scores a piece minus its
//! place in that order, so ids alone give the scores back exactly wherever they agree with the
//! merges. They need not agree everywhere: Gemma's tokenizer.json merges runs of tabs first and
//! the longest of them first, although their ids come last and rise with length. Order only
//! matters between pieces that can compete for the same text, and these share no character with
//! any other. So pieces are grouped by the characters they share, directly or through others, and
//! each group deals out its own places in the order of its merges.

use std::collections::HashMap;

/// Scores for `pieces` (in id order, each with the rank of the merge that first makes it, if one
/// does): minus their places, 0 and up in id order, except that the merged pieces of a group have
/// theirs in the order of ranks.
pub(super) fn from_ranks(pieces: &[(&str, Option<u32>)]) -> Vec<f32> {
    let mut groups = Groups::default();
    let merged = || pieces.iter().enumerate().filter_map(|(i, (p, rank))| Some((i, p, (*rank)?)));
    for (_, piece, _) in merged() {
        let mut chars = piece.chars();
        let Some(first) = chars.next() else { continue };
        let first = groups.of(first);
        for c in chars {
            let other = groups.of(c);
            groups.join(first, other);
        }
    }
    let mut members = HashMap::<usize, Vec<(usize, u32)>>::new();
    for (i, piece, rank) in merged() {
        if let Some(first) = piece.chars().next() {
            let group = groups.of(first);
            members.entry(groups.root(group)).or_default().push((i, rank));
        }
    }
    let mut scores: Vec<f32> = (0..pieces.len()).map(|i| -(i as f32)).collect();
    for group in members.values_mut() {
        let places: Vec<usize> = group.iter().map(|m| m.0).collect();
        group.sort_by_key(|m| m.1);
        for (place, (i, _)) in places.into_iter().zip(group) {
            scores[*i] = -(place as f32);
        }
    }
    scores
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
        let pieces = [("ab", Some(3)), ("abc", Some(5)), ("\t\t", Some(2)), ("\t\t\t", Some(1))];
        assert_eq!(from_ranks(&pieces), [0.0, -1.0, -3.0, -2.0]);
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
