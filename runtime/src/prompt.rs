//! What a sequence is fed: tokens, some of which stand for the rows of images.
//!
//! An image takes a run of positions. In the list of tokens that run is the model's image soft
//! token again and again, so that a prompt with images can be printed, counted and compared like
//! any other; beside the list stands which run is which image.

use std::sync::Arc;

use crate::error::RuntimeError;
use crate::vision::ImageRows;

/// An image and the position of its first row.
#[derive(Clone, Debug, PartialEq)]
struct Placed {
    start: usize,
    image: Arc<ImageRows>,
}

impl Placed {
    fn end(&self) -> usize {
        self.start + self.image.len()
    }
}

/// Tokens and images in the order in which a model reads them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    tokens: Vec<u32>,
    /// By position, without overlap.
    images: Vec<Placed>,
}

impl Prompt {
    /// No tokens.
    pub fn new() -> Self {
        Prompt::default()
    }

    /// Puts images in the place of the runs of `soft` in `tokens`: the first image takes as many
    /// soft tokens as it has rows, at the first of them, the next one those that follow.
    ///
    /// # Errors
    /// [`RuntimeError::ImagePlaces`] when soft tokens or images are left over, or a run is too
    /// short for its image.
    pub fn with_images(
        tokens: Vec<u32>,
        soft: u32,
        images: impl IntoIterator<Item = Arc<ImageRows>>,
    ) -> Result<Self, RuntimeError> {
        let count = tokens.iter().filter(|&&t| t == soft).count();
        let mut placed: Vec<Placed> = Vec::new();
        let (mut at, mut rows, mut fits) = (0, 0, true);
        for image in images {
            let start = at + tokens[at..].iter().take_while(|&&t| t != soft).count();
            let run = tokens[start..].iter().take(image.len()).take_while(|&&t| t == soft).count();
            fits &= run == image.len();
            rows += image.len();
            at = start + run;
            placed.push(Placed { start, image });
        }
        if !fits || rows != count {
            return Err(RuntimeError::ImagePlaces {
                soft,
                places: count,
                images: placed.len(),
                rows,
            });
        }
        Ok(Prompt { tokens, images: placed })
    }

    /// Appends a token.
    pub fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }

    /// Appends an image: as many times `soft` as it has rows.
    pub fn push_image(&mut self, soft: u32, image: Arc<ImageRows>) {
        let start = self.tokens.len();
        self.tokens.resize(start + image.len(), soft);
        self.images.push(Placed { start, image });
    }

    /// Appends what is in `more`.
    pub fn extend<'a>(&mut self, more: impl Into<PromptSlice<'a>>) {
        let more = more.into();
        let start = self.tokens.len();
        self.tokens.extend_from_slice(more.tokens);
        let images = more.images();
        self.images.extend(images.map(|(at, i)| Placed { start: start + at, image: i.clone() }));
    }

    /// Keeps the first `len` tokens.
    ///
    /// # Panics
    /// When that would cut an image.
    pub fn truncate(&mut self, len: usize) {
        if len < self.tokens.len() {
            let kept = self.as_slice().split_at(len).0.images.len();
            self.tokens.truncate(len);
            self.images.truncate(kept);
        }
    }

    /// The tokens, image soft tokens included.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// All of it, borrowed.
    pub fn as_slice(&self) -> PromptSlice<'_> {
        PromptSlice { tokens: &self.tokens, images: &self.images, offset: 0 }
    }
}

impl From<Vec<u32>> for Prompt {
    fn from(tokens: Vec<u32>) -> Self {
        Prompt { tokens, images: Vec::new() }
    }
}

/// A part of a [`Prompt`], or tokens alone, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct PromptSlice<'a> {
    tokens: &'a [u32],
    images: &'a [Placed],
    /// What the images' positions are counted from.
    offset: usize,
}

impl<'a> PromptSlice<'a> {
    /// The tokens, image soft tokens included.
    pub fn tokens(&self) -> &'a [u32] {
        self.tokens
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The images, each with the position of its first row.
    pub fn images(&self) -> impl Iterator<Item = (usize, &'a Arc<ImageRows>)> + use<'a> {
        let offset = self.offset;
        self.images.iter().map(move |p| (p.start - offset, &p.image))
    }

    /// The last place up to `at` where cutting harms no image: `at` itself, or the beginning of the
    /// image that it lies in.
    pub fn whole(&self, at: usize) -> usize {
        let at = at.min(self.len());
        let before = self.images.partition_point(|p| p.start - self.offset < at);
        match self.images[..before].last() {
            Some(p) if p.end() - self.offset > at => p.start - self.offset,
            _ => at,
        }
    }

    /// What is before `at`, and the rest.
    ///
    /// # Panics
    /// When `at` is past the end or within an image.
    pub fn split_at(&self, at: usize) -> (Self, Self) {
        assert_eq!(self.whole(at), at, "an image is never cut");
        let (before, after) = self.tokens.split_at(at);
        let cut = self.images.partition_point(|p| p.start - self.offset < at);
        let (first, rest) = self.images.split_at(cut);
        (
            PromptSlice { tokens: before, images: first, offset: self.offset },
            PromptSlice { tokens: after, images: rest, offset: self.offset + at },
        )
    }

    /// How many positions at the beginning of both are the same, no image cut: tokens by their
    /// ids, images by their features.
    pub fn common(&self, other: PromptSlice<'_>) -> usize {
        let same = |(a, b): &(&u32, &u32)| a == b;
        let mut n = self.tokens.iter().zip(other.tokens).take_while(same).count();
        let (mut a, mut b) = (self.images(), other.images());
        loop {
            match (a.next(), b.next()) {
                (None, None) => break,
                (x, y) if x == y => {}
                (x, y) => {
                    let first = [x, y].into_iter().flatten().map(|(at, _)| at).min();
                    n = n.min(first.unwrap_or(n));
                    break;
                }
            }
        }
        self.whole(n)
    }
}

impl<'a> From<&'a Prompt> for PromptSlice<'a> {
    fn from(p: &'a Prompt) -> Self {
        p.as_slice()
    }
}

