//! Images that were seen before.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::rows::content_hash;
use super::{ImageRows, VisionTower};
use crate::error::RuntimeError;

/// A tower that remembers what it made of the latest images, so that a second question about a
/// picture starts at once.
pub struct ImageCache {
    tower: VisionTower,
    /// Latest last.
    seen: Vec<(Key, Arc<ImageRows>)>,
    capacity: usize,
}

/// Two hashes of an image's pixels with different beginnings: 128 bits, so that no two images that
/// anyone has meet.
type Key = [u64; 2];

impl ImageCache {
    /// Remembers up to `capacity` images: 2.6 MB each for Gemma 3 4B.
    pub fn new(tower: VisionTower, capacity: usize) -> Self {
        ImageCache { tower, seen: Vec::new(), capacity: capacity.max(1) }
    }

    /// The tower.
    pub fn tower(&self) -> &VisionTower {
        &self.tower
    }

    /// The tower, to have it look elsewhere.
    pub fn tower_mut(&mut self) -> &mut VisionTower {
        &mut self.tower
    }

    /// The features of an image, and whether they were remembered.
    ///
    /// # Errors
    /// As [`VisionTower::encode`].
    pub fn encode(
        &mut self,
        pixels: &[f32],
        cancel: &AtomicBool,
    ) -> Result<(Arc<ImageRows>, bool), RuntimeError> {
        let key = [content_hash(0, pixels), content_hash(1, pixels)];
        if let Some(at) = self.seen.iter().position(|(k, _)| *k == key) {
            let found = self.seen.remove(at);
            let rows = found.1.clone();
            self.seen.push(found);
            return Ok((rows, true));
        }
        let rows = Arc::new(self.tower.encode(pixels, cancel)?);
        if self.seen.len() == self.capacity {
            self.seen.remove(0);
        }
        self.seen.push((key, rows.clone()));
        Ok((rows, false))
    }
}
