//! Q4_1: nibbles are unsigned; the minimum is added once a block.

use std::arch::x86_64::*;

use super::decode::{Lanes, Step, halves};
use super::strip::{At, Group, Strip, lanes, nibbles, scales, transpose};
use crate::DType;
use crate::kernels::panel::Shape;

pub(super) struct Q4_1;

/// Bytes of a block.
const BLOCK: usize = 20;

impl Lanes for Q4_1 {
    const BYTES: usize = 4 * BLOCK;

    #[inline(always)]
    unsafe fn step(p: *const u8, _part: usize) -> Step {
        // SAFETY: the caller has AVX2 and gives four blocks.
        unsafe {
            Step {
                q: [nibbles(lanes(p.add(4), BLOCK)), nibbles(lanes(p.add(2 * BLOCK + 4), BLOCK))],
                d: halves(|b| p.add(b * BLOCK).cast::<u16>().read_unaligned()),
                m: halves(|b| p.add(b * BLOCK + 2).cast::<u16>().read_unaligned()),
            }
        }
    }
}

impl Strip for Q4_1 {
    const SHAPE: Shape = Shape::of(DType::Q4_1).unwrap();
    const MAX: u8 = 15;
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = BLOCK;

    #[inline(always)]
    unsafe fn group(rows: At, g: usize) -> Group {
        let rows = rows.skip(g * BLOCK);
        // SAFETY: the caller has AVX2 and says that the block is readable.
        unsafe {
            let quads = transpose(|r| _mm_loadu_si128(rows.row(r).add(4).cast()));
            let [a, b, c, d] = quads;
            let (a, b, c, d) = (nibbles(a), nibbles(b), nibbles(c), nibbles(d));
            Group {
                q: [a.0, b.0, c.0, d.0, a.1, b.1, c.1, d.1],
                d: scales(|r| rows.row(r).cast::<u16>().read_unaligned()),
                m: scales(|r| rows.row(r).cast::<u16>().add(1).read_unaligned()),
            }
        }
    }
}
