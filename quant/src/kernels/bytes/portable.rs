//! Plain Rust: the oracle, and what CPUs run that no other file is for.

use super::{BytesJob, PANEL, TILE};

/// Some rows to be packed.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) x: &'a [f32],
    pub(super) ld: usize,
    /// Values of a row.
    pub(super) n: usize,
    pub(super) rows: usize,
    /// Rows of the group.
    pub(super) group: usize,
    /// Bits of each quant that are turned over: 0x80 adds 128.
    pub(super) flip: u8,
}

/// Inlined into functions compiled for an instruction set, hence without closures.
#[inline(always)]
pub(super) fn pack(block: Block<'_>, q: &mut [u8], scale: &mut [f32], start: &mut [i32]) {
    let Block { x, ld, n, rows, group, flip } = block;
    let fours: &mut [[u8; 4]] = q.as_chunks_mut::<4>().0;
    scale[rows..].fill(0.0);
    start[rows..].fill(0);
    if rows < group || n < 4 * fours.len() / group {
        fours.fill([flip; 4]);
    }
    for r in 0..rows {
        let x = &x[r * ld..][..n];
        let s = largest(x) / 127.0;
        // A row of zeros, or of values too small to divide by.
        let inverse = if s >= f32::MIN_POSITIVE { 1.0 / s } else { 0.0 };
        scale[r] = s;
        let (chunks, rest) = x.as_chunks::<16>();
        let (mut at, mut sum) = (r, 0);
        for chunk in chunks {
            let mut quants = [0i8; 16];
            let mut total = 0;
            for i in 0..16 {
                quants[i] = round(chunk[i] * inverse);
            }
            for quant in quants {
                total += i32::from(quant);
            }
            sum += total;
            for four in quants.as_chunks::<4>().0 {
                fours[at] = [
                    four[0] as u8 ^ flip,
                    four[1] as u8 ^ flip,
                    four[2] as u8 ^ flip,
                    four[3] as u8 ^ flip,
                ];
                at += group;
            }
        }
        for part in rest.chunks(4) {
            let mut four = [flip; 4];
            for (four, v) in four.iter_mut().zip(part) {
                let quant = round(v * inverse);
                sum += i32::from(quant);
                *four = quant as u8 ^ flip;
            }
            fours[at] = four;
            at += group;
        }
        start[r] = -128 * sum;
    }
}

/// The nearest whole number, ties to even, of a magnitude below 2²²: adding 1.5 · 2²³ leaves it in
/// the lowest bits.
#[inline(always)]
fn round(x: f32) -> i8 {
    (x + 12_582_912.0).to_bits() as i8
}

/// The largest magnitude.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<16>();
    let mut largest = [0u32; 16];
    for chunk in chunks {
        let mut l = largest;
        for i in 0..16 {
            l[i] = l[i].max(chunk[i].to_bits() & 0x7fff_ffff);
        }
        largest = l;
    }
    let mut max = 0;
    for l in largest {
        max = max.max(l);
    }
    for v in rest {
        max = max.max(v.to_bits() & 0x7fff_ffff);
    }
    f32::from_bits(max)
}

/// See [`Kernels::multiply_bytes`](super::Kernels::multiply_bytes).
pub(super) fn multiply(job: &BytesJob<'_>, y: &mut [f32], ld: usize, add: bool) {
    for r in 0..job.rows {
        let (group, row) = (r / TILE * job.stride, r % TILE);
        let y = &mut y[r * ld..][..PANEL];
        if !add {
            y.fill(0.0);
        }
        let tile = &job.tiles[group * job.len * TILE..][..job.len * TILE];
        let mut sums = [job.tile_start[group * TILE + row]; PANEL];
        for (p, t) in job.panel.chunks_exact(4 * PANEL).zip(tile.chunks_exact(4 * TILE)) {
            let t = &t[4 * row..][..4];
            for (sum, p) in sums.iter_mut().zip(p.as_chunks::<4>().0) {
                for (p, t) in p.iter().zip(t) {
                    *sum += i32::from(*p) * i32::from(*t);
                }
            }
        }
        let scale = job.tile_scale[group * TILE + row];
        for ((y, sum), panel) in y.iter_mut().zip(sums).zip(job.panel_scale) {
            *y += sum as f32 * panel * scale;
        }
    }
}
