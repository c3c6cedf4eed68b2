//! Self-speculation by prompt lookup (Saxena 2023; Yang et al., "Inference with Reference", 2023):
//! where the last few tokens have occurred before, what followed them then is likely to follow now.
//! Those tokens go through the model together with the last one, and as many as it agrees with are
//! kept. Reading the weights is what a token costs, so a few rows more cost little.
//!
//! Summaries, edits and quotations gain; for other text drafts are refused, and each refusal makes
//! the next draft shorter, then rarer, so that little is lost.

/// Tokens that must have occurred before in the same order.
const MATCH: usize = 3;
/// The longest draft: with the last token, as many rows as share the path of small batches.
const LONGEST: usize = 7;
/// The longest pause between two drafts, in tokens.
const LONGEST_PAUSE: usize = 64;

/// Proposes drafts, and learns from what became of them.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// Length of the next draft.
    length: usize,
    /// Tokens to let pass before the next.
    pause: usize,
    /// The pause after another refusal.
    next_pause: usize,
    drafted: usize,
    accepted: usize,
}

impl Default for Lookup {
    fn default() -> Self {
        Lookup { length: 2, pause: 0, next_pause: 1, drafted: 0, accepted: 0 }
    }
}

impl Lookup {
    /// Appends to `draft` what followed the latest earlier occurrence of the end of `text`, at most
    /// `room` tokens; nothing when there is none or drafting does not pay at the moment.
    pub fn draft(&mut self, text: &[u32], room: usize, draft: &mut Vec<u32>) {
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        let Some(at) = text.len().checked_sub(MATCH) else { return };
        let (before, end) = text.split_at(at);
        // Windows that end before the text does: one that starts later would find the end itself.
        let searched = &text[..before.len() + MATCH - 1];
        if let Some(found) = searched.windows(MATCH).rposition(|w| w == end) {
            let follows = &text[found + MATCH..];
            draft.extend(follows.iter().take(self.length.min(room)));
            self.drafted += follows.len().min(self.length.min(room));
        }
    }

    /// Tells how many tokens of a draft of `drafted` were right.
    pub fn learn(&mut self, drafted: usize, accepted: usize) {
        if drafted == 0 {
            return;
        }
        self.accepted += accepted;
        if accepted == drafted {
            self.length = (self.length * 2).min(LONGEST);
            self.next_pause = 1;
        } else if accepted == 0 {
            self.length = 2;
            self.pause = self.next_pause;
            self.next_pause = (self.next_pause * 4).min(LONGEST_PAUSE);
        } else {
            self.length = (accepted + 1).max(2);
        }
    }

    /// Tokens drafted so far, and how many of them the model agreed with.
    pub fn counts(&self) -> (usize, usize) {
        (self.drafted, self.accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(l: &mut Lookup, text: &[u32], room: usize) -> Vec<u32> {
        let mut out = Vec::new();
        l.draft(text, room, &mut out);
        out
    }

    #[test]
    fn proposes_what_followed_the_latest_occurrence() {
        let mut l = Lookup::default();
        let text = [1, 2, 3, 9, 9, 1, 2, 3, 7, 8, 5, 1, 2, 3];
        assert_eq!(draft(&mut l, &text, 10), [7, 8]);
        assert_eq!(draft(&mut l, &text, 1), [7]);
        assert_eq!(draft(&mut l, &[1, 2, 3, 4], 10), [0; 0]);
        assert_eq!(draft(&mut l, &[1, 2], 10), [0; 0]);
        assert_eq!(draft(&mut l, &[], 10), [0; 0]);
        // A run: the latest earlier occurrence overlaps the end.
        assert_eq!(draft(&mut l, &[4, 4, 4, 4], 10), [4]);
    }

    #[test]
    fn success_makes_drafts_longer_and_failure_rarer() {
        let text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3];
        let mut l = Lookup::default();
        l.learn(2, 2);
        assert_eq!(draft(&mut l, &text, 10), [4, 5, 6, 7]);
        l.learn(4, 4);
        assert_eq!(draft(&mut l, &text, 10).len(), LONGEST);
        l.learn(7, 1);
        assert_eq!(draft(&mut l, &text, 10).len(), 2);
        for pause in [1, 4, 16, 64, 64] {
            l.learn(2, 0);
            for _ in 0..pause {
                assert_eq!(draft(&mut l, &text, 10).len(), 0);
            }
            assert_eq!(draft(&mut l, &text, 10).len(), 2);
        }
    }
}
