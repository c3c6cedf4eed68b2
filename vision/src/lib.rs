//! Pictures to pixels: what a vision tower wants to see of a PNG, JPEG, WebP, GIF or BMP file.
//!
//! [`Rgb::decode`] makes upright 8-bit RGB of a file's bytes, within stated bounds of time and
//! memory; [`Preprocessor::pixels`] resizes and normalizes it; [`PanAndScan::crops`] says which
//! parts of a long picture are looked at again, larger. All of it follows Transformers'
//! `Gemma3ImageProcessor`, whose arithmetic is Pillow's.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use lapidary_vision::{PanAndScan, Preprocessor, Rgb};
//! let gemma = Preprocessor { size: 896, mean: [0.5; 3], std: [0.5; 3] };
//! let picture = Rgb::open("cat.jpg")?;
//! let mut views = vec![gemma.pixels(&picture)];
//! for area in PanAndScan::default().crops(picture.width(), picture.height()) {
//!     views.push(gemma.pixels(&picture.crop(area)));
//! }
//! # Ok(())
//! # }
//! ```

mod decode;
mod error;
mod jpeg;
mod pan_and_scan;
mod preprocess;
mod resize;
mod rgb;
mod webp;

pub use decode::{EXTENSIONS, MAX_FILE_BYTES, MAX_PIXELS};
pub use error::PictureError;
pub use pan_and_scan::{Area, PanAndScan};
pub use preprocess::Preprocessor;
pub use rgb::Rgb;
