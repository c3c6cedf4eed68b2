//! Resizing as Pillow does it: bilinear with antialiasing, on bytes.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::rgb::Rgb;

/// The picture at `width` × `height`, `[height, width, 3]`.
pub(crate) fn resize(picture: &Rgb, width: usize, height: usize) -> Vec<u8> {
    let (w, h) = (picture.width() as u32, picture.height() as u32);
    let source = ImageRef::new(w, h, picture.data(), PixelType::U8x3).expect("bytes of a picture");
    let mut out = Image::new(width as u32, height as u32, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize(&source, &mut out, &options).expect("two pictures of one type");
    out.into_vec()
}
