//! Many tokens with `smmla`, which multiplies 2 × 8 by 8 × 2: strips of 8 rows are unpacked once, as
//! pairs of rows, and the tokens are packed once, as pairs of tokens.

use std::arch::aarch64::*;
use std::array;

use super::blocks::{Blocks, scale};
use super::ops::{f16_to_f32, smmla};
use crate::codec::QK;
use crate::kernels::panel::{Layout, Shape};
use crate::kernels::{Job, Rows, Scratch};

/// Rows of a strip.
const ROWS: usize = 8;
/// Pairs of rows of a strip.
const PAIRS: usize = ROWS / 2;
/// Bytes of a block of a panel: quants `[4 eights][PAIRS][2 rows][8]`, then, for each pair, the scales
/// of its rows, each twice, in f32.
const PANEL: usize = ROWS * (QK + 8);
/// Bytes of a block of a pair of tokens: `[4 eights][2 tokens][8]`, then both scales, twice.
const PACK: usize = 2 * QK + 16;

/// # Safety
/// NEON and i8mm; `job` holds what its documentation says and its weights are `F`'s.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) unsafe fn matmul<F: Blocks>(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, ld } = job;
    let blocks = x.cols / QK;
    debug_assert_eq!(w.row_bytes(), blocks * F::BYTES);
    let panel = scratch.panel.at_least(blocks * PANEL).as_mut_ptr();
    let shape = Shape { group: QK, offset: 0, mins: false };
    let layout = Layout { tile: 2, shape, tokens: (0, x.n), cols: x.cols };
    let (pack, there) = scratch.pack.keep(layout, x.n.div_ceil(2) * blocks * PACK);
    if !there {
        pack_pairs(x, pack);
    }
    for r0 in rows.clone().step_by(ROWS) {
        let strip = ROWS.min(rows.end - r0);
        // A short strip repeats its last row; what comes of the repetitions is not stored.
        let at = array::from_fn(|r| w.row(r0 + r.min(strip - 1)).as_ptr());
        // SAFETY: each row has `blocks` blocks, and the panel room for as many.
        unsafe { unpack::<F>(at, blocks, panel) };
        for t in (0..x.n).step_by(4) {
            let y = &mut y[t * ld + (r0 - rows.start)..];
            let pack = pack[t / 2 * blocks * PACK..].as_ptr();
            let tokens = (x.n - t).min(4);
            // SAFETY: panel and pack were filled with `blocks` blocks for each row and pair.
            unsafe {
                if tokens > 2 {
                    tile::<2>(panel, pack, blocks, y, ld, (strip, tokens));
                } else {
                    tile::<1>(panel, pack, blocks, y, ld, (strip, tokens));
                }
            }
        }
    }
}

/// Packs all tokens, a last one without partner beside zeros.
fn pack_pairs(x: Rows<'_>, pack: &mut [u8]) {
    let blocks = x.cols / QK;
    for (i, out) in pack.chunks_exact_mut(PACK).take(x.n.div_ceil(2) * blocks).enumerate() {
        let (t, b) = (i / blocks * 2, i % blocks);
        for two in 0..2 {
            let here = t + two < x.n;
            let at = (t + two) * blocks + b;
            for eight in 0..4 {
                let out = &mut out[eight * 16 + two * 8..][..8];
                if here {
                    out.copy_from_slice(bytemuck::cast_slice(&x.q[at * QK + eight * 8..][..8]));
                } else {
                    out.fill(0);
                }
            }
            let scale = if here { x.scale[at] } else { 0.0 };
            for copy in 0..2 {
                out[2 * QK + (2 * copy + two) * 4..][..4].copy_from_slice(&scale.to_ne_bytes());
            }
        }
    }
}

/// # Safety
/// `blocks` blocks must be readable at each of `rows` and `PANEL` times as many bytes writable at
/// `panel`, on a boundary of 16.
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn unpack<F: Blocks>(rows: [*const u8; ROWS], blocks: usize, panel: *mut u8) {
    for b in 0..blocks {
        // SAFETY: the caller's promise.
        unsafe {
            let out = panel.add(b * PANEL);
            for pair in 0..PAIRS {
                let block =
                    [rows[2 * pair].add(b * F::BYTES), rows[2 * pair + 1].add(b * F::BYTES)];
                let (first, second) = (F::quants(block[0]), F::quants(block[1]));
                for half in 0..2 {
                    let a = vreinterpretq_s64_s8(first[half]);
                    let b = vreinterpretq_s64_s8(second[half]);
                    let eights = [vtrn1q_s64(a, b), vtrn2q_s64(a, b)];
                    for (i, v) in eights.into_iter().enumerate() {
                        vst1q_s64(out.add(((2 * half + i) * PAIRS + pair) * 16).cast(), v);
                    }
                }
                let (a, b) = (scale(block[0]), scale(block[1]));
                let d = f16_to_f32(vld1_u16([a, a, b, b].as_ptr()));
                vst1q_f32(out.add(ROWS * QK + 16 * pair).cast(), d);
            }
        }
    }
}

/// `P` pairs of tokens times the panel; `stored` rows and tokens of the result are stored.
///
/// # Safety
/// Panel and pack must have `blocks` blocks for each row and pair of tokens.
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn tile<const P: usize>(
    panel: *const u8,
    pack: *const u8,
    blocks: usize,
    y: &mut [f32],
    ld: usize,
    stored: (usize, usize),
) {
    // Elements: (row, token) 00 01 10 11.
    let mut acc = [[vdupq_n_f32(0.0); P]; PAIRS];
    for b in 0..blocks {
        // SAFETY: this block of the panel and of the pack is there.
        unsafe {
            let panel = panel.add(b * PANEL);
            let pack = |p: usize| pack.add((p * blocks + b) * PACK);
            let mut sum = [[vdupq_n_s32(0); P]; PAIRS];
            for eight in 0..4 {
                let mut acts = [vdupq_n_s8(0); P];
                for (p, acts) in acts.iter_mut().enumerate() {
                    *acts = vld1q_s8(pack(p).add(16 * eight).cast());
                }
                for (pair, sum) in sum.iter_mut().enumerate() {
                    let w = vld1q_s8(panel.add((eight * PAIRS + pair) * 16).cast());
                    for (sum, &acts) in sum.iter_mut().zip(&acts) {
                        *sum = smmla(*sum, w, acts);
                    }
                }
            }
            for (pair, acc) in acc.iter_mut().enumerate() {
                let d = vld1q_f32(panel.add(ROWS * QK + 16 * pair).cast());
                for (p, acc) in acc.iter_mut().enumerate() {
                    let scales = vmulq_f32(d, vld1q_f32(pack(p).add(2 * QK).cast()));
                    *acc = vfmaq_f32(*acc, vcvtq_f32_s32(sum[pair][p]), scales);
                }
            }
        }
    }
    let (rows, tokens) = stored;
    for t in 0..tokens {
        let mut out = [0.0f32; ROWS];
        for four in 0..2 {
            let (a, b) = (acc[2 * four][t / 2], acc[2 * four + 1][t / 2]);
            let v = if t % 2 == 0 { vuzp1q_f32(a, b) } else { vuzp2q_f32(a, b) };
            // SAFETY: `out` holds both vectors.
            unsafe { vst1q_f32(out.as_mut_ptr().add(4 * four), v) };
        }
        y[t * ld..][..rows].copy_from_slice(&out[..rows]);
    }
}
