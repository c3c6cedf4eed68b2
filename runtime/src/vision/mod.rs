//! Images as a model reads them: rows of features in the place of tokens, and the tower that makes
//! them of pixels.
//!
//! Gemma 3's tower is SigLIP (Zhai et al., arXiv:2303.15343): a vision transformer over the patches
//! of a square image, whose output is averaged over squares of patches, normed and projected to the
//! text model's width (Gemma 3 report, arXiv:2503.19786). Its weights lie in a GGUF file of their
//! own, `mmproj-*.gguf`.
//!
//! Everything is computed for all patches of an image at once, so that arithmetic is what bounds
//! it: see [`Precision`].

mod activations;
mod attention;
mod batched;
mod cache;
mod config;
mod find;
mod int8;
mod linear;
mod memory;
mod ops;
mod precision;
mod rows;
mod tower;
pub(crate) mod weights;
mod workers;

pub use cache::ImageCache;
pub use config::VisionConfig;
pub use find::find_mmproj;
pub use precision::Precision;
pub use rows::ImageRows;
pub use tower::{VisionOptions, VisionTower};
