//! How batches are laid out for the tiles: weights in panels, activations in packs.
//!
//! A tile kernel multiplies a *panel* (a strip of `R` weight rows, unpacked) with a *pack* (`T`
//! tokens). Both are cut along the columns into *groups* that share one scale: 32 weights for most
//! formats, 16 for Q2_K, Q3_K and Q6_K. Whatever the format was on disk, a group of a panel is
//!
//! ```text
//! quants  [group / 4][R rows][4]  u8     stored quants, made unsigned: value = (u8 - OFFSET) · d (+ m)
//! d       [R]                     f32
//! m       [R]                     f32    only where the format has minimums
//! ```
//!
//! and a group of a pack is
//!
//! ```text
//! quants  [T][group]              i8
//! scale   [T]                     f32
//! init    [T]                     i32    the bits of 1.5 · 2²³, less OFFSET · Σ quants: what the integer
//!                                        sums start from
//! minsum  [T]                     f32    scale · Σ quants, only where the format has minimums
//! ```
//!
//! so that a result is `Σ_groups d · scale · (Σ u8 · i8 - OFFSET · Σ i8) + m · minsum`, and a tile kernel
//! reads each of the two as one forward stream. A new format needs an unpacking of strips and nothing else.
//!
//! The sums are at most 32 · 127 · 255 from zero, less than 2²²: added to the bits of 1.5 · 2²³, they are
//! the f32 `1.5 · 2²³ + sum`, exactly. One FMA, `that · d - 1.5 · 2²³ · d`, is then the sum times the
//! weights' scale, rounded once, where a conversion and a product would be two instructions of the same
//! ports. Its subtrahend is exact for any `d` of up to 22 bits: an f16 has 11, Q6_K's products have 18, which
//! are the longest. It is
//! the same for all tokens, so that a tile makes it once a group; taken with `scale` instead, each token
//! would have one to be read.

use super::Rows;
use super::prefetch::prefetch_slice;
use crate::DType;
use crate::codec::{IQ4_VALUES, QK};

/// Columns that are packed of one token before the next.
const PIECE: usize = 1024;

/// The f32 1.5 · 2²³, whose bits count in ones.
pub(super) const COUNTS: f32 = 12_582_912.0;
/// Its bits: what sums of a group that nothing is known of start from.
pub(super) const START: i32 = COUNTS.to_bits() as i32;

/// Tokens between one that is packed and the one that is asked for.
const AHEAD: usize = 4;

/// 64 bytes on a 64-byte boundary.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

/// Memory on a 64-byte boundary that grows and is reused.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<Line>);

impl Lines {
    /// At least `bytes` bytes, with whatever is in them.
    pub(super) fn at_least(&mut self, bytes: usize) -> &mut [u8] {
        let lines = bytes.div_ceil(64);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0; 64]));
        }
        // SAFETY: `Line` is 64 plain bytes without padding.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 64) }
    }
}

/// Activations as a kernel laid them out, and of what: threads call a kernel once for every chunk of
/// weights, with the same activations each time.
#[derive(Debug, Default)]
pub(super) struct Pack {
    lines: Lines,
    /// Which activations the caller says these are; 0 when it does not say.
    input: u64,
    /// What `lines` holds of them.
    holds: Option<Layout>,
}

/// Which activations, laid out how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Layout {
    /// The most tokens of a tile; 0 for the layout of a single token.
    pub(super) tile: usize,
    pub(super) shape: Shape,
    /// First token and number of tokens.
    pub(super) tokens: (usize, usize),
    /// Number of columns.
    pub(super) cols: usize,
}

impl Pack {
    /// What comes next are the activations `input`; see [`Scratch::set_input`](super::Scratch).
    pub(super) fn set_input(&mut self, input: u64) {
        if self.input != input {
            self.input = input;
            self.holds = None;
        }
    }

    /// At least `bytes` bytes, with whatever is in them.
    pub(super) fn at_least(&mut self, bytes: usize) -> &mut [u8] {
        self.holds = None;
        self.lines.at_least(bytes)
    }

    /// At least `bytes` bytes, and whether they hold `layout` of the present input already. If they
    /// don't, the caller lays it out there before it calls this again.
    pub(super) fn keep(&mut self, layout: Layout, bytes: usize) -> (&mut [u8], bool) {
        let there = self.input != 0 && self.holds == Some(layout);
        self.holds = Some(layout);
        (self.lines.at_least(bytes), there)
    }
}

