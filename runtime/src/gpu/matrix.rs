//! Weight matrices on the device.

use rayon::prelude::*;
use shaders::Format;

use super::device::Device;
use super::error::GpuError;
use super::planes::{RowLayout, common_format};
use super::region::{Bound, Region};
use crate::weights::{Layer, WeightMatrix};

/// Bytes on their way to the device at a time.
const CHUNK: usize = 32 << 20;

/// How several matrices of the same width become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stack {
    /// One after the other.
    After,
    /// A row of each in turn (they have the same number of rows).
    InTurn,
}

/// Matrices of a layer: q, k and v; attention's projection; gate and up; down.
pub(super) const MATRICES: usize = 4;

/// What they are made of.
pub(super) fn stacks(l: &Layer) -> [(Vec<&WeightMatrix>, Stack); MATRICES] {
    [
        (vec![&l.q, &l.k, &l.v], Stack::After),
        (vec![&l.o], Stack::After),
        (vec![&l.gate, &l.up], Stack::InTurn),
        (vec![&l.down], Stack::After),
    ]
}

/// A matrix on the device, cut by rows where one binding can't hold it.
pub(super) struct DeviceMatrix {
    pub(super) layout: RowLayout,
    pub(super) shards: Vec<Shard>,
    /// A power of two that brings the largest weight to between 1 and 2 (for q8_0 and q4_0: the
    /// largest that its scale allows).
    pub(super) factor: f32,
}

/// Some rows of a matrix.
pub(super) struct Shard {
    pub(super) first_row: usize,
    pub(super) rows: usize,
    pub(super) pieces: Region,
    pub(super) scales: Option<Region>,
}

impl Shard {
    /// The planes, as a kernel binds them.
    pub(super) fn planes(&self) -> impl Iterator<Item = &dyn Bound> {
        std::iter::once(&self.pieces).chain(&self.scales).map(|region| region as &dyn Bound)
    }
}

/// Bytes that these matrices, stacked, take on a device.
pub(super) fn device_bytes(matrices: &[&WeightMatrix]) -> u64 {
    let layout = RowLayout { format: common_format(matrices), cols: matrices[0].cols };
    let row = layout.bytes() + layout.scales() * 2;
    matrices.iter().map(|m| (m.rows * row) as u64).sum()
}

/// Rows of one shard where `max_binding` bytes can be bound at once; 0 where no two fit. An even
/// number, so that rows in turn stay together, and few enough for one dispatch.
fn shard_rows(layout: RowLayout, max_binding: u64) -> usize {
    (max_binding / layout.bytes() as u64).min(1 << 19) as usize & !1
}

/// Shards that these matrices, stacked, are cut into.
pub(super) fn shards(matrices: &[&WeightMatrix], max_binding: u64) -> usize {
    let layout = RowLayout { format: common_format(matrices), cols: matrices[0].cols };
    let rows: usize = matrices.iter().map(|m| m.rows).sum();
    rows.div_ceil(shard_rows(layout, max_binding).max(1))
}

impl DeviceMatrix {
    /// Uploads matrices of one width from the mapped `file` to buffers of their own.
    pub(super) fn upload(
        device: &Device,
        file: &[u8],
        matrices: &[&WeightMatrix],
        stack: Stack,
    ) -> Result<Self, GpuError> {
        Self::upload_to(device, file, matrices, stack, None)
    }

    /// The same, to where they have room in one piece, if that is given: pieces and scales.
    pub(super) fn upload_to(
        device: &Device,
        file: &[u8],
        matrices: &[&WeightMatrix],
        stack: Stack,
        home: Option<[Region; 2]>,
    ) -> Result<Self, GpuError> {
        let layout = RowLayout { format: common_format(matrices), cols: matrices[0].cols };
        let rows: usize = matrices.iter().map(|m| m.rows).sum();
        let most = shard_rows(layout, device.max_binding);
        if most == 0 {
            return Err(GpuError::Limit {
                device: device.name().into(),
                what: "two rows of a matrix",
                bytes: layout.bytes() as u64 * 2,
                limit: device.max_binding,
            });
        }
        let row = |r: usize| match stack {
            Stack::InTurn => (matrices[r % matrices.len()], r / matrices.len()),
            Stack::After => {
                let mut before = 0;
                let mut at = 0;
                while r >= before + matrices[at].rows {
                    before += matrices[at].rows;
                    at += 1;
                }
                (matrices[at], r - before)
            }
        };
        let (mut shards, mut largest) = (Vec::new(), 0f32);
        for first_row in (0..rows).step_by(most) {
            let n = most.min(rows - first_row);
            let (pieces, scales) = match &home {
                Some([pieces, scales]) if n == rows => (pieces.clone(), Some(scales.clone())),
                _ => {
                    let plane = |label, bytes| Region::new(device, label, bytes as u64);
                    let scales = layout.scales();
                    let scales = (scales > 0).then(|| plane("scales", n * scales * 2));
                    (plane("weights", n * layout.bytes()), scales)
                }
            };
            let shard = Shard { first_row, rows: n, pieces, scales };
            let found = fill(device, layout, &shard, &|r| {
                let (matrix, r) = row(first_row + r);
                (matrix, matrix.view(file).row(r))
            })?;
            largest = largest.max(found);
            shards.push(shard);
        }
        Ok(DeviceMatrix { layout, shards, factor: power(largest) })
    }

    /// How the weights lie.
    pub(super) fn format(&self) -> Format {
        self.layout.format
    }
}

/// The power of two that brings `largest` to between 1 and 2; 1 for what can't be brought there.
fn power(largest: f32) -> f32 {
    match largest.log2().floor() {
        e if (-100.0..100.0).contains(&e) => (-e).exp2(),
        _ => 1.0,
    }
}

/// Splits the rows of a shard into planes, a chunk at a time, and sends them. Says how large the
/// largest weight is, or could be.
fn fill<'f>(
    device: &Device,
    layout: RowLayout,
    shard: &Shard,
    row: &(impl Fn(usize) -> (&'f WeightMatrix, &'f [u8]) + Sync),
) -> Result<f32, GpuError> {
    let bytes = layout.bytes();
    let mut largest = 0f32;
    // Writes are in steps of four bytes: an even number of rows has whole words of scales.
    let step = (CHUNK / bytes).max(2) & !1;
    for from in (0..shard.rows).step_by(step) {
        let n = step.min(shard.rows - from);
        let mut pieces = vec![0u8; n * bytes];
        let mut scales = vec![0u16; (n * layout.scales()).next_multiple_of(2)];
        // Floats have no scales: any number of empty slices.
        let mut of_rows: Vec<&mut [u16]> = match layout.scales() {
            0 => (0..n).map(|_| Default::default()).collect(),
            s => scales.chunks_mut(s).take(n).collect(),
        };
        pieces.par_chunks_mut(bytes).zip(of_rows.par_iter_mut()).enumerate().for_each(
            |(r, (pieces, scales))| {
                let (matrix, data) = row(from + r);
                layout.split(matrix.dtype, data, pieces, scales);
            },
        );
        largest = largest.max(layout.largest(&pieces, &scales));
        shard.pieces.write(device, (from * bytes) as u64, &pieces);
        if let Some(to) = &shard.scales {
            let at = (from * layout.scales() * 2) as u64;
            to.write(device, at, bytemuck::cast_slice(&scales));
        }
        // What was sent is kept until it is submitted: not all of a model at once.
        device.queue.submit([]);
        device.wait()?;
    }
    Ok(largest)
}
