//! Texts that end an answer.

/// Looks for texts in an answer as it comes, and holds back what may be the beginning of one.
#[derive(Debug, Default)]
pub(super) struct Stops {
    texts: Vec<String>,
    held: String,
}

impl Stops {
    /// Ends where any of `texts` comes; an empty one is none.
    pub(super) fn new(mut texts: Vec<String>) -> Self {
        texts.retain(|text| !text.is_empty());
        Stops { texts, held: String::new() }
    }

    /// More of the answer. Returns what of it is certain, and whether it ends there.
    pub(super) fn push(&mut self, more: &str) -> (String, bool) {
        if self.texts.is_empty() {
            return (more.to_owned(), false);
        }
        self.held.push_str(more);
        let first = self.texts.iter().filter_map(|text| self.held.find(text.as_str())).min();
        if let Some(at) = first {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let maybe = self.texts.iter().map(|text| overlap(&self.held, text)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - maybe);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The answer is over: what was held back is a part of it.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes at the end of `held` that `text` begins with, without being all of it.
fn overlap(held: &str, text: &str) -> usize {
    let longest = text.floor_char_boundary(held.len().min(text.len() - 1));
    let beginnings = text[..longest].char_indices().map(|(at, _)| at).chain([longest]);
    beginnings.rev().find(|&at| held.ends_with(&text[..at])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the pieces, the answer ends before the text that comes first.
    #[test]
    fn pieces_do_not_matter() {
        let answer = "Ein Käse, aab aaab; ###\n## Ende\nUser: ja";
        let lists: [&[&str]; 7] = [
            &["aaab"],
            &["## E", "###\n#"],
            &["User:", "User: nein"],
            &["äs", ""],
            &["nowhere"],
            &[],
            &["ja!"],
        ];
        for list in lists {
            let texts: Vec<String> = list.iter().map(|s| s.to_string()).collect();
            let ends = list.iter().filter(|s| !s.is_empty()).filter_map(|s| answer.find(s)).min();
            let want = &answer[..ends.unwrap_or(answer.len())];
            let chars: Vec<String> = answer.chars().map(String::from).collect();
            for size in 1..=chars.len() {
                let (mut stops, mut got, mut ended) =
                    (Stops::new(texts.clone()), String::new(), false);
                for piece in chars.chunks(size) {
                    let (text, end) = stops.push(&piece.concat());
                    got += &text;
                    assert!(want.starts_with(&got), "{list:?} {size}: {got:?}");
                    ended = end;
                    if end {
                        break;
                    }
                }
                if !ended {
                    got += &stops.finish();
                }
                assert_eq!((got.as_str(), ended), (want, ends.is_some()), "{list:?} {size}");
            }
        }
    }

    #[test]
    fn only_what_may_end_it_is_held_back() {
        let mut stops = Stops::new(vec!["END".into()]);
        assert_eq!(stops.push("a E"), ("a ".into(), false));
        assert_eq!(stops.push("N"), (String::new(), false));
        assert_eq!(stops.push("E"), ("EN".into(), false));
        assert_eq!(stops.push("ND."), (String::new(), true));
    }
}
