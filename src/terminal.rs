//! Pictures on a terminal.

use std::fmt::Write;
use std::io::IsTerminal;

use vision::{Area, Rgb};

/// Does standard output show 24-bit colour? Terminals say so in COLORTERM.
pub(crate) fn has_colour() -> bool {
    let says = std::env::var("COLORTERM").is_ok_and(|v| v == "truecolor" || v == "24bit");
    says && std::env::var_os("NO_COLOR").is_none() && std::io::stdout().is_terminal()
}

/// The picture in `columns` columns at most: each character is two pixels, one above the other,
/// the upper one its colour and the lower one its background.
pub(crate) fn half_blocks(picture: &Rgb, columns: usize) -> String {
    let (width, height) = (picture.width(), picture.height());
    let columns = columns.clamp(1, width);
    // Characters are about twice as high as wide, so that half of one is a square.
    let rows = (height * columns / width).clamp(2, 4 * columns).next_multiple_of(2);
    let mut out = String::new();
    for y in (0..rows).step_by(2) {
        for x in 0..columns {
            let [r, g, b] = mean(picture, x, columns, y, rows);
            let _ = write!(out, "\x1b[38;2;{r};{g};{b}m");
            let [r, g, b] = mean(picture, x, columns, y + 1, rows);
            let _ = write!(out, "\x1b[48;2;{r};{g};{b}m▀");
        }
        out.push_str("\x1b[0m\n");
    }
    out
}

/// The mean colour of cell (x, y) when the picture is divided into columns and rows.
fn mean(picture: &Rgb, x: usize, columns: usize, y: usize, rows: usize) -> [u8; 3] {
    let part = |i: usize, n: usize, length: usize| {
        let start = (i * length / n).min(length - 1);
        (start, ((i + 1) * length / n).clamp(start + 1, length) - start)
    };
    let (x, width) = part(x, columns, picture.width());
    let (y, height) = part(y, rows, picture.height());
    let cell = picture.crop(Area { x, y, width, height });
    let mut sums = [0usize; 3];
    for pixel in cell.data().as_chunks::<3>().0 {
        sums.iter_mut().zip(pixel).for_each(|(sum, v)| *sum += usize::from(*v));
    }
    sums.map(|sum| (sum / (width * height)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_two_pixels() {
        let picture = Rgb::new(1, 2, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let expected = "\x1b[38;2;1;2;3m\x1b[48;2;4;5;6m▀\x1b[0m\n";
        assert_eq!(half_blocks(&picture, 80), expected);
    }

    #[test]
    fn the_shape_is_kept_and_every_size_drawn() {
        let shape = |width: usize, height: usize, columns: usize| {
            let picture = Rgb::new(width, height, vec![9; width * height * 3]).unwrap();
            let text = half_blocks(&picture, columns);
            (text.lines().next().unwrap().matches('▀').count(), text.lines().count())
        };
        assert_eq!(shape(160, 120, 40), (40, 15));
        assert_eq!(shape(1, 1, 40), (1, 1));
        assert_eq!(shape(3, 1000, 40), (3, 6));
        assert_eq!(shape(1000, 3, 40), (40, 1));
    }
}
