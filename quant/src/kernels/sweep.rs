//! The loops around the tiles, the same for every instruction set: tokens in batches, columns in
//! pieces, rows in strips; what is unpacked and packed when, and what is asked for ahead of its use.
//!
//! A tile reads its panel and its pack as two slow forward streams (with AVX-512 576 and 520 bytes a group,
//! every 130 cycles on a Zen 4), which the second-level cache sustains without loss. So as many columns are
//! taken as have their packs there, or whole rows (up to [`COLS`] columns) where those would be few; then
//! packs lie further away, and each is read once for several strips.

use super::packing::tiles;
use super::panel::{Layout, Lines, Shape};
use super::streams::Ask;
use super::{Job, Scratch, cache};
use crate::Matrix;
use crate::codec::QK;

/// Rows of a strip.
pub(super) const ROWS: usize = 16;
/// The most columns that are taken at once: a panel of 16 rows is then 148 KiB.
const COLS: usize = 8192;
/// What the panels of the strips that share a pass over the tokens may take of the second-level cache.
const PANELS: usize = 256 << 10;
/// The most tokens whose packs are made at once.
const BATCH: usize = 516;

/// Where the rows of a strip begin, or the same column of each.
#[derive(Clone, Copy)]
pub(super) struct At {
    first: *const u8,
    stride: usize,
}

impl At {
    /// Row `r`.
    #[inline(always)]
    pub(super) fn row(self, r: usize) -> *const u8 {
        self.first.wrapping_add(r * self.stride)
    }

    /// `bytes` further on in every row.
    #[inline(always)]
    pub(super) fn skip(self, bytes: usize) -> At {
        At { first: self.first.wrapping_add(bytes), ..self }
    }

    /// Without the first `rows` rows.
    #[inline(always)]
    pub(super) fn below(self, rows: usize) -> At {
        At { first: self.row(rows), ..self }
    }

    /// Rows `r0 .. r0 + 16` of `w`. Where there are fewer before `end`, they are copied to `spare`, and
    /// zeros (in every format, weights of zero) stand for the others.
    pub(super) fn strip(w: Matrix<'_>, r0: usize, end: usize, spare: &mut Lines) -> At {
        let stride = w.row_bytes();
        let n = ROWS.min(end - r0);
        let data = &w.data()[r0 * stride..][..n * stride];
        if n == ROWS {
            return At { first: data.as_ptr(), stride };
        }
        let spare = &mut spare.at_least(ROWS * stride)[..ROWS * stride];
        spare[..data.len()].copy_from_slice(data);
        spare[data.len()..].fill(0);
        At { first: spare.as_ptr(), stride }
    }
}

/// One call of a tile kernel.
pub(super) struct Tile<'a> {
    /// `groups` groups of 16 rows, on a 64-byte boundary; where there are more `rows`, those of the next 16
    /// lie after them.
    pub(super) panel: *const u8,
    /// `groups` groups of as many tokens as the tile has.
    pub(super) pack: *const u8,
    /// Is this the first that is done with the pack, so that it lies further away?
    pub(super) far: bool,
    pub(super) groups: usize,
    /// The results of the first token; may be written for `rows` rows.
    pub(super) y: *mut f32,
    /// From one token's results to the next's.
    pub(super) ld: usize,
    /// Rows that there are: 1 to 16 for each strip of the kernel's tiles.
    pub(super) rows: usize,
    /// Is `y` to be set, rather than added to?
    pub(super) first: bool,
    /// What comes after these rows: a step is due with every group.
    pub(super) ask: &'a mut Ask,
}

/// What [`sweep`] must know of a format and a tile kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    pub(super) shape: Shape,
    /// Weights a block of the file.
    pub(super) block_len: usize,
    /// Bytes a block of the file.
    pub(super) block_bytes: usize,
    /// The most tokens of a tile.
    pub(super) tokens: usize,
    /// The most strips of a tile.
    pub(super) strips: usize,
}

