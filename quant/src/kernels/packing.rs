//! Activations of many tokens, laid out once for all threads.
//!
//! The tiles of some instruction sets read activations in packs (see [`panel`](super::panel)). A caller
//! who knows which weights come next may lay them out itself, while the rows are at hand and each part by
//! the thread that has it; otherwise each thread does it for itself when it multiplies.

use std::ops::Range;

use super::Kernels;
use super::isa::Active;
use super::panel::Shape;
use crate::DType;
use crate::codec::QK;

/// How `n` tokens of `cols` activations lie: in tiles of tokens, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Packing {
    pub(super) form: Form,
    /// The most tokens of a tile.
    pub(super) tile: usize,
    pub(super) n: usize,
    pub(super) cols: usize,
}

/// What becomes of each activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// They are quantized, and lie with their scales as [`panel`](super::panel) says.
    Q8(Shape),
    /// They are rounded to bf16: `[cols / 32][tokens][32]` of them a tile.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Bf16,
}

impl Form {
    /// Columns of a group.
    fn group(self) -> usize {
        match self {
            Form::Q8(shape) => shape.group,
            Form::Bf16 => QK,
        }
    }

    /// Bytes of a group of `tokens` tokens.
    fn pack_bytes(self, tokens: usize) -> usize {
        match self {
            Form::Q8(shape) => shape.pack_bytes(tokens),
            Form::Bf16 => tokens * QK * 2,
        }
    }
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
        self.cols / self.form.group() * self.form.pack_bytes(self.n)
    }

    /// Where some columns of a tile's tokens lie: those of `tile`, one of [`tiles`], whole blocks of 32.
    pub fn place(&self, tile: &Range<usize>, columns: Range<usize>) -> Range<usize> {
        let (group, cols) = (self.form.group(), self.cols);
        assert!(tile.end <= self.n && columns.end <= cols);
        let first = self.form.pack_bytes(tile.start) * (cols / group);
        let stride = self.form.pack_bytes(tile.len());
        first + columns.start / group * stride..first + columns.end / group * stride
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
        let active = self.active_for(dtype);
        let (tile, few) = active.tile()?;
        let shape = Shape::of(dtype)?;
        let form = match active {
            #[cfg(target_arch = "x86_64")]
            Active::AmxBf16(_) => Form::Bf16,
            _ => Form::Q8(shape),
        };
        (n > few).then_some(Packing { form, tile, n, cols })
    }

    /// [`quantize`](Kernels::quantize)s some columns (whole blocks) of the `t`-th of a tile's `tokens`, or
    /// rounds them to bf16, and puts them where they belong in `out`, the [`place`](Packing::place) of these
    /// columns.
    ///
    /// # Panics
    /// When the lengths do not fit.
    pub fn quantize_packed(
        &self,
        x: &[f32],
        packing: &Packing,
        (t, tokens): (usize, usize),
        out: &mut [u8],
    ) {
        const BLOCKS: usize = 4;
        let (mut q, mut scale, mut sum) = ([0i8; BLOCKS * QK], [0.0; BLOCKS], [0; BLOCKS]);
        let shape = match (packing.form, self.active) {
            (Form::Q8(shape), _) => shape,
            #[cfg(target_arch = "x86_64")]
            (Form::Bf16, Active::AmxBf16(isa)) => return isa.pack(x, (t, tokens), out),
            (Form::Bf16, _) => panic!("a packing of other kernels"),
        };
        let groups = QK / shape.group;
        let stride = shape.pack_bytes(tokens) * groups;
        assert!(x.len().is_multiple_of(QK) && out.len() == x.len() / QK * stride && t < tokens);
        let done = match self.active.vectors() {
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(isa) if groups == 1 => {
                isa.quantize_packed(x, shape, (t, tokens), out)
            }
            _ => 0,
        };
        let (x, out) = (&x[done * QK..], &mut out[done * stride..]);
        for (x, out) in x.chunks(BLOCKS * QK).zip(out.chunks_mut(BLOCKS * stride)) {
            let blocks = x.len() / QK;
            let q = &mut q[..x.len()];
            self.active.quantize(x, q, &mut scale[..blocks], &mut sum[..blocks]);
            shape.pack_token(t, tokens, q, &scale[..blocks], &sum[..blocks], out);
        }
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
            Active::AmxBf16(_) => Some(super::amx::TILE),
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(isa) => Some(isa.tile()),
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
