//! Float matmuls in 16-bit fixed point: twice the multiply-adds of f32 where the CPU multiplies
//! pairs of 16-bit integers (`vpdpwssd`, `vpmaddwd`), at a small fraction of bf16's rounding.
//!
//! Both factors are cut along the depth (the dimension that is summed over) into blocks that share
//! an f32 scale, value = q · scale. A block's scale is the smallest for which its quants fit 16 bits
//! and have a Euclidean norm of at most [`NORM`]: by Cauchy and Schwarz no sum of products of two
//! such blocks, nor any part of it, exceeds 2³¹, however long the blocks are. Of `n` values of one
//! size the quants are then about `NORM / √n`: for blocks of 192 the rounding is 1e-4 of the values'
//! size, where bf16's is 8e-4.
//!
//! # Layout
//!
//! A factor is [`pack`](Kernels::pack_fixed)ed in groups of rows, [`PANEL`] of the one and [`TILE`] of
//! the other. Of each block of a group the quants are `[len / 2][rows][2]`, so that a pair of one row
//! is one 32-bit word and the pairs of all rows lie side by side, and the scales `[rows]`. The kernel
//! loads the pairs of a panel as vectors and multiplies each with the pair of one row of the tile in
//! all lanes. Missing rows and values are zeros.

use super::Kernels;
#[cfg(target_arch = "x86_64")]
use super::isa::Active;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod columns;
mod portable;

/// Rows of a panel: the lanes of the kernels' vectors.
pub const PANEL: usize = 32;
/// Rows of a tile.
pub const TILE: usize = 12;
/// The largest Euclidean norm of a block's quants. Rounding adds less than √len / 2 to it, which
/// leaves it below √2³¹ for blocks of up to 4096.
pub const NORM: f32 = 46_300.0;

/// How a depth is cut into blocks, all of one even length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Values of a block, even.
    pub len: usize,
    /// Number of blocks.
    pub count: usize,
}

impl Blocks {
    /// As few blocks as keep to `longest` values each.
    pub fn of(depth: usize, longest: usize) -> Self {
        let count = depth.div_ceil(longest).max(1);
        Blocks { len: depth.div_ceil(count).next_multiple_of(2), count }
    }

    /// 16-bit words of a group of `rows` rows.
    pub fn words(self, rows: usize) -> usize {
        self.len * self.count * rows
    }

    /// Scales of a group of `rows` rows.
    pub fn scales(self, rows: usize) -> usize {
        self.count * rows
    }
}

/// A panel times tiles.
#[derive(Debug)]
pub struct FixedJob<'a> {
    /// How the depth is cut.
    pub blocks: Blocks,
    /// One group of [`PANEL`] rows: `blocks.words(PANEL)` words.
    pub panel: &'a [i16],
    /// `blocks.scales(PANEL)` scales.
    pub panel_scale: &'a [f32],
    /// Groups of [`TILE`] rows, of each of which `blocks.count` blocks are multiplied.
    pub tiles: &'a [i16],
    /// Their scales.
    pub tile_scale: &'a [f32],
    /// Words from one tile to the next.
    pub tile_words: usize,
    /// Scales from one tile to the next.
    pub tile_scales: usize,
    /// Rows in the tiles.
    pub rows: usize,
}

impl FixedJob<'_> {
    /// Do the slices hold what the kernels read and write?
    fn check(&self, y: &[f32], ld: usize) {
        let Blocks { len, count } = self.blocks;
        assert!(len.is_multiple_of(2) && count > 0 && ld >= PANEL);
        assert!(self.panel.len() >= self.blocks.words(PANEL));
        assert!(self.panel_scale.len() >= self.blocks.scales(PANEL));
        let Some(last) = self.rows.div_ceil(TILE).checked_sub(1) else { return };
        assert!(self.tiles.len() >= last * self.tile_words + self.blocks.words(TILE));
        assert!(self.tile_scale.len() >= last * self.tile_scales + self.blocks.scales(TILE));
        assert!(y.len() >= (self.rows - 1) * ld + PANEL);
    }
}

