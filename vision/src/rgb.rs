//! A picture in memory.

use image::DynamicImage;

use crate::pan_and_scan::Area;

/// An upright picture: 8 bits for each of red, green and blue.
#[derive(Clone, PartialEq, Eq)]
pub struct Rgb {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl std::fmt::Debug for Rgb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rgb({}×{})", self.width, self.height)
    }
}

impl Rgb {
    /// A picture from its bytes, `[height, width, 3]`; `None` when they are not that many, or none.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Option<Self> {
        let bytes = width.checked_mul(height)?.checked_mul(3)?;
        (bytes > 0 && data.len() == bytes).then_some(Rgb { width, height, data })
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes, `[height, width, 3]`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// A part of the picture.
    ///
    /// # Panics
    /// When the area is empty or not within the picture.
    pub fn crop(&self, area: Area) -> Rgb {
        let inside = area.x + area.width <= self.width && area.y + area.height <= self.height;
        assert!(inside && area.width * area.height > 0, "{area:?} of {self:?}");
        let rows = self.data.chunks_exact(self.width * 3).skip(area.y).take(area.height);
        let data = rows.flat_map(|row| &row[area.x * 3..][..area.width * 3]).copied().collect();
        Rgb { width: area.width, height: area.height, data }
    }

    /// What Pillow's `convert("RGB")` makes of each kind of pixel, transparency laid over white as
    /// Transformers' `convert_to_rgb` does.
    ///
    /// Of 16 bits a channel Pillow reads the upper 8, but 16-bit grey without alpha it keeps whole
    /// and then cuts off at 255: such a picture is white to the model unless its values are small.
    pub(crate) fn from_decoded(image: DynamicImage) -> Option<Rgb> {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let upper = |v: u16| (v >> 8) as u8;
        let data = match image {
            DynamicImage::ImageRgb8(i) => i.into_raw(),
            DynamicImage::ImageLuma8(i) => each(&i, |[v]| [v; 3]),
            DynamicImage::ImageLumaA8(i) => each(&i, |[v, a]| [over_white(v, a); 3]),
            DynamicImage::ImageRgba8(i) => {
                each(&i, |[r, g, b, a]| [r, g, b].map(|v| over_white(v, a)))
            }
            DynamicImage::ImageLuma16(i) => each(&i, |[v]| [v.min(255) as u8; 3]),
            DynamicImage::ImageLumaA16(i) => each(&i, |[v, a]| [over_white(upper(v), upper(a)); 3]),
            DynamicImage::ImageRgb16(i) => each(&i, |rgb: [u16; 3]| rgb.map(upper)),
            DynamicImage::ImageRgba16(i) => {
                each(&i, |[r, g, b, a]| [r, g, b].map(|v| over_white(upper(v), upper(a))))
            }
            other => other.into_rgb8().into_raw(),
        };
        Rgb::new(width, height, data)
    }
}

/// Each pixel of `N` channels to three bytes.
fn each<T: Copy, const N: usize>(values: &[T], rgb: impl Fn([T; N]) -> [u8; 3]) -> Vec<u8> {
    values.as_chunks::<N>().0.iter().flat_map(|&pixel| rgb(pixel)).collect()
}

/// A value of opacity `alpha` / 255 in front of white, rounded to the nearest.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transparency_shows_white() {
        assert_eq!(over_white(7, 0), 255);
        assert_eq!(over_white(7, 255), 7);
        assert_eq!(over_white(0, 128), 127);
    }

    #[test]
    fn a_crop_is_a_part() {
        let rgb = Rgb::new(3, 2, (0..18).collect()).unwrap();
        let crop = rgb.crop(Area { x: 1, y: 1, width: 2, height: 1 });
        assert_eq!(crop.data(), [12, 13, 14, 15, 16, 17]);
        assert_eq!(Rgb::new(0, 5, vec![]), None);
        assert_eq!(Rgb::new(2, 2, vec![0; 11]), None);
    }
}
