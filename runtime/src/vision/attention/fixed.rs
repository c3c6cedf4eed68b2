//! Attention in 16-bit fixed point.

use quant::kernels::Kernels;
use quant::kernels::fixed::{Blocks, FixedJob, PANEL, TILE};

use super::tiled::{Form, PackRows, Tiles};
use crate::cpu::attention::softmax::{self, Running, Weights};

/// See [`quant::kernels::fixed`]. A head's features, or a block's keys, share one scale.
pub(super) struct Fixed;

impl Form for Fixed {
    type Panel = i16;
    type Tile = i16;
    const TOGETHER: usize = 2;

    fn pack_panel(k: &Kernels, rows: PackRows<'_>, q: &mut [i16], scale: &mut [f32; PANEL]) {
        k.pack_fixed(rows.x, rows.ld, rows.n, rows.count, PANEL, q, scale);
    }

    fn pack_tile(
        k: &Kernels,
        rows: PackRows<'_>,
        q: &mut [i16],
        scale: &mut [f32],
        _start: &mut [i32],
    ) {
        k.pack_fixed(rows.x, rows.ld, rows.n, rows.count, TILE, q, scale);
    }

    fn softmax(k: &Kernels, scores: &mut [f32], running: &mut Running, weights: Weights<'_, i16>) {
        softmax::fixed(k, scores, running, weights);
    }

    fn multiply(
        k: &Kernels,
        len: usize,
        (panel, panel_scale): (&[i16], &[f32; PANEL]),
        tiles: Tiles<'_, i16>,
        y: &mut [f32],
        add: bool,
    ) {
        let job = FixedJob {
            blocks: Blocks { len, count: 1 },
            panel,
            panel_scale,
            tiles: tiles.q,
            tile_scale: tiles.scale,
            tile_words: tiles.blocks * len * TILE,
            tile_scales: tiles.blocks * TILE,
            rows: tiles.rows,
        };
        k.multiply_fixed(&job, y, PANEL, add);
    }
}
