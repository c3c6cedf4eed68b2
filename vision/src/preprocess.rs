//! From a picture to the numbers that a vision tower reads.

use crate::resize::resize;
use crate::rgb::Rgb;

/// What a vision tower wants: stated in its file (`clip.vision.image_size`, `.image_mean` and
/// `.image_std` of an mmproj).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocessor {
    /// Pixels of each side.
    pub size: usize,
    /// Mean of each channel, where 1 is the brightest.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
}

impl Preprocessor {
    /// The picture, stretched to a square and normalized: `(x / 255 - mean) / std`,
    /// `[3, size, size]`.
    pub fn pixels(&self, picture: &Rgb) -> Vec<f32> {
        let resized = resize(picture, self.size, self.size);
        let plane = self.size * self.size;
        let mut out = vec![0.0; 3 * plane];
        for (c, out) in out.chunks_exact_mut(plane.max(1)).enumerate() {
            // Transformers multiplies in f64 and rounds, then goes on in f32.
            let table: Vec<f32> = (0..=255u8)
                .map(|v| ((f64::from(v) * (1.0 / 255.0)) as f32 - self.mean[c]) / self.std[c])
                .collect();
            for (out, rgb) in out.iter_mut().zip(resized.as_chunks::<3>().0) {
                *out = table[usize::from(rgb[c])];
            }
        }
        out
    }
}