/// What the nibbles of IQ4_NL and IQ4_XS stand for, with the offset of their [`Shape`].
pub(super) const IQ4_UNSIGNED: [u8; 16] = {
    let mut values = [0; 16];
    let mut i = 0;
    while i < 16 {
        values[i] = (IQ4_VALUES[i] as i16 + 128) as u8;
        i += 1;
    }
    values
};

/// What a tile needs to know of a format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    /// Weights that share a scale: 32 or 16.
    pub(super) group: usize,
    /// What was added to the weights to make them unsigned.
    pub(super) offset: i32,
    /// Has the format minimums?
    pub(super) mins: bool,
}

impl Shape {
    /// That of a type; `None` for floats.
    pub(super) const fn of(dtype: DType) -> Option<Self> {
        let (group, offset, mins) = match dtype {
            DType::Q4_0 => (32, 8, false),
            DType::Q5_0 => (32, 16, false),
            DType::Q8_0 | DType::IQ4_NL | DType::IQ4_XS => (32, 128, false),
            DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => (32, 0, true),
            DType::Q2_K => (16, 0, true),
            DType::Q3_K => (16, 4, false),
            DType::Q6_K => (16, 32, false),
            DType::F32 | DType::F16 | DType::BF16 => return None,
        };
        Some(Shape { group, offset, mins })
    }

    /// Bytes of one group of a panel of `rows` rows.
    pub(super) const fn panel_bytes(self, rows: usize) -> usize {
        rows * (self.group + 4 + if self.mins { 4 } else { 0 })
    }

    /// Bytes of one group of a pack of `tokens` tokens.
    pub(super) const fn pack_bytes(self, tokens: usize) -> usize {
        tokens * (self.group + 8 + if self.mins { 4 } else { 0 })
    }

    /// Packs tokens `t0 .. t0 + tokens` of `x`.
    pub(super) fn pack(self, x: Rows<'_>, t0: usize, tokens: usize, out: &mut [u8]) {
        let stride = self.pack_bytes(tokens);
        // A piece of the pack stays in the first-level cache until all tokens have written to it.
        for c in (0..x.cols).step_by(PIECE) {
            let cols = PIECE.min(x.cols - c);
            let out = &mut out[c / self.group * stride..][..cols / self.group * stride];
            let row = |t: usize| {
                let from = t * x.cols + c;
                let blocks = from / QK..(from + cols) / QK;
                (&x.q[from..][..cols], &x.scale[blocks.clone()], &x.sum[blocks])
            };
            for t in 0..tokens {
                // Short pieces, far from each other: the hardware does not see the next one coming.
                if t0 + t + AHEAD < x.n {
                    let (q, scale, sum) = row(t0 + t + AHEAD);
                    prefetch_slice(q);
                    prefetch_slice(scale);
                    prefetch_slice(sum);
                }
                let (q, scale, sum) = row(t0 + t);
                self.pack_token(t, tokens, q, scale, sum, out);
            }
        }
    }

    /// Puts some columns of the `t`-th of `tokens` tokens where they belong in their groups at `out`.
    #[inline]
    pub(super) fn pack_token(
        self,
        t: usize,
        tokens: usize,
        q: &[i8],
        scale: &[f32],
        sum: &[i32],
        out: &mut [u8],
    ) {
        match self.group {
            QK => self.pack_groups::<QK>(t, tokens, q, scale, sum, out),
            16 => self.pack_groups::<16>(t, tokens, q, scale, sum, out),
            other => unreachable!("groups of {other}"),
        }
    }

    #[inline(always)]
    fn pack_groups<const GROUP: usize>(
        self,
        t: usize,
        tokens: usize,
        q: &[i8],
        scale: &[f32],
        sum: &[i32],
        out: &mut [u8],
    ) {
        let stride = self.pack_bytes(tokens);
        let quants = bytemuck::cast_slice::<i8, u8>(q).as_chunks::<GROUP>().0;
        for (g, q) in quants.iter().enumerate() {
            let out = &mut out[g * stride..][..stride];
            let b = g * GROUP / QK;
            let (scale, sum) = match GROUP {
                QK => (scale[b], sum[b]),
                _ => (scale[b], q.iter().map(|&q| i32::from(q as i8)).sum()),
            };
            let (to, rest) = out.split_at_mut(tokens * GROUP);
            to.as_chunks_mut::<GROUP>().0[t] = *q;
            let words = rest.as_chunks_mut::<4>().0;
            words[t] = scale.to_ne_bytes();
            words[tokens + t] = (START - sum * self.offset).to_ne_bytes();
            if self.mins {
                words[2 * tokens + t] = (scale * sum as f32).to_ne_bytes();
            }
        }
    }
}
