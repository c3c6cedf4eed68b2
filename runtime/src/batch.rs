//! What one call of the forward pass works on.

use std::sync::Arc;

use crate::vision::ImageRows;

/// Where a row of a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The token.
    pub token: u32,
    /// The sequence of the cache that it belongs to.
    pub seq: usize,
    /// Its position in that sequence; positions of one sequence follow each other.
    pub pos: usize,
}

/// An image in a batch.
#[derive(Clone, Debug)]
pub(crate) struct BatchImage {
    /// Index of the row that its first one stands in; the others follow.
    pub(crate) start: usize,
    pub(crate) image: Arc<ImageRows>,
}

/// Rows that go through the model together, of one sequence or of many: tokens, and images.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The rows, in order.
    pub rows: Vec<Row>,
    /// Indices of the rows whose logits are wanted, ascending.
    pub wanted: Vec<usize>,
    /// By row, without overlap.
    images: Vec<BatchImage>,
}

impl Batch {
    /// No rows, the allocations kept.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.wanted.clear();
        self.images.clear();
    }

    /// Adds a row; `logits` asks for its logits.
    pub fn push(&mut self, row: Row, logits: bool) {
        if logits {
            self.wanted.push(self.rows.len());
        }
        self.rows.push(row);
    }

    /// Puts an image in the place of the last rows, as many as it has. What goes through the model
    /// there are its features, not the rows' tokens, and each of them sees all of them.
    ///
    /// # Panics
    /// When there are fewer rows, or they are an image's already.
    pub fn place_image(&mut self, image: Arc<ImageRows>) {
        let start = self.rows.len().checked_sub(image.len()).expect("rows for the image");
        let free = self.images.last().is_none_or(|i| i.start + i.image.len() <= start);
        assert!(free, "these rows are another image's");
        self.images.push(BatchImage { start, image });
    }

    pub(crate) fn images(&self) -> &[BatchImage] {
        &self.images
    }

    fn image_of(&self, row: usize) -> Option<&BatchImage> {
        let before = self.images.partition_point(|i| i.start <= row);
        self.images[..before].last().filter(|i| row < i.start + i.image.len())
    }

    /// The features that go in at `row`, where it is an image's; else its token's embedding does.
    pub fn features(&self, row: usize) -> Option<&[f32]> {
        self.image_of(row).map(|i| i.image.row(row - i.start))
    }

    /// The end of what `row` sees: the position after its own or, within an image, after the
    /// image's last.
    pub fn sees_to(&self, row: usize) -> usize {
        let more = self.image_of(row).map_or(0, |i| i.start + i.image.len() - 1 - row);
        self.rows[row].pos + 1 + more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_an_image_see_all_of_it() {
        let mut batch = Batch::default();
        let image = Arc::new(ImageRows::new(1, vec![0.5, 0.25, 0.125]));
        for pos in 10..16 {
            batch.push(Row { token: 7, seq: 0, pos }, false);
            if pos == 13 {
                batch.place_image(image.clone());
            }
        }
        let ends: Vec<usize> = (0..6).map(|row| batch.sees_to(row)).collect();
        assert_eq!(ends, [11, 14, 14, 14, 15, 16]);
        let features: Vec<_> = (0..6).map(|row| batch.features(row)).collect();
        let [a, b, c] = [0, 1, 2].map(|i| Some(image.row(i)));
        assert_eq!(features, [None, a, b, c, None, None]);
        batch.clear();
        assert!(batch.images().is_empty());
    }

    #[test]
    #[should_panic(expected = "another image's")]
    fn images_do_not_overlap() {
        let mut batch = Batch::default();
        let image = Arc::new(ImageRows::new(1, vec![0.5]));
        batch.push(Row { token: 7, seq: 0, pos: 0 }, false);
        batch.place_image(image.clone());
        batch.place_image(image);
    }
}
