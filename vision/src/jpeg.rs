//! JPEG files, with the arithmetic of libjpeg-turbo, which Pillow and most viewers use: what a JPEG's colours are
//! to the last bit is not in its standard.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use libjpeg_turbo_rs::{DecodeLimits, Decoder, FrameHeader, JpegError, PixelFormat};

use crate::decode::{MAX_PIXELS, check_size};
use crate::error::PictureError;

/// The most scans of a progressive file: encoders write about ten, and each goes over the whole picture.
const MAX_SCANS: usize = 256;

/// The picture, upright. See [`Rgb::decode`](crate::Rgb::decode) for the errors.
pub(crate) fn decode(bytes: &[u8]) -> Result<DynamicImage, PictureError> {
    let limits = DecodeLimits {
        max_scans: MAX_SCANS,
        max_memory: Some(12 * MAX_PIXELS),
        ..DecodeLimits::default()
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(damaged)?;
    let header = decoder.header();
    check_size(header.width.into(), header.height.into())?;
    if !is_usual(header) {
        return Err(PictureError::Unsupported {
            format: "lossless, 12-bit and oddly sampled JPEG",
        });
    }
    let of_ink = header.components.len() == 4;
    decoder.set_output_format(if of_ink { PixelFormat::Cmyk } else { PixelFormat::Rgb });
    let orientation = decoder.exif_orientation().and_then(Orientation::from_exif);
    let picture = decoder.decode_image().map_err(damaged)?;
    let data = match of_ink {
        true => picture.data.as_chunks::<4>().0.iter().flat_map(|ink| light(*ink)).collect(),
        false => picture.data,
    };
    let rgb = RgbImage::from_raw(picture.width as u32, picture.height as u32, data);
    let rgb =
        rgb.ok_or_else(|| PictureError::Damaged("it has other pixels than it says".into()))?;
    let mut picture = DynamicImage::ImageRgb8(rgb);
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(picture)
}

/// Is it 8-bit grey, colour or CMYK, with a first component (and black) that has the most samples, and others that
/// have a whole fraction of them? The decoder is not made for less usual ones, and may panic.
fn is_usual(header: &FrameHeader) -> bool {
    let sampling = |i: usize| {
        let of = &header.components[i];
        (of.horizontal_sampling, of.vertical_sampling)
    };
    let count = header.components.len();
    if header.precision != 8 || header.is_lossless || !matches!(count, 1 | 3 | 4) {
        return false;
    }
    let (most_h, most_v) = sampling(0);
    let divides = |of: u8, most: u8| of > 0 && most.is_multiple_of(of);
    (0..count).map(sampling).all(|(h, v)| divides(h, most_h) && divides(v, most_v))
        && (count < 4 || sampling(3) == sampling(0))
}

/// Red, green and blue of the four values of a CMYK pixel, which are taken for the light that the inks leave, as Adobe's
/// programs write them and Pillow reads them: each product with black's is rounded to the nearest of 255.
fn light([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let product = |a: u8, b: u8| {
        let t = u32::from(a) * u32::from(b) + 128;
        (((t >> 8) + t) >> 8) as u8
    };
    [cyan, magenta, yellow].map(|left| black - product(255 - left, black))
}

fn damaged(e: JpegError) -> PictureError {
    match e {
        JpegError::UnexpectedEof => PictureError::Damaged("it ends too early".into()),
        e => PictureError::Damaged(e.to_string()),
    }
}
