//! Many tokens with `sdot`: strips of 8 rows are unpacked once, into `[blocks][8 quads][8 rows][4]`
//! bytes, so that a register holds 4 consecutive weights of 4 rows. A token contributes 16 of its
//! activations a load, which `sdot` takes by lane.

#![allow(clippy::needless_range_loop)] // loops over fixed tiles

use std::arch::aarch64::*;
use std::array;

use super::blocks::{Blocks, scale};
use super::ops::{f16_to_f32, sdot_lane};
use crate::codec::QK;
use crate::kernels::{Job, Rows, Scratch};

/// Rows of a strip.
const ROWS: usize = 8;
/// Tokens of a tile: 8 integer and 8 float sums, and registers to spare for what they come from.
const TOKENS: usize = 4;
/// Bytes of a block of a panel: the quants, then the scales in f32.
const PANEL: usize = ROWS * (QK + 4);

/// # Safety
/// NEON and dotprod; `job` holds what its documentation says and its weights are `F`'s.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn matmul<F: Blocks>(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, ld } = job;
    let blocks = x.cols / QK;
    debug_assert_eq!(w.row_bytes(), blocks * F::BYTES);
    let panel = scratch.panel.at_least(blocks * PANEL).as_mut_ptr();
    for r0 in rows.clone().step_by(ROWS) {
        let strip = ROWS.min(rows.end - r0);
        // A short strip repeats its last row; what comes of the repetitions is not stored.
        let at = array::from_fn(|r| w.row(r0 + r.min(strip - 1)).as_ptr());
        // SAFETY: each row has `blocks` blocks, and the panel room for as many.
        unsafe { unpack::<F>(at, blocks, panel) };
        for t in (0..x.n).step_by(TOKENS) {
            let y = &mut y[t * ld + (r0 - rows.start)..];
            // SAFETY: the panel was just filled, and `t` and the next few are tokens.
            unsafe {
                match x.n - t {
                    1 => tile::<1>(panel, x, t, y, ld, strip),
                    2 => tile::<2>(panel, x, t, y, ld, strip),
                    3 => tile::<3>(panel, x, t, y, ld, strip),
                    _ => tile::<TOKENS>(panel, x, t, y, ld, strip),
                }
            }
        }
    }
}

/// # Safety
/// `blocks` blocks must be readable at each of `rows` and `PANEL` times as many bytes writable at
/// `panel`, on a boundary of 16.
#[target_feature(enable = "neon,dotprod")]
unsafe fn unpack<F: Blocks>(rows: [*const u8; ROWS], blocks: usize, panel: *mut u8) {
    for b in 0..blocks {
        // SAFETY: the caller's promise.
        unsafe {
            let out = panel.add(b * PANEL);
            for four in 0..2 {
                let mut quants = [[vdupq_n_s8(0); 2]; 4];
                let mut d = [0; 4];
                for r in 0..4 {
                    let block = rows[4 * four + r].add(b * F::BYTES);
                    (quants[r], d[r]) = (F::quants(block), scale(block));
                }
                for half in 0..2 {
                    // 4 × 4 dwords: quad `i` of each row to each row of quad `i`.
                    let (a, b) = (quants[0][half], quants[1][half]);
                    let (c, d) = (quants[2][half], quants[3][half]);
                    let (a, b) = (vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b));
                    let (c, d) = (vreinterpretq_s32_s8(c), vreinterpretq_s32_s8(d));
                    let (p, q) = (vtrn1q_s32(a, b), vtrn1q_s32(c, d));
                    let (r, s) = (vtrn2q_s32(a, b), vtrn2q_s32(c, d));
                    let wide = |v| vreinterpretq_s64_s32(v);
                    let quads = [
                        vtrn1q_s64(wide(p), wide(q)),
                        vtrn1q_s64(wide(r), wide(s)),
                        vtrn2q_s64(wide(p), wide(q)),
                        vtrn2q_s64(wide(r), wide(s)),
                    ];
                    for (i, quad) in quads.into_iter().enumerate() {
                        let at = out.add(((4 * half + i) * ROWS + 4 * four) * 4);
                        vst1q_s64(at.cast(), quad);
                    }
                }
                let d = f16_to_f32(vld1_u16(d.as_ptr()));
                vst1q_f32(out.add(ROWS * QK + 16 * four).cast(), d);
            }
        }
    }
}

/// `N` tokens from `t` on times the panel, of whose rows `strip` are stored.
///
/// # Safety
/// There are that many tokens, and the panel has all their columns.
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<const N: usize>(
    panel: *const u8,
    x: Rows<'_>,
    t: usize,
    y: &mut [f32],
    ld: usize,
    strip: usize,
) {
    let blocks = x.cols / QK;
    let mut acc = [[vdupq_n_f32(0.0); 2]; N];
    for b in 0..blocks {
        // SAFETY: this block of the panel and of the tokens is there.
        unsafe {
            let panel = panel.add(b * PANEL);
            let mut sum = [[vdupq_n_s32(0); 2]; N];
            for half in 0..2 {
                let mut acts = [vdupq_n_s8(0); N];
                for (i, acts) in acts.iter_mut().enumerate() {
                    let block = ((t + i) * blocks + b) * QK;
                    *acts = vld1q_s8(x.q.as_ptr().add(block + 16 * half));
                }
                for four in 0..2 {
                    let mut w = [vdupq_n_s8(0); 4];
                    for (i, w) in w.iter_mut().enumerate() {
                        *w = vld1q_s8(panel.add(((4 * half + i) * ROWS + 4 * four) * 4).cast());
                    }
                    for (sum, &acts) in sum.iter_mut().zip(&acts) {
                        let s = sdot_lane::<1>(sdot_lane::<0>(sum[four], w[0], acts), w[1], acts);
                        sum[four] = sdot_lane::<3>(sdot_lane::<2>(s, w[2], acts), w[3], acts);
                    }
                }
            }
            for four in 0..2 {
                let d = vld1q_f32(panel.add(ROWS * QK + 16 * four).cast());
                for (i, acc) in acc.iter_mut().enumerate() {
                    let d = vmulq_n_f32(d, x.scale[(t + i) * blocks + b]);
                    acc[four] = vfmaq_f32(acc[four], vcvtq_f32_s32(sum[i][four]), d);
                }
            }
        }
    }
    for (i, acc) in acc.into_iter().enumerate() {
        let mut out = [0.0f32; ROWS];
        // SAFETY: `out` holds both vectors.
        unsafe {
            vst1q_f32(out.as_mut_ptr(), acc[0]);
            vst1q_f32(out.as_mut_ptr().add(4), acc[1]);
        }
        y[i * ld..][..strip].copy_from_slice(&out[..strip]);
    }
}
