//! Activations of one token for formats of blocks of 256 weights with a scale every 16.
//!
//! All 16 scales of a block are made together, and each is brought to the products that it belongs to. What
//! a vector multiplies are whole sub-blocks, four integer sums each: which of them, the format says, so that
//! it can take its bits from where they lie.

use super::panel::{Layout, Shape};
use super::{Rows, Scratch};
use crate::codec::{QK, QK_K};

/// Sub-blocks of a block.
pub(super) const SUBS: usize = QK_K / 16;

/// Which sub-block lies where; see [`Acts`].
pub(super) type Order = [u8; SUBS];

/// The activations of one block.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Acts {
    /// In the order of the format.
    pub(super) q: [[i8; 16]; SUBS],
    /// In the order of the format: `-offset · Σ` of the sub-block, and three zeros.
    pub(super) init: [[i32; 4]; SUBS],
    /// Of each sub-block, in the order of the block.
    pub(super) scale: [f32; SUBS],
    /// scale · Σ of each sub-block, in the order of the block.
    pub(super) minsum: [f32; SUBS],
}

/// Lays out the activations of one token.
pub(super) fn prepare<'s>(
    x: Rows<'_>,
    shape: Shape,
    order: &Order,
    scratch: &'s mut Scratch,
) -> &'s [Acts] {
    debug_assert!(x.n == 1 && shape.group == 16 && x.cols.is_multiple_of(QK_K));
    let blocks = x.cols / QK_K;
    let layout = Layout { tile: 0, shape, tokens: (0, 1), cols: x.cols };
    let (out, there) = scratch.pack.keep(layout, blocks * size_of::<Acts>());
    let out = out.as_mut_ptr().cast::<Acts>();
    if !there {
        for (b, q) in x.q.as_chunks::<16>().0.chunks_exact(SUBS).enumerate() {
            let mut acts = Acts {
                q: order.map(|s| q[usize::from(s)]),
                init: [[0; 4]; SUBS],
                scale: [0.0; SUBS],
                minsum: [0.0; SUBS],
            };
            for (place, s) in order.iter().map(|&s| usize::from(s)).enumerate() {
                let sum: i32 = q[s].iter().map(|&q| i32::from(q)).sum();
                acts.init[place][0] = -shape.offset * sum;
                acts.scale[s] = x.scale[(b * SUBS + s) * 16 / QK];
                acts.minsum[s] = acts.scale[s] * sum as f32;
            }
            // SAFETY: `out` has room for `blocks`, on 64-byte boundaries.
            unsafe { out.add(b).write(acts) };
        }
    }
    // SAFETY: all of them were written, now or by this very function for the same activations.
    unsafe { std::slice::from_raw_parts(out, blocks) }
}
