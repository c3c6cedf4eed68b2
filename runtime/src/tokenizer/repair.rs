//! What files get wrong about their own tokens, and what is done about it.

use super::decode::byte_of;
use super::vocab::{Kind, SPACE, Vocab};

/// Gemma's control tokens: special in its `tokenizer.json`, whatever a file makes of them.
const GEMMA_CONTROL: [&str; 10] = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
];

/// Sets right the kinds that a token's text contradicts. Some files, quantization-aware training
/// checkpoints among them, have control tokens as normal (then they would be shown, and never
/// found in a prompt) or as user-defined (then users could type them).
///
/// Says whether control tokens were marked normal: such a file has lost the user-defined ones too.
/// Of those, the runs of newlines and spaces are set right here, and the rest by [`unreachable`],
/// which needs the vocabulary indexed.
pub(super) fn kinds(vocab: &mut Vocab, warnings: &mut Vec<String>) -> bool {
    let mut were_normal = Vec::new();
    let mut were_user_defined = Vec::new();
    for id in 0..vocab.len() as u32 {
        let text = vocab.text(id);
        let kind = vocab.kind(id);
        if !text.starts_with('<') || !kind.merges() {
            continue;
        }
        if GEMMA_CONTROL.contains(&text) {
            let marked = match kind {
                Kind::Normal => &mut were_normal,
                _ => &mut were_user_defined,
            };
            marked.push(text.to_string());
            vocab.set_kind(id, Kind::Control);
        } else if byte_of(text).is_some() {
            vocab.set_kind(id, Kind::Byte);
        }
    }
    for (marked, texts) in [("normal", &were_normal), ("user-defined", &were_user_defined)] {
        if !texts.is_empty() {
            warnings.push(format!(
                "the file marks {} as {marked}; treated as control tokens",
                texts.join(", ")
            ));
        }
    }
    if were_normal.is_empty() {
        return false;
    }
    for id in 0..vocab.len() as u32 {
        let text = vocab.text(id);
        if vocab.kind(id) == Kind::Normal && is_run(text) && !text.starts_with('\t') {
            vocab.set_kind(id, Kind::UserDefined);
        }
    }
    true
}

/// Makes user-defined what is marked normal, looks like markup, and is out of reach of merging:
/// no two pieces make it. A normal piece always has two, since that is how it was found in
/// training; such a one would be dead in the file, and the tokenizer that the model was trained
/// with matches it verbatim. Only for files known to have lost such marks.
pub(super) fn unreachable(vocab: &mut Vocab, warnings: &mut Vec<String>) {
    let reachable = |text: &str| {
        let merges = |part: &str| {
            vocab.find(part.as_bytes()).is_some_and(|found| vocab.kind(found.id).merges())
        };
        text.char_indices().skip(1).any(|(at, _)| merges(&text[..at]) && merges(&text[at..]))
    };
    let dead: Vec<u32> = (0..vocab.len() as u32)
        .filter(|&id| {
            let text = vocab.text(id);
            vocab.kind(id) == Kind::Normal
                && (text.starts_with('<') && text.ends_with('>')
                    || text.starts_with('[') && text.ends_with(']'))
                && text.len() > 2
                && !reachable(text)
        })
        .collect();
    for &id in &dead {
        vocab.set_kind(id, Kind::UserDefined);
    }
    if let Some(&first) = dead.first() {
        warnings.push(format!(
            "{} tokens marked normal that no merge makes, {:?} the first, are matched verbatim",
            dead.len(),
            vocab.text(first)
        ));
    }
}

/// Runs of white space whose order the file does not tell.
///
/// In Gemma's `tokenizer.json` the merges begin with the runs of newlines, spaces and tabs, the
/// longest first. `tokenizer.model`, and with it a file from llama.cpp's converter, has one score
/// for all user-defined runs, and tabs last and the wrong way round. Where it is like that, all
/// runs go before everything else, and [`merge`](super::merge) does the longest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs {
    unordered: bool,
}

impl Runs {
    /// Looks at the scores of Gemma's user-defined runs.
    pub(super) fn new(vocab: &Vocab, scores: &[f32]) -> Self {
        let mut seen = (0..vocab.len() as u32)
            .filter(|&id| vocab.kind(id) == Kind::UserDefined && is_run(vocab.text(id)))
            .map(|id| scores[id as usize]);
        let unordered = match (seen.next(), seen.next()) {
            (Some(first), Some(second)) => first == second && seen.all(|score| score == first),
            _ => false,
        };
        Runs { unordered }
    }

    /// Is this token a run to be done before everything else?
    pub(super) fn contains(self, vocab: &Vocab, id: u32) -> bool {
        self.unordered && is_run(vocab.text(id))
    }
}

/// Two or more of the same white space.
fn is_run(text: &str) -> bool {
    ["\n", "\t", SPACE].iter().any(|&unit| {
        text.len() > unit.len()
            && text.len().is_multiple_of(unit.len())
            && text.as_bytes().chunks_exact(unit.len()).all(|chunk| chunk == unit.as_bytes())
    })
}
