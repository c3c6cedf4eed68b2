//! Resizing as Pillow does it: bilinear with antialiasing, on bytes.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::rgb::Rgb;

/// The picture at `width` × `height`, `[height, width, 3]`.
pub(crate) fn resize(picture: &Rgb, width: usize, height: usize) -> Vec<u8> {
    const FITS: &str = "three bytes for each pixel";
    let mut bytes = vec![0; width * height * 3];
    let (from_width, from_height) = (picture.width() as u32, picture.height() as u32);
    let source = TypedImageRef::<U8x3>::from_buffer(from_width, from_height, picture.data());
    let mut out =
        TypedImage::<U8x3>::from_buffer(width as u32, height as u32, &mut bytes).expect(FITS);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    // Of one type only: compiling the library's code for all of them takes a minute.
    Resizer::new().resize_typed(&source.expect(FITS), &mut out, &options).expect("two pictures");
    bytes
}
