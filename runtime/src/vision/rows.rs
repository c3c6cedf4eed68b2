//! The features of one image.

use std::fmt;
use std::hash::Hasher;

/// The features of one image: what a vision tower makes of its pixels, one row for each position
/// that the image takes in a sequence. They go into the residual stream as they are, not scaled by
/// √hidden as embeddings are.
#[derive(Clone, PartialEq)]
pub struct ImageRows {
    // Compared first, so that different images are told apart at once.
    hash: u64,
    width: usize,
    data: Box<[f32]>,
}

impl ImageRows {
    /// Rows of `width` features each, row after row.
    ///
    /// # Panics
    /// When there is no row, or the last one is not whole.
    pub fn new(width: usize, data: impl Into<Box<[f32]>>) -> Self {
        let data = data.into();
        let whole = width > 0 && data.len().is_multiple_of(width) && !data.is_empty();
        assert!(whole, "{} features are no rows of {width}", data.len());
        ImageRows { hash: content_hash(0, &data), width, data }
    }

    /// Number of rows: positions that the image takes.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.data.len() / self.width
    }

    /// Features of a row: the hidden size of the model that it is for.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.width..][..self.width]
    }

    /// All rows, `[len, width]`.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// A hash of the features: images with different ones differ.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl fmt::Debug for ImageRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ImageRows { hash, width, .. } = self;
        write!(f, "ImageRows([{}, {width}], {hash:016x})", self.len())
    }
}

/// A hash of floats as they lie in memory. The same within a run of the program, not beyond.
pub(super) fn content_hash(seed: u8, x: &[f32]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write_u8(seed);
    hasher.write(bytemuck::cast_slice(x));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_compared_by_content() {
        let image = ImageRows::new(3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!((image.len(), image.width(), image.row(1)), (2, 3, &[4.0, 5.0, 6.0][..]));
        assert_eq!(image, ImageRows::new(3, image.data().to_vec()));
        let other = ImageRows::new(3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.5]);
        assert!(image != other && image.hash() != other.hash());
        assert_ne!(image, ImageRows::new(2, image.data().to_vec()));
    }

    #[test]
    #[should_panic(expected = "no rows of 4")]
    fn rows_are_whole() {
        ImageRows::new(4, vec![0.0; 6]);
    }
}
