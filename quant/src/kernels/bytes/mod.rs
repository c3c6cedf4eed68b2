//! Products of 8-bit numbers that are made on the spot, for attention: twice the multiply-adds of
//! [`fixed`](super::fixed) where the CPU multiplies unsigned with signed bytes (`vpdpbusd`), at int8's
//! rounding.
//!
//! The depth is one block: a row has one scale, value = q · scale with |q| ≤ 127. Sums of bytes fit
//! 32 bits whatever the depth (up to 65536). Where both factors are signed, 128 is added to the
//! panel's quants, and a tile's row brings along what is to be subtracted for that.
//!
//! # Layout
//!
//! As [`fixed`](super::fixed)'s, with fours instead of pairs: `[len / 4][rows][4]`, [`PANEL`] rows of the
//! one factor, [`TILE`] of the other.

use super::Kernels;
use super::fixed::{PANEL, TILE};
#[cfg(target_arch = "x86_64")]
use super::isa::Active;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// A panel of unsigned bytes times tiles of signed ones.
#[derive(Debug)]
pub struct BytesJob<'a> {
    /// Values of a row, a multiple of 4.
    pub len: usize,
    /// `len · PANEL` bytes.
    pub panel: &'a [u8],
    /// [`PANEL`] scales.
    pub panel_scale: &'a [f32],
    /// Groups of [`TILE`] rows, `stride` groups from one to the next: `len · TILE` bytes each.
    pub tiles: &'a [i8],
    /// Their scales.
    pub tile_scale: &'a [f32],
    /// What each row's sums begin with.
    pub tile_start: &'a [i32],
    /// Groups from one tile to the next.
    pub stride: usize,
    /// Rows in the tiles.
    pub rows: usize,
}

impl BytesJob<'_> {
    /// Do the slices hold what the kernels read and write?
    fn check(&self, y: &[f32], ld: usize) {
        assert!(self.len.is_multiple_of(4) && self.len <= 1 << 16 && ld >= PANEL);
        assert!(self.panel.len() >= self.len * PANEL && self.panel_scale.len() >= PANEL);
        assert!(self.stride > 0);
        let Some(last) = self.rows.div_ceil(TILE).checked_sub(1) else { return };
        let groups = last * self.stride + 1;
        assert!(self.tiles.len() >= groups * self.len * TILE);
        assert!(self.tile_scale.len() >= groups * TILE && self.tile_start.len() >= groups * TILE);
        assert!(y.len() >= (self.rows - 1) * ld + PANEL);
    }
}

impl Kernels {
    /// Do these kernels multiply bytes twice as fast as 16-bit numbers?
    pub fn has_fast_bytes(&self) -> bool {
        match self.active.vectors() {
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(_) | Active::AvxVnni(_) => true,
            _ => false,
        }
    }

    /// Packs [`PANEL`] rows, of which there are `rows`, as value = (q - 128) · scale: row `r` is
    /// `x[r * ld ..][.. n]`. `q` is as long as a multiple of 4 values of a panel, at least `n`.
    ///
    /// # Panics
    /// When the slices are too short.
    pub fn pack_panel_bytes(
        &self,
        x: &[f32],
        ld: usize,
        n: usize,
        rows: usize,
        q: &mut [u8],
        scale: &mut [f32],
    ) {
        let mut start = [0; PANEL];
        self.pack_bytes(
            portable::Block { x, ld, n, rows, group: PANEL, flip: 0x80 },
            q,
            scale,
            &mut start,
        );
    }

    /// Packs [`TILE`] rows, of which there are `rows`, as value = q · scale, and what sums with a
    /// panel of [`pack_panel_bytes`](Self::pack_panel_bytes) begin with. Otherwise as there.
    ///
    /// # Panics
    /// When the slices are too short.
    #[allow(clippy::too_many_arguments)]
    pub fn pack_tile_bytes(
        &self,
        x: &[f32],
        ld: usize,
        n: usize,
        rows: usize,
        q: &mut [i8],
        scale: &mut [f32],
        start: &mut [i32],
    ) {
        let block = portable::Block { x, ld, n, rows, group: TILE, flip: 0 };
        self.pack_bytes(block, bytemuck::cast_slice_mut(q), scale, start);
    }

    fn pack_bytes(
        &self,
        block: portable::Block<'_>,
        q: &mut [u8],
        scale: &mut [f32],
        start: &mut [i32],
    ) {
        let portable::Block { n, rows, group, .. } = block;
        assert!(scale.len() == group && start.len() == group && rows <= group);
        assert!(q.len().is_multiple_of(4 * group) && n * group <= q.len());
        match self.active.vectors() {
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(isa) => avx512::pack(isa, block, q, scale, start),
            #[cfg(target_arch = "x86_64")]
            Active::AvxVnni(isa) => avx2::pack(isa.avx2(), block, q, scale, start),
            #[cfg(target_arch = "x86_64")]
            Active::Avx2(isa) => avx2::pack(isa, block, q, scale, start),
            _ => portable::pack(block, q, scale, start),
        }
    }

    /// `y[r * ld + i] = (start[r] + Σ_k tile row r [k] · panel row i [k]) · both scales`, added to what is
    /// there if `add`; all [`PANEL`] columns of the tiles' rows are written.
    ///
    /// # Panics
    /// When the slices are too short.
    pub fn multiply_bytes(&self, job: &BytesJob<'_>, y: &mut [f32], ld: usize, add: bool) {
        job.check(y, ld);
        match self.active.vectors() {
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(isa) => avx512::multiply(isa, job, y, ld, add),
            #[cfg(target_arch = "x86_64")]
            Active::AvxVnni(isa) => avx2::multiply(isa, job, y, ld, add),
            _ => portable::multiply(job, y, ld, add),
        }
    }
}