impl Kernels {
    /// Do these kernels multiply pairs of 16-bit numbers faster than f32?
    pub fn has_fast_fixed(&self) -> bool {
        match self.active.vectors() {
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(_) | Active::AvxVnni(_) | Active::Avx2(_) => true,
            _ => false,
        }
    }

    /// Packs one block of `rows` rows: row `r` is `x[r * ld ..][.. n]`, with `n` at most `len`. `q` and
    /// `scale` are as long as a block of a group of `group` rows is, [`PANEL`] or [`TILE`].
    ///
    /// # Panics
    /// When the slices are too short.
    #[allow(clippy::too_many_arguments)]
    pub fn pack_fixed(
        &self,
        x: &[f32],
        ld: usize,
        n: usize,
        rows: usize,
        group: usize,
        q: &mut [i16],
        scale: &mut [f32],
    ) {
        assert!(group == PANEL || group == TILE);
        assert!(scale.len() == group && rows <= group && n * group <= q.len());
        assert!(q.len().is_multiple_of(2 * group) && n <= ld);
        assert!(rows == 0 || x.len() >= (rows - 1) * ld + n);
        let block = portable::Block { x, ld, n, rows, group };
        match self.active.vectors() {
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(isa) => avx512::pack(isa, block, q, scale),
            #[cfg(target_arch = "x86_64")]
            Active::AvxVnni(isa) => avx2::pack(isa.avx2(), block, q, scale),
            #[cfg(target_arch = "x86_64")]
            Active::Avx2(isa) => avx2::pack(isa, block, q, scale),
            _ => portable::pack(block, q, scale),
        }
    }

    /// Packs one block of tiles that lies the other way round: their rows are `columns` columns of `x`,
    /// column `c` being `x[i * ld + c]` for each `i` below `n`, which is at most `len`. Tiles are
    /// `len · TILE` words, one after the other, of which the last is filled up with zeros; so are the
    /// scales of `scale`.
    ///
    /// # Panics
    /// When the slices are too short.
    #[allow(clippy::too_many_arguments)]
    pub fn pack_fixed_columns(
        &self,
        x: &[f32],
        ld: usize,
        n: usize,
        columns: usize,
        len: usize,
        q: &mut [i16],
        scale: &mut [f32],
    ) {
        let tiles = columns.div_ceil(TILE);
        assert!(len.is_multiple_of(2) && n <= len && columns <= ld);
        assert!(q.len() == tiles * len * TILE && scale.len() == tiles * TILE);
        assert!(n == 0 || x.len() >= (n - 1) * ld + columns);
        let block = columns::Columns { x, ld, n, columns, len };
        match self.active.vectors() {
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(isa) => avx512::pack_columns(isa, block, q, scale),
            #[cfg(target_arch = "x86_64")]
            Active::AvxVnni(isa) => avx2::pack_columns(isa.avx2(), block, q, scale),
            #[cfg(target_arch = "x86_64")]
            Active::Avx2(isa) => avx2::pack_columns(isa, block, q, scale),
            _ => columns::pack(block, q, scale),
        }
    }

    /// `y[r * ld + i] = Σ_k tile row r [k] · panel row i [k]`, added to what is there if `add`; all
    /// [`PANEL`] columns of the tiles' rows are written.
    ///
    /// # Panics
    /// When the slices are too short.
    pub fn multiply_fixed(&self, job: &FixedJob<'_>, y: &mut [f32], ld: usize, add: bool) {
        job.check(y, ld);
        match self.active.vectors() {
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(isa) => avx512::multiply(isa, job, y, ld, add),
            #[cfg(target_arch = "x86_64")]
            Active::AvxVnni(isa) => avx2::multiply_vnni(isa, job, y, ld, add),
            #[cfg(target_arch = "x86_64")]
            Active::Avx2(isa) => avx2::multiply(isa, job, y, ld, add),
            _ => portable::multiply(job, y, ld, add),
        }
    }
}
