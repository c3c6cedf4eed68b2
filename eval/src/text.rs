//! A text as tokens, and the windows of it that a model reads.

use std::ops::Range;

use runtime::tokenizer::{Kind, Special, Tokenizer};

use crate::EvalError;

/// A text, tokenized once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The tokens, BOS in front where the model adds one.
    pub ids: Vec<u32>,
    /// What the first token of each window is replaced with: BOS, where the model adds one.
    pub bos: Option<u32>,
    /// UTF-8 bytes that each token stands for.
    bytes: Vec<u32>,
}

impl Text {
    /// Tokenizes `text`. Spellings of control tokens in it are text.
    pub fn new(tokenizer: &Tokenizer, text: &str) -> Self {
        let special = tokenizer.special();
        let bos = special.bos.filter(|_| special.add_bos);
        let ids: Vec<u32> = bos.into_iter().chain(tokenizer.encode(text, Special::Plain)).collect();
        let bytes = ids.iter().map(|&id| token_bytes(tokenizer, id)).collect();
        Text { ids, bos, bytes }
    }

    /// A text of tokens that stand for one byte each.
    #[cfg(test)]
    pub(crate) fn from_ids(ids: Vec<u32>, bos: Option<u32>) -> Self {
        let bytes = vec![1; ids.len()];
        Text { ids, bos, bytes }
    }

    /// UTF-8 bytes that the tokens of a range stand for.
    pub fn bytes(&self, range: Range<usize>) -> u64 {
        self.bytes[range].iter().map(|&b| u64::from(b)).sum()
    }

    /// The windows of `ctx` tokens that `scheme` reads, at most `limit` of them.
    ///
    /// # Errors
    /// [`EvalError::WindowTooSmall`], [`EvalError::TextTooShort`] or [`EvalError::Stride`].
    pub fn windows(
        &self,
        ctx: usize,
        scheme: Scheme,
        limit: Option<usize>,
    ) -> Result<Vec<Window>, EvalError> {
        let n = self.ids.len();
        if ctx < 4 {
            return Err(EvalError::WindowTooSmall { ctx });
        }
        let mut windows = Vec::new();
        match scheme {
            Scheme::SecondHalf => {
                if n < ctx {
                    return Err(EvalError::TextTooShort { tokens: n, ctx });
                }
                let cut = |i| Window { start: i * ctx, len: ctx, first: ctx / 2 + 1 };
                windows.extend((0..n / ctx).map(cut));
            }
            Scheme::Stride(stride) => {
                if stride == 0 || stride >= ctx {
                    return Err(EvalError::Stride { stride, ctx });
                }
                if n < 2 {
                    return Err(EvalError::TextTooShort { tokens: n, ctx });
                }
                let mut done = 1; // the first token has nothing to be predicted from
                let mut start = 0;
                while done < n {
                    let end = (start + ctx).min(n);
                    windows.push(Window { start, len: end - start, first: done - start });
                    done = end;
                    start += stride;
                }
            }
        }
        windows.truncate(limit.unwrap_or(usize::MAX));
        Ok(windows)
    }

    /// The tokens of a window as the model reads them: the first replaced by BOS.
    pub fn window(&self, w: &Window) -> Vec<u32> {
        let mut ids = self.ids[w.start..w.start + w.len].to_vec();
        if let (Some(first), Some(bos)) = (ids.first_mut(), self.bos) {
            *first = bos;
        }
        ids
    }
}

/// Bytes of text that one token stands for; none for control tokens.
fn token_bytes(tokenizer: &Tokenizer, id: u32) -> u32 {
    match tokenizer.kind(id) {
        Kind::Byte => 1,
        Kind::Control | Kind::Unknown | Kind::Unused => 0,
        _ => {
            let text = tokenizer.token_text(id).unwrap_or("");
            // U+2581 stands for a space: three bytes of the vocabulary, one of the text.
            (text.len() - 2 * text.matches('\u{2581}').count()) as u32
        }
    }
}

