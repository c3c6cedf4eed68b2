//! What can be wrong with a picture.

use std::path::PathBuf;

use crate::decode::{MAX_FILE_BYTES, MAX_PIXELS};

/// A file that is no picture, or not one that can be read within bounds.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum PictureError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: Box<PictureError> },
    #[error("it is empty")]
    Empty,
    #[error("it is no PNG, JPEG, WebP, GIF or BMP picture")]
    Unknown,
    #[error("{format} pictures are not read; convert it to PNG, JPEG, WebP, GIF or BMP")]
    Unsupported { format: &'static str },
    #[error("the file has {bytes} bytes; at most {MAX_FILE_BYTES} are read")]
    FileSize { bytes: u64 },
    #[error(
        "it claims {width}×{height} pixels; at most {MAX_PIXELS} in all are read, so scale it down"
    )]
    TooLarge { width: u32, height: u32 },
    #[error("it claims {width}×{height} pixels: there is nothing to see")]
    NoPixels { width: u32, height: u32 },
    #[error("the file is cut off or damaged: {0}")]
    Damaged(String),
}