/// Multiplies everything that `job` asks for. `unpack(at, groups, panel)` unpacks the first `groups`
/// groups of the rows at `at`; `tile(tile, tokens)` multiplies.
pub(super) fn sweep(
    kernel: Sweep,
    job: Job<'_>,
    scratch: &mut Scratch,
    unpack: impl Fn(At, usize, *mut u8),
    tile: impl Fn(Tile<'_>, usize),
) {
    let Job { w, rows, x, y, ld } = job;
    let rows0 = rows.start;
    let wanted = scratch.wanted(rows.end, w.rows());
    let Sweep { shape, block_len, block_bytes, tokens: most, strips: of_tile } = kernel;
    assert_eq!(w.row_bytes(), x.cols / block_len * block_bytes);
    let token_bytes = x.cols / shape.group * shape.pack_bytes(1);
    let batches = tiles(x.n, if x.packed.is_some() { x.n } else { BATCH });
    for batch in batches {
        let (n0, n) = (batch.start, batch.len());
        let pack = match x.packed {
            Some(packed) => packed.bytes,
            None => {
                let layout = Layout { tile: most, shape, tokens: (n0, n), cols: x.cols };
                let (pack, there) = scratch.pack.keep(layout, n * token_bytes);
                if !there {
                    for tile in tiles(n, most) {
                        let out = &mut pack[tile.start * token_bytes..tile.end * token_bytes];
                        shape.pack(x, n0 + tile.start, tile.len(), out);
                    }
                }
                pack
            }
        };
        let piece = block_len.max(QK);
        for piece_cols in tiles(x.cols / piece, most_cols(n, shape) / piece) {
            let (c0, cols) = (piece_cols.start * piece, piece_cols.len() * piece);
            let groups = cols / shape.group;
            let panel_bytes = groups * shape.panel_bytes(ROWS);
            let strips = (PANELS / panel_bytes).min(n / 32).clamp(1, 8).next_multiple_of(of_tile);
            let panels = scratch.panel.at_least(strips * panel_bytes);
            let (from, len) = (c0 / block_len * block_bytes, cols / block_len * block_bytes);
            for s0 in rows.clone().step_by(ROWS * strips) {
                let end = rows.end.min(s0 + ROWS * strips);
                for (r0, panel) in (s0..end).step_by(ROWS).zip(panels.chunks_mut(panel_bytes)) {
                    let at = At::strip(w, r0, end, &mut scratch.spare);
                    unpack(at.skip(from), groups, panel.as_mut_ptr());
                }
                let next = w.data().as_ptr().wrapping_add(end * w.row_bytes() + from);
                let coming = (ROWS * strips).min(wanted - end);
                let steps = n.div_ceil(most) * strips.div_ceil(of_tile) * groups;
                let mut ask = Ask::new(next, coming, len, w.row_bytes(), steps);
                for of in tiles(n, most) {
                    let (t0, tokens) = (of.start, of.len());
                    let at = t0 * token_bytes + c0 / shape.group * shape.pack_bytes(tokens);
                    let pack = pack[at..][..groups * shape.pack_bytes(tokens)].as_ptr();
                    let (height, bytes) = (of_tile * ROWS, of_tile * panel_bytes);
                    for (r0, panel) in (s0..end).step_by(height).zip(panels.chunks(bytes)) {
                        let rows = height.min(end - r0);
                        let y = &mut y[(n0 + t0) * ld + (r0 - rows0)..];
                        let y = &mut y[..(tokens - 1) * ld + rows];
                        let (panel, y) = (panel.as_ptr(), y.as_mut_ptr());
                        let (far, first) = (r0 == s0, c0 == 0);
                        let ask = &mut ask;
                        tile(Tile { panel, pack, far, groups, y, ld, rows, first, ask }, tokens);
                    }
                }
            }
        }
    }
}

/// The most columns that are taken at once for `n` tokens: those whose packs stay in the second-level
/// cache, so that all strips find them there, or whole rows where those would be few.
fn most_cols(n: usize, shape: Shape) -> usize {
    /// Weights and results take the rest of the cache.
    const PACKS: f32 = 0.4;
    /// Below that, results are read again too often.
    const FEW: usize = 1024;
    let bytes = (PACKS * cache::second_level() as f32) as usize;
    let cols = bytes / (n * shape.pack_bytes(1)) * shape.group;
    if cols < FEW { COLS } else { cols.min(COLS) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::kernels::isa::{Active, Tiling};
    use crate::kernels::{Avx512Vnni, AvxVnni, Kernels, Rows};

    /// `y` of `n` tokens, after a column that must stay as it is.
    fn multiply(kernels: Kernels, w: Matrix<'_>, n: usize) -> Vec<u32> {
        let (rows, cols) = (w.rows(), w.cols());
        let mut state = 1u32;
        let x: Vec<f32> = (0..n * cols)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state as i32 as f32 / 2147483648.0
            })
            .collect();
        let (mut q, mut scale) = (vec![0; n * cols], vec![0.0; n * cols / QK]);
        let mut sum = vec![0; n * cols / QK];
        kernels.quantize(&x, &mut q, &mut scale, &mut sum);
        let x = Rows { n, cols, q: &q, scale: &scale, sum: &sum, ..Rows::default() };
        let mut y = vec![7.0; n * (rows + 1)];
        kernels.matmul(w, 0..rows, x, &mut y, rows + 1, &mut Scratch::default());
        assert!(y.chunks(rows + 1).all(|y| y[rows] == 7.0 && y[..rows].iter().any(|&y| y != 7.0)));
        y.into_iter().map(f32::to_bits).collect()
    }

    /// Two to four tokens row by row and in strips: the same but for the order of additions. (One of the two
    /// is what this CPU does, which is compared with the oracle elsewhere.)
    #[test]
    fn few_tokens_agree() {
        let Some(isa) = Avx512Vnni::new() else { return };
        let tilings = [Tiling::OneStrip, Tiling::TwoStrips];
        let kernels = tilings.map(|t| Kernels { active: Active::Avx512Vnni(isa.with_tiling(t)) });
        for (rows, cols) in [(1, 256), (3, 512), (17, 1024), (70, 8448)] {
            for dtype in DType::ALL.into_iter().filter(|d| !d.is_float()) {
                let bytes = rows * dtype.row_bytes(cols).expect("whole blocks");
                let data: Vec<u8> = (0..bytes).map(|i| (i * i % 251) as u8 & 0x3F).collect();
                let w = Matrix::new(dtype, rows, cols, &data).expect("sizes fit");
                for n in [2, 3, 4] {
                    let [a, b] = kernels.map(|kernels| multiply(kernels, w, n));
                    let values = |bits: &[u32]| -> Vec<f32> {
                        bits.iter().copied().map(f32::from_bits).collect()
                    };
                    let (a, b) = (values(&a), values(&b));
                    // Of sums that may cancel, a share of the largest.
                    let most = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    for (a, b) in a.iter().zip(&b) {
                        assert!((a - b).abs() <= 1e-5 * most, "{dtype} {rows}x{cols} {n}: {a} {b}");
                    }
                }
            }
        }
    }

    /// What depends on the CPU's make, with the same bits, wherever it runs: strips of a tile, and the
    /// encoding of products.
    #[test]
    fn forms_of_a_set_agree() {
        let mut sets = vec![];
        if let Some(isa) = Avx512Vnni::new() {
            let tilings = [Tiling::OneStrip, Tiling::TwoStrips];
            sets.push(tilings.map(|t| Active::Avx512Vnni(isa.with_tiling(t))).to_vec());
        }
        sets.push(AvxVnni::all().map(Active::AvxVnni).collect());
        for (rows, cols) in [(1, 256), (16, 256), (17, 512), (31, 256), (32, 1024), (70, 8448)] {
            for dtype in DType::ALL.into_iter().filter(|d| !d.is_float()) {
                let bytes = rows * dtype.row_bytes(cols).expect("whole blocks");
                // Below 0x40 in every byte: scales are small and finite.
                let data: Vec<u8> = (0..bytes).map(|i| (i * i % 251) as u8 & 0x3F).collect();
                let w = Matrix::new(dtype, rows, cols, &data).expect("sizes fit");
                for n in [9, 13, 25, 66] {
                    for set in &sets {
                        let mut of = set.iter().map(|&active| multiply(Kernels { active }, w, n));
                        let first = of.next();
                        assert!(of.all(|y| Some(y) == first), "{set:?} {dtype} {rows}x{cols} {n}");
                    }
                }
            }
        }
    }
}
