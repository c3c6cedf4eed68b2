//! Resizing as Pillow does it, to the last bit: bilinear with antialiasing, one pass along each axis, each rounded
//! to bytes, weights as integers of 22 bits behind the point (Pillow's Resample.c, read for what it computes).

use crate::rgb::Rgb;

/// Bits of a weight behind the point: a sum of bytes times weights and its sign just fit 32 bits.
const BITS: u32 = 22;
/// Bytes of a pixel.
const RGB: usize = 3;

/// What one row or column of the result is made of.
struct Taps {
    /// The first row or column that has a part in it.
    first: usize,
    /// The weight of each from there on, in 2⁻²².
    weights: Vec<i32>,
}

/// The picture at `width` × `height`, `[height, width, 3]`.
pub(crate) fn resize(picture: &Rgb, width: usize, height: usize) -> Vec<u8> {
    let (from_width, from_height) = (picture.width(), picture.height());
    let (across, down) = (taps(from_width, width), taps(from_height, height));
    if columns_first(from_width, from_height, height) {
        let low = along_columns(picture.data(), from_width, &down);
        along_rows(&low, from_width, &across)
    } else {
        let narrow = along_rows(picture.data(), from_width, &across);
        along_columns(&narrow, width, &down)
    }
}

/// Does Pillow (13) shorten columns before rows? The order shows, because bytes are rounded between the passes. Found
/// by comparing results for squares; Pillow before 13 does so only where a picture is 100 times as high as wide.
fn columns_first(from_width: usize, from_height: usize, height: usize) -> bool {
    height < from_height && from_height + height > 2 * from_width
}

/// The weights for `to` positions of `from`: a triangle as wide as the positions are apart, at least two pixels,
/// cut off at the edges.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let step = from as f64 / to as f64;
    let half = step.max(1.0);
    let of = |i: usize| {
        let center = (i as f64 + 0.5) * step;
        // Casts cut off at zero, as wanted.
        let first = (center - half + 0.5) as usize;
        let end = ((center + half + 0.5) as usize).min(from);
        let weight = |at: usize| (1.0 - ((at as f64 - center + 0.5) * (1.0 / half)).abs()).max(0.0);
        let total: f64 = (first..end).map(weight).sum();
        let fixed = |at| (weight(at) / total * f64::from(1 << BITS) + 0.5) as i32;
        Taps { first, weights: (first..end).map(fixed).collect() }
    };
    (0..to).map(of).collect()
}

/// A sum of bytes times weights, rounded to a byte.
fn byte(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// What is added to every sum, so that it is rounded and not cut off.
const HALF: i32 = 1 << (BITS - 1);

/// Each row of `width` pixels resized to as many as there are taps.
fn along_rows(bytes: &[u8], width: usize, taps: &[Taps]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / width * taps.len());
    for row in bytes.chunks_exact(width * RGB) {
        for of in taps {
            let mut sum = [HALF; RGB];
            let pixels = row[of.first * RGB..].as_chunks::<RGB>().0;
            for (pixel, weight) in pixels.iter().zip(&of.weights) {
                for (sum, value) in sum.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            out.extend(sum.map(byte));
        }
    }
    out
}

/// Each column resized to as many pixels as there are taps, in a picture with rows of `width` pixels.
fn along_columns(bytes: &[u8], width: usize, taps: &[Taps]) -> Vec<u8> {
    let row = width * RGB;
    let mut out = Vec::with_capacity(row * taps.len());
    let mut sums = vec![HALF; row];
    for of in taps {
        sums.fill(HALF);
        for (from, weight) in bytes[of.first * row..].chunks_exact(row).zip(&of.weights) {
            for (sum, value) in sums.iter_mut().zip(from) {
                *sum += i32::from(*value) * weight;
            }
        }
        out.extend(sums.iter().map(|sum| byte(*sum)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_of_one_colour_stays_one() {
        for (width, height, to) in [(1, 1, 5), (3, 200, 7), (64, 64, 64), (301, 7, 16)] {
            let of = |value: u8| Rgb::new(width, height, vec![value; width * height * RGB]);
            for value in [0, 1, 127, 254, 255] {
                let picture = of(value).expect("of that size");
                assert_eq!(resize(&picture, to, to), vec![value; to * to * RGB]);
            }
        }
    }

    #[test]
    fn weights_add_up_to_one() {
        for (from, to) in [(1, 9), (9, 1), (640, 896), (3000, 896), (896, 896)] {
            for of in taps(from, to) {
                assert!(of.first + of.weights.len() <= from && !of.weights.is_empty());
                let total: i64 = of.weights.iter().map(|w| i64::from(*w)).sum();
                // Each is off by half a unit at most.
                let off = (total - (1 << BITS)).unsigned_abs() as usize;
                assert!(off * 2 <= of.weights.len(), "{from} to {to}: {total}");
            }
        }
    }
}
