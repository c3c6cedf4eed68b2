//! JPEG files, with the arithmetic of libjpeg-turbo, which Pillow and most viewers use: what a JPEG's colours are
//! to the last bit is not in its standard.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use libjpeg_turbo_rs::{DecodeLimits, Decoder, JpegError, PixelFormat};

use crate::decode::{MAX_PIXELS, check_size};
use crate::error::PictureError;

/// The most scans of a progressive file: encoders write about ten, and each goes over the whole picture.
const MAX_SCANS: usize = 256;

/// The picture, upright. See [`Rgb::decode`](crate::Rgb::decode) for the errors.
pub(crate) fn decode(bytes: &[u8]) -> Result<DynamicImage, PictureError> {
    check(bytes)?;
    let limits = DecodeLimits {
        max_scans: MAX_SCANS,
        max_memory: Some(12 * MAX_PIXELS),
        ..DecodeLimits::default()
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(damaged)?;
    let header = decoder.header();
    check_size(header.width.into(), header.height.into())?;
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

/// Checks that the picture has an end: the decoder would fill what is missing with grey.
///
/// Markers: ITU T.81, annex B. In the data of a scan a byte 0xFF is followed by 0 or by a restart
/// marker, so that no other marker can be found in it by mistake.
fn check(bytes: &[u8]) -> Result<(), PictureError> {
    const END: u8 = 0xD9;
    let mut at = 2; // after the marker of the start
    loop {
        let found = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF));
        let cut = || PictureError::Damaged("the JPEG data has no end".into());
        at += found.ok_or_else(cut)? + 1;
        match *bytes.get(at).ok_or_else(cut)? {
            END => return Ok(()),
            // Bytes of a scan, restarts, and a marker without a segment.
            0 | 1 | 0xD0..=0xD8 => at += 1,
            // Fill bytes: the next one may be the marker.
            0xFF => {}
            _ => {
                let length = bytes.get(at + 1..at + 3).ok_or_else(cut)?;
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}
