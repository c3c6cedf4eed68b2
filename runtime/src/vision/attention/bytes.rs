//! Attention in 8 bits, for layers whose own matrices have no more.

use quant::kernels::Kernels;
use quant::kernels::bytes::BytesJob;
use quant::kernels::fixed::PANEL;

use super::tiled::{Form, PackRows, Tiles};
use crate::cpu::attention::softmax::{self, Running, Weights};

/// See [`quant::kernels::bytes`]. A query, a key, and a feature of a block's values have one scale each;
/// softmax weights are 255ths of their block's largest.
pub(super) struct Bytes;

impl Form for Bytes {
    type Panel = u8;
    type Tile = i8;
    const TOGETHER: usize = 4;

    fn pack_panel(k: &Kernels, rows: PackRows<'_>, q: &mut [u8], scale: &mut [f32; PANEL]) {
        k.pack_panel_bytes(rows.x, rows.ld, rows.n, rows.count, q, scale);
    }

    fn pack_tile(
        k: &Kernels,
        rows: PackRows<'_>,
        q: &mut [i8],
        scale: &mut [f32],
        start: &mut [i32],
    ) {
        k.pack_tile_bytes(rows.x, rows.ld, rows.n, rows.count, q, scale, start);
    }

    fn softmax(k: &Kernels, scores: &mut [f32], running: &mut Running, weights: Weights<'_, u8>) {
        softmax::bytes(k, scores, running, weights);
    }

    fn multiply(
        k: &Kernels,
        len: usize,
        (panel, panel_scale): (&[u8], &[f32; PANEL]),
        tiles: Tiles<'_, i8>,
        y: &mut [f32],
        add: bool,
    ) {
        let job = BytesJob {
            len,
            panel,
            panel_scale,
            tiles: tiles.q,
            tile_scale: tiles.scale,
            tile_start: tiles.start,
            stride: tiles.blocks,
            rows: tiles.rows,
        };
        k.multiply_bytes(&job, y, PANEL, add);
    }
}
