//! Tokens that are matched in the text as they stand: control and user-defined ones.
//!
//! The leftmost match wins, and of those that start together the longest, as Hugging Face's added
//! tokens do. A trie over bytes, its nodes in one array in breadth-first order, so that the
//! children of a node lie side by side.

/// Token that ends at a node, where none does.
const NO_TOKEN: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The byte that leads here.
    byte: u8,
    children: u16,
    first_child: u32,
    token: u32,
}

/// Finds verbatim tokens in text.
#[derive(Debug)]
pub(super) struct Verbatim {
    nodes: Vec<Node>,
    /// The child of the root for each byte; 0, the root itself, for none.
    roots: [u32; 256],
}

/// A verbatim token in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) id: u32,
}

impl Verbatim {
    /// A matcher for these texts. Empty ones are left out; of equal ones the lowest id wins.
    pub(super) fn new<'a>(tokens: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let mut sorted: Vec<(&[u8], u32)> = tokens
            .into_iter()
            .filter(|(text, _)| !text.is_empty())
            .map(|(text, id)| (text.as_bytes(), id))
            .collect();
        sorted.sort_unstable();
        sorted.dedup_by_key(|&mut (text, _)| text);

        let root = Node { byte: 0, children: 0, first_child: 0, token: NO_TOKEN };
        let mut nodes = vec![root];
        // The texts below each node, in the order of the nodes.
        let mut below: Vec<_> = std::iter::once(0..sorted.len()).collect();
        let mut depth_end = 1;
        let mut depth = 0;
        let mut n = 0;
        while n < nodes.len() {
            if n == depth_end {
                depth += 1;
                depth_end = nodes.len();
            }
            let mut texts = below[n].clone();
            // A text that ends here comes before those that go on.
            if sorted.get(texts.start).is_some_and(|(text, _)| text.len() == depth) {
                nodes[n].token = sorted[texts.start].1;
                texts.start += 1;
            }
            nodes[n].first_child = nodes.len() as u32;
            while !texts.is_empty() {
                let byte = sorted[texts.start].0[depth];
                let group = sorted[texts.clone()].partition_point(|(text, _)| text[depth] == byte);
                nodes[n].children += 1;
                nodes.push(Node { byte, ..root });
                below.push(texts.start..texts.start + group);
                texts.start += group;
            }
            n += 1;
        }
        let mut roots = [0; 256];
        let first = nodes[0].first_child;
        for child in first..first + u32::from(nodes[0].children) {
            roots[usize::from(nodes[child as usize].byte)] = child;
        }
        Verbatim { nodes, roots }
    }

    /// The first match at or after `from`.
    pub(super) fn find(&self, text: &str, from: usize) -> Option<Match> {
        let bytes = text.as_bytes();
        let mut start = from;
        loop {
            start += bytes.get(start..)?.iter().position(|&b| self.roots[usize::from(b)] != 0)?;
            if let Some((end, id)) = self.longest_at(bytes, start) {
                return Some(Match { start, end, id });
            }
            start += 1;
        }
    }

    /// Where the longest token that starts at `start` ends, and its id.
    fn longest_at(&self, bytes: &[u8], start: usize) -> Option<(usize, u32)> {
        let mut node = self.nodes[self.roots[usize::from(bytes[start])] as usize];
        let mut longest = None;
        let mut at = start + 1;
        loop {
            if node.token != NO_TOKEN {
                longest = Some((at, node.token));
            }
            let Some(&byte) = bytes.get(at) else { break };
            let children = &self.nodes[node.first_child as usize..][..usize::from(node.children)];
            let Some(&next) = children.iter().find(|c| c.byte == byte) else { break };
            node = next;
            at += 1;
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leftmost_longest_token_wins() {
        let v = Verbatim::new([("\n", 1), ("\n\n", 2), ("<b>", 3), ("", 4), ("<bo", 5), ("\n", 6)]);
        let all = |text: &str| {
            let mut found = vec![];
            let mut from = 0;
            while let Some(m) = v.find(text, from) {
                found.push((m.start, m.id));
                from = m.end;
            }
            found
        };
        assert_eq!(all(""), []);
        assert_eq!(all("\n\n\n"), [(0, 2), (2, 1)]);
        assert_eq!(all("a<b<bos<b>"), [(3, 5), (7, 3)]);
        assert_eq!(all("<b"), []);
    }

    #[test]
    fn no_tokens_match_nothing() {
        assert_eq!(Verbatim::new([]).find("abc", 0), None);
    }
}
