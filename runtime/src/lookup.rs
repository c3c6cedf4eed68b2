//! Self-speculation by prompt lookup (Saxena 2023; Yang et al., "Inference with Reference", 2023):
//! where the last few tokens have occurred before, what followed them then is likely to follow now.
//! Those tokens go through the model together with the last one, and as many as it agrees with are
//! kept. Reading the weights is what a token costs, so a few rows more cost little.
//!
//! Summaries, edits and quotations gain; for other text drafts are refused, and each refusal makes
//! the next draft shorter, then rarer, so that little is lost. The same happens where drafts are right
//! but rows are not cheap, as for a model so small that it lies in the caches: passes are timed.

use std::time::Duration;

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
    /// Seconds that a pass takes for one token, lately; 0 when there was none.
    plain: f32,
    /// Seconds of the last passes with drafts, and the tokens they gave, older ones counting less.
    spent: f32,
    gained: f32,
}

impl Default for Lookup {
    fn default() -> Self {
        Lookup {
            length: 2,
            pause: 0,
            next_pause: 1,
            drafted: 0,
            accepted: 0,
            plain: 0.0,
            spent: 0.0,
            gained: 0.0,
        }
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

    /// Tells how many tokens of a draft of `drafted` (0: one token alone) were right, and how long
    /// the pass took.
    pub fn learn(&mut self, drafted: usize, accepted: usize, took: Duration) {
        let took = took.as_secs_f32();
        if drafted == 0 {
            self.plain = if self.plain == 0.0 { took } else { 0.9 * self.plain + 0.1 * took };
            return;
        }
        self.accepted += accepted;
        self.spent = 0.8 * self.spent + took;
        self.gained = 0.8 * self.gained + (accepted + 1) as f32;
        let pays = self.plain == 0.0 || self.gained * self.plain > self.spent;
        if accepted == 0 || !pays {
            self.length = 2;
            self.pause = self.next_pause;
            self.next_pause = (self.next_pause * 4).min(LONGEST_PAUSE);
        } else if accepted == drafted {
            self.length = (self.length * 2).min(LONGEST);
            self.next_pause = 1;
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

    const PASS: Duration = Duration::from_millis(1);

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
        l.learn(2, 2, PASS);
        assert_eq!(draft(&mut l, &text, 10), [4, 5, 6, 7]);
        l.learn(4, 4, PASS);
        assert_eq!(draft(&mut l, &text, 10).len(), LONGEST);
        l.learn(7, 1, PASS);
        assert_eq!(draft(&mut l, &text, 10).len(), 2);
        for pause in [1, 4, 16, 64, 64] {
            l.learn(2, 0, PASS);
            for _ in 0..pause {
                assert_eq!(draft(&mut l, &text, 10).len(), 0);
            }
            assert_eq!(draft(&mut l, &text, 10).len(), 2);
        }
    }

    #[test]
    fn drafts_that_cost_more_than_they_bring_become_rare() {
        let text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3];
        let mut l = Lookup::default();
        l.learn(0, 0, PASS);
        l.learn(2, 2, PASS * 2);
        assert_eq!(draft(&mut l, &text, 10).len(), 4, "three tokens for two passes");
        // Right, but five tokens for nine passes: a pause, and a longer one.
        l.learn(4, 4, PASS * 9);
        assert_eq!(draft(&mut l, &text, 10).len(), 0);
        assert_eq!(draft(&mut l, &text, 10).len(), 2);
        l.learn(2, 2, PASS * 9);
        for _ in 0..4 {
            assert_eq!(draft(&mut l, &text, 10).len(), 0);
        }
        // Once rows are cheap again, it drafts again.
        for _ in 0..8 {
            l.learn(2, 2, PASS);
        }
        l.pause = 0;
        assert_eq!(draft(&mut l, &text, 10).len(), LONGEST);
    }
}
