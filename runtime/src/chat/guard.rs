//! Keeps the text of messages from spelling control tokens, all the way through a template.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use crate::tokenizer::Tokenizer;

/// The private-use characters that stand in: the whole of plane 16, which nobody types.
const STAND_INS: Range<u32> = 0x10_0000..0x10_FFFE;

/// Which characters to guard.
#[derive(Debug)]
pub(super) struct Guard {
    /// All that begin or end the spelling of a control token. A spelling that touches the text of
    /// a message begins in it, ends in it, or (in no template that means well) wraps around it.
    marks: Vec<char>,
}

/// What stands for what in one conversation.
#[derive(Debug)]
pub(super) struct Guarded {
    /// Mark and stand-in, for each mark.
    pairs: Vec<(char, char)>,
}

impl Guard {
    pub(super) fn new(tokenizer: &Tokenizer) -> Self {
        let mut marks = BTreeSet::new();
        for (_, text) in tokenizer.control_tokens() {
            marks.extend(text.chars().next());
            marks.extend(text.chars().next_back());
        }
        Guard { marks: marks.into_iter().collect() }
    }

    /// Finds stand-ins that occur in none of the texts nor in the template; `None` when there are
    /// not enough of them.
    pub(super) fn over<'a>(
        &self,
        texts: impl Iterator<Item = &'a str>,
        template: &'a str,
    ) -> Option<Guarded> {
        let taken: HashSet<char> = texts
            .chain([template])
            .flat_map(str::chars)
            .chain(self.marks.iter().copied())
            .filter(|&c| STAND_INS.contains(&u32::from(c)))
            .collect();
        let free = STAND_INS.filter_map(char::from_u32).filter(|c| !taken.contains(c));
        let pairs: Vec<_> = self.marks.iter().copied().zip(free).collect();
        (pairs.len() == self.marks.len()).then_some(Guarded { pairs })
    }
}

impl Guarded {
    /// The text of a message as the template gets to see it.
    pub(super) fn lay(&self, text: &str) -> String {
        let stand_in = |c| match self.pairs.binary_search_by_key(&c, |&(mark, _)| mark) {
            Ok(i) => self.pairs[i].1,
            Err(_) => c,
        };
        text.chars().map(stand_in).collect()
    }

    /// The text with the guarded characters back, and the ranges they take, where no control
    /// token may be.
    pub(super) fn lift(&self, rendered: &str) -> (String, Vec<Range<usize>>) {
        let mut text = String::with_capacity(rendered.len());
        let mut plain: Vec<Range<usize>> = Vec::new();
        for c in rendered.chars() {
            // Both columns ascend: the stand-ins were handed out in order.
            match self.pairs.binary_search_by_key(&c, |&(_, stand_in)| stand_in) {
                Ok(i) => {
                    let start = text.len();
                    text.push(self.pairs[i].0);
                    plain.push(start..text.len());
                }
                Err(_) => text.push(c),
            }
        }
        (text, plain)
    }
}