impl<'a> From<&'a [u32]> for PromptSlice<'a> {
    fn from(tokens: &'a [u32]) -> Self {
        PromptSlice { tokens, images: &[], offset: 0 }
    }
}

impl<'a> From<&'a Vec<u32>> for PromptSlice<'a> {
    fn from(tokens: &'a Vec<u32>) -> Self {
        tokens.as_slice().into()
    }
}

impl<'a, const N: usize> From<&'a [u32; N]> for PromptSlice<'a> {
    fn from(tokens: &'a [u32; N]) -> Self {
        tokens.as_slice().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFT: u32 = 9;

    fn image(rows: usize, value: f32) -> Arc<ImageRows> {
        Arc::new(ImageRows::new(2, vec![value; rows * 2]))
    }

    /// 1 2 [3 rows] 3 [2 rows] 4
    fn prompt() -> Prompt {
        let mut p = Prompt::new();
        p.extend(&[1, 2]);
        p.push_image(SOFT, image(3, 0.5));
        p.push(3);
        p.push_image(SOFT, image(2, 0.25));
        p.push(4);
        p
    }

    #[test]
    fn images_take_runs_of_soft_tokens() {
        let tokens = vec![1, 2, 9, 9, 9, 3, 9, 9, 4];
        let images = [image(3, 0.5), image(2, 0.25)];
        assert_eq!(Prompt::with_images(tokens.clone(), SOFT, images.clone()).unwrap(), prompt());
        // One run may hold several, and no image none.
        let adjacent = Prompt::with_images(vec![9, 9, 9, 9, 9], SOFT, images.clone()).unwrap();
        assert_eq!(adjacent.as_slice().images().map(|(at, _)| at).collect::<Vec<_>>(), [0, 3]);
        assert!(Prompt::with_images(vec![1, 2], SOFT, []).is_ok());
        // Too few images, too many, a run too short, or none at all.
        let [a, b] = images;
        for (tokens, images) in [
            (tokens.clone(), vec![a.clone()]),
            (tokens.clone(), vec![a.clone(), b.clone(), b.clone()]),
            (tokens, vec![b.clone(), a.clone()]),
            (vec![1, 2, 3], vec![a.clone()]),
            (vec![9, 9, 1, 9], vec![a]),
        ] {
            let e = Prompt::with_images(tokens, SOFT, images).unwrap_err();
            assert!(matches!(e, RuntimeError::ImagePlaces { .. }), "{e}");
        }
    }

    #[test]
    fn cuts_spare_images() {
        let p = prompt();
        let s = p.as_slice();
        let whole: Vec<usize> = (0..11).map(|at| s.whole(at)).collect();
        assert_eq!(whole, [0, 1, 2, 2, 2, 5, 6, 6, 8, 9, 9]);
        let (before, after) = s.split_at(5);
        assert_eq!(before.images().map(|(at, _)| at).collect::<Vec<_>>(), [2]);
        assert_eq!(after.images().map(|(at, _)| at).collect::<Vec<_>>(), [1]);
        assert_eq!((after.whole(2), after.whole(3)), (1, 3));
        let (_, rest) = after.split_at(3);
        assert_eq!((rest.tokens(), rest.images().count()), (&[4][..], 0));
        let mut joined = Prompt::new();
        joined.extend(before);
        joined.extend(after);
        assert_eq!(joined, p);
        joined.truncate(6);
        assert_eq!((joined.len(), joined.as_slice().images().count()), (6, 1));
    }

    #[test]
    #[should_panic(expected = "never cut")]
    fn images_are_not_cut() {
        prompt().truncate(4);
    }

    #[test]
    fn common_beginnings_compare_images_by_content() {
        let p = prompt();
        let with = |first: f32, second: f32, last: u32| {
            let tokens = vec![1, 2, 9, 9, 9, 3, 9, 9, last];
            Prompt::with_images(tokens, SOFT, [image(3, first), image(2, second)]).unwrap()
        };
        let common = |q: &Prompt| p.as_slice().common(q.as_slice());
        assert_eq!(common(&with(0.5, 0.25, 4)), 9);
        assert_eq!(common(&with(0.5, 0.25, 7)), 8);
        assert_eq!(common(&with(0.5, 0.0, 4)), 6);
        assert_eq!(common(&with(0.0, 0.25, 4)), 2);
        // The same tokens, but no image behind them.
        assert_eq!(p.as_slice().common(PromptSlice::from(p.tokens())), 2);
        assert_eq!(PromptSlice::from(p.tokens()).common(p.as_slice()), 2);
        // An image that the other ends in.
        assert_eq!(p.as_slice().common(PromptSlice::from(&[1, 2, 9])), 2);
        assert_eq!(common(&Prompt::new()), 0);
    }
}
