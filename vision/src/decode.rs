//! From a file's bytes to a picture, within bounds.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::error::PictureError;
use crate::rgb::Rgb;

/// The largest file that is read: 256 MiB.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// The most pixels that are read, 2²⁷ (134 million: 16384 × 8192). A decoder may hold twelve bytes
/// for each while it works, so that no file takes more than about 1.6 GB.
pub const MAX_PIXELS: u64 = 1 << 27;

/// The endings of the names of files that can be read, in small letters. What a file is, its bytes
/// decide; these are for telling a picture's path from other words.
pub const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "webp", "gif", "bmp"];

impl Rgb {
    /// Reads a picture file: see [`Rgb::decode`].
    ///
    /// # Errors
    /// [`PictureError::Io`], or [`PictureError::File`] with what [`Rgb::decode`] says.
    pub fn open(path: impl AsRef<Path>) -> Result<Rgb, PictureError> {
        let path = path.as_ref();
        let bytes = read(path).map_err(|source| PictureError::Io { path: path.into(), source })?;
        Rgb::decode(&bytes)
            .map_err(|source| PictureError::File { path: path.into(), source: Box::new(source) })
    }

    /// Decodes a PNG, JPEG, WebP, GIF or BMP file (of animations the first frame), turns it upright
    /// as its EXIF orientation says, and lays it over white where it is transparent.
    ///
    /// # Errors
    /// [`PictureError`], but for `Io` and `File`. What is refused for its size, [`MAX_FILE_BYTES`]
    /// or [`MAX_PIXELS`], is refused before memory is taken for it.
    pub fn decode(bytes: &[u8]) -> Result<Rgb, PictureError> {
        if bytes.is_empty() {
            return Err(PictureError::Empty);
        }
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(PictureError::FileSize { bytes: bytes.len() as u64 });
        }
        let format = format(bytes)?;
        let image = match format {
            ImageFormat::Jpeg => crate::jpeg::decode(bytes)?,
            _ => decode(bytes, format)?,
        };
        let (width, height) = (image.width(), image.height());
        Rgb::from_decoded(image).ok_or(PictureError::NoPixels { width, height })
    }
}

/// The picture in a file that is no JPEG, upright.
fn decode(bytes: &[u8], format: ImageFormat) -> Result<DynamicImage, PictureError> {
    if format == ImageFormat::WebP {
        crate::webp::check(bytes)?;
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(8 * MAX_PIXELS);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    // Metadata that cannot be read is no reason not to show the picture.
    let orientation = decoder.orientation();
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    if let Ok(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(image)
}

/// Refuses what is too large, and what is nothing.
pub(crate) fn check_size(width: u32, height: u32) -> Result<(), PictureError> {
    match u64::from(width) * u64::from(height) {
        0 => Err(PictureError::NoPixels { width, height }),
        1..=MAX_PIXELS => Ok(()),
        _ => Err(PictureError::TooLarge { width, height }),
    }
}

/// A file's bytes; one byte more than allowed is enough to know that it is too long.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    // Before it is opened: Windows refuses to open a folder, with less to say, and a pipe would wait.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The format, by the first bytes.
fn format(bytes: &[u8]) -> Result<ImageFormat, PictureError> {
    let unsupported = |format| Err(PictureError::Unsupported { format });
    match image::guess_format(bytes) {
        Ok(
            format @ (ImageFormat::Png
            | ImageFormat::Jpeg
            | ImageFormat::WebP
            | ImageFormat::Gif
            | ImageFormat::Bmp),
        ) => Ok(format),
        Ok(ImageFormat::Tiff) => unsupported("TIFF"),
        Ok(ImageFormat::Avif) => unsupported("AVIF"),
        Ok(ImageFormat::Ico) => unsupported("ICO"),
        _ if bytes.get(4..8) == Some(b"ftyp") => unsupported("HEIC and other ISO media"),
        _ => Err(PictureError::Unknown),
    }
}

fn damaged(e: ImageError) -> PictureError {
    match e {
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            PictureError::Damaged("it ends too early".into())
        }
        e => PictureError::Damaged(e.to_string()),
    }
}
