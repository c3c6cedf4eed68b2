//! Activations of many tokens, laid out once for all threads.
//!
//! The tiles of some instruction sets read activations in packs (see [`panel`](super::panel)). A caller
//! who knows which weights come next may lay them out itself, while the rows are at hand and each part by
//! the thread that has it; otherwise each thread does it for itself when it multiplies.

use std::ops::Range;

use super::isa::Active;
use super::panel::Shape;
use super::{Kernels, Rows};
use crate::DType;

/// How `n` tokens of `cols` activations lie: in tiles of tokens, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Packing {
    pub(super) shape: Shape,
    /// The most tokens of a tile.
    pub(super) tile: usize,
    pub(super) n: usize,
    pub(super) cols: usize,
}

/// Activations that were laid out.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// How they lie.
    pub packing: Packing,
    /// `packing.bytes()` bytes.
    pub bytes: &'a [u8],
}

impl Packing {
    /// Number of tokens, and of each one's activations.
    pub fn of(&self) -> (usize, usize) {
        (self.n, self.cols)
    }

    /// Bytes of all tokens.
    pub fn bytes(&self) -> usize {
        self.cols / self.shape.group * self.shape.pack_bytes(self.n)
    }

    /// Where some columns of a tile's tokens lie: those of `tile`, one of [`tiles`], whole blocks of 32.
    pub fn place(&self, tile: &Range<usize>, columns: Range<usize>) -> Range<usize> {
        let (group, cols) = (self.shape.group, self.cols);
        assert!(tile.end <= self.n && columns.end <= cols);
        let first = self.shape.pack_bytes(tile.start) * (cols / group);
        let stride = self.shape.pack_bytes(tile.len());
        first + columns.start / group * stride..first + columns.end / group * stride
    }

    /// Lays out the tokens of one tile, all columns or some: `x` holds nothing else, and `out` is as long
    /// as their [`place`](Packing::place).
    ///
    /// # Panics
    /// When the lengths do not fit.
    pub fn pack(&self, x: Rows<'_>, out: &mut [u8]) {
        assert_eq!(out.len(), x.cols / self.shape.group * self.shape.pack_bytes(x.n));
        self.shape.pack(x, 0, x.n, out);
    }
}

/// Cuts `n` tokens into tiles of at most `most`, which differ by at most one.
pub fn tiles(n: usize, most: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let count = n.div_ceil(most);
    (0..count).map(move |i| i * n / count..(i + 1) * n / count)
}

impl Kernels {
    /// How `n` tokens are laid out for weights of this type; `None` where they are read as they are.
    pub fn packing(&self, dtype: DType, n: usize, cols: usize) -> Option<Packing> {
        let (tile, few) = self.active_for(dtype).tile()?;
        let shape = Shape::of(dtype)?;
        (n > few).then_some(Packing { shape, tile, n, cols })
    }

    /// The most tokens of a tile, in the packings of all types; 1 where there are none.
    pub fn tile(&self) -> usize {
        self.active.tile().map_or(1, |(tile, _)| tile)
    }
}

impl Active {
    /// The most tokens of a tile, and up to how many tokens are not multiplied in tiles.
    fn tile(self) -> Option<(usize, usize)> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(_) => Some(super::avx512::TILE),
            #[cfg(target_arch = "x86_64")]
            Active::AvxVnni(_) | Active::Avx2(_) => Some(super::avx2::TILE),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover() {
        for n in 0..100 {
            let mut next = 0;
            for tile in tiles(n, 12) {
                assert!(tile.start == next && (1..=12).contains(&tile.len()));
                next = tile.end;
            }
            assert_eq!(next, n);
        }
    }
}