/// How a text longer than a window is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// As `llama-perplexity` does: windows side by side, the second half of each scored (logits of
    /// rows `ctx/2 ..= ctx-2`), so that every scored token has at least half a window before it.
    SecondHalf,
    /// As the Transformers guide "Perplexity of fixed-length models" does: windows advance by so
    /// many tokens, and each token is scored once, in the first window that reaches it. Unlike
    /// there, every window begins with BOS, without which Gemma predicts nothing sensible.
    Stride(usize),
}

/// A part of the text that is read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first token's place in the text.
    pub start: usize,
    /// Tokens.
    pub len: usize,
    /// The first token, counted from `start`, whose prediction is scored; all after it are too.
    pub first: usize,
}

impl Window {
    /// Number of tokens scored.
    pub fn scored(&self) -> usize {
        self.len - self.first
    }

    /// Cuts the window into batches of at most `rows` rows of which at most `wanted` want logits:
    /// ranges of the window's tokens, and how many at the end of each predict a scored token. The
    /// last token predicts nothing that is scored and is not read.
    pub fn batches(&self, rows: usize, wanted: usize) -> Vec<(Range<usize>, usize)> {
        let (end, from) = (self.len - 1, self.first - 1);
        let mut batches = Vec::new();
        let mut at = 0;
        while at < end {
            let to = end.min(at + rows).min(at.max(from) + wanted);
            batches.push((at..to, to.saturating_sub(at.max(from))));
            at = to;
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(n: usize) -> Text {
        Text::from_ids((0..n as u32).collect(), Some(99))
    }

    #[test]
    fn second_halves_are_those_of_llama_perplexity() {
        let t = text(1025);
        let windows = t.windows(512, Scheme::SecondHalf, None).unwrap();
        assert_eq!(windows.len(), 2, "what is left over is not read");
        // 512 - 256 - 1 tokens each, the first of them token 257, predicted by row 256.
        assert!(windows.iter().all(|w| w.scored() == 255 && w.first == 257));
        let ids = t.window(&windows[1]);
        assert_eq!((ids[0], ids[1], ids[511]), (99, 513, 1023));
        assert_eq!(t.windows(512, Scheme::SecondHalf, Some(1)).unwrap().len(), 1);
    }

    #[test]
    fn strides_score_every_token_once() {
        for (n, ctx, stride) in [(100, 16, 5), (100, 16, 15), (10, 16, 3), (33, 8, 1), (2, 4, 2)] {
            let mut seen = vec![0; n];
            for w in text(n).windows(ctx, Scheme::Stride(stride), None).unwrap() {
                assert!(w.len <= ctx && w.first >= 1);
                seen[w.start + w.first..w.start + w.len].iter_mut().for_each(|s| *s += 1);
            }
            assert_eq!(seen[0], 0);
            assert!(seen[1..].iter().all(|&s| s == 1), "{n} {ctx} {stride}: {seen:?}");
        }
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        assert!(text(10).windows(16, Scheme::SecondHalf, None).is_err());
        assert!(text(10).windows(3, Scheme::SecondHalf, None).is_err());
        assert!(text(100).windows(16, Scheme::Stride(16), None).is_err());
        assert!(text(100).windows(16, Scheme::Stride(0), None).is_err());
        assert!(text(1).windows(16, Scheme::Stride(4), None).is_err());
    }

    #[test]
    fn batches_cover_the_window() {
        for (len, first) in [(512, 257), (512, 1), (16, 15), (2, 1), (100, 60)] {
            let w = Window { start: 0, len, first };
            for (rows, wanted) in [(512, 512), (64, 64), (128, 7), (5, 100), (1, 1)] {
                let batches = w.batches(rows, wanted);
                assert_eq!(batches.iter().map(|b| b.1).sum::<usize>(), w.scored());
                assert_eq!(batches.first().unwrap().0.start, 0);
                assert_eq!(batches.last().unwrap().0.end, len - 1);
                assert!(batches.windows(2).all(|b| b[0].0.end == b[1].0.start));
                assert!(batches.iter().all(|b| b.0.len() <= rows && b.1 <= wanted.min(b.0.len())));
            }
        }
    }
}
