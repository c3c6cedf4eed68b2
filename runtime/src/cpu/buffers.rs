//! The buffers of a forward pass, allocated once.

use std::ops::Range;

use quant::codec::QK;
use quant::kernels::{Packed, Packing, Rows};

use super::shared::SharedBuf;
use crate::config::GemmaConfig;
use crate::kv_cache::HEAD_PAD;

/// Rows quantized to int8 blocks of 32: see [`quant::kernels`].
pub(crate) struct Quantized {
    cols: usize,
    q: SharedBuf<i8>,
    scale: SharedBuf<f32>,
    sum: SharedBuf<i32>,
}

impl Quantized {
    fn new(rows: usize, cols: usize) -> Option<Self> {
        let blocks = rows * cols.div_ceil(QK);
        Some(Quantized {
            cols,
            q: SharedBuf::zeroed(rows * cols)?,
            scale: SharedBuf::zeroed(blocks)?,
            sum: SharedBuf::zeroed(blocks)?,
        })
    }

    /// Row `t` for writing.
    ///
    /// # Safety
    /// As [`SharedBuf::write`], for that row.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn row(&self, t: usize) -> (&mut [i8], &mut [f32], &mut [i32]) {
        // SAFETY: the caller's.
        unsafe { self.part(t, 0..self.cols) }
    }

    /// Some columns (whole blocks) of row `t` for writing.
    ///
    /// # Safety
    /// As [`SharedBuf::write`], for those.
    // Three slices returned through memory are read back before they are written: 1.4% of prefill.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(
        &self,
        t: usize,
        columns: Range<usize>,
    ) -> (&mut [i8], &mut [f32], &mut [i32]) {
        assert!(columns.start.is_multiple_of(QK) && columns.len().is_multiple_of(QK));
        assert!(columns.end <= self.cols);
        let q = t * self.cols + columns.start;
        let block = t * (self.cols / QK) + columns.start / QK;
        let (len, blocks) = (columns.len(), columns.len() / QK);
        // SAFETY: the caller's.
        unsafe {
            (
                self.q.write(q..q + len),
                self.scale.write(block..block + blocks),
                self.sum.write(block..block + blocks),
            )
        }
    }

    /// Asks for some columns of row `t`, which will be written soon.
    #[inline]
    pub(crate) fn ask_to_write(&self, t: usize, columns: Range<usize>) {
        self.q.ask_to_write(t * self.cols + columns.start..t * self.cols + columns.end);
    }

    /// The first `n` rows for reading, beside their f32 form.
    ///
    /// # Safety
    /// As [`SharedBuf::read`], for those rows here and in `x`.
    pub(crate) unsafe fn rows<'a>(&'a self, x: &'a SharedBuf<f32>, n: usize) -> Rows<'a> {
        let (c, b) = (self.cols, self.cols / QK);
        // SAFETY: the caller's.
        unsafe {
            Rows {
                n,
                cols: c,
                x: x.read(0..n * c),
                q: self.q.read(0..n * c),
                scale: self.scale.read(0..n * b),
                sum: self.sum.read(0..n * b),
                packed: None,
            }
        }
    }
}

/// Bytes of activations laid out for the tiles, whatever the types of the weights.
fn packed_bytes(rows: usize, cols: usize) -> usize {
    // As bf16 they take the most; in groups of 16, it is 28 bytes a group.
    rows * cols * 2
}

/// Rows laid out for the tiles.
///
/// # Safety
/// As [`SharedBuf::read`], for all of them.
pub(crate) unsafe fn packed_rows(from: &SharedBuf<u8>, packing: Packing) -> Rows<'_> {
    let (n, cols) = packing.of();
    // SAFETY: the caller's.
    let bytes = unsafe { from.read(0..packing.bytes()) };
    Rows { n, cols, packed: Some(Packed { packing, bytes }), ..Rows::default() }
}

/// What is computed row by row. For a small batch every thread has its own and computes all of it,
/// which costs less than meeting; for a large one the threads share one and split the rows.
pub(crate) struct RowBufs {
    /// The residual stream, `[n, hidden]`.
    pub(crate) x: SharedBuf<f32>,
    /// Its norm, `[n, hidden]`.
    pub(crate) h: SharedBuf<f32>,
    pub(crate) h_q: Quantized,
    /// Attention's output, `[n, heads · head_dim]`.
    pub(crate) a: SharedBuf<f32>,
    pub(crate) a_q: Quantized,
}

impl RowBufs {
    pub(crate) fn new(c: &GemmaConfig, rows: usize) -> Option<Self> {
        Some(RowBufs {
            x: SharedBuf::zeroed(rows * c.hidden)?,
            h: SharedBuf::zeroed(rows * c.hidden)?,
            h_q: Quantized::new(rows, c.hidden)?,
            a: SharedBuf::zeroed(rows * c.q_dim())?,
            a_q: Quantized::new(rows, c.q_dim())?,
        })
    }
}

/// What every thread computes a part of and all of them read.
pub(crate) struct Shared {
    /// q, k and v side by side, `[n, (heads + 2 kv_heads) · head_dim]`.
    pub(crate) qkv: SharedBuf<f32>,
    /// Queries ready for attention, `[n, heads, head_pad]`.
    pub(crate) q: SharedBuf<f32>,
    /// Cosines and sines of each row's position, `[n, 2 tables, 2, head_dim / 2]`.
    pub(crate) angles: SharedBuf<f32>,
    /// Output of the projections back to the residual stream, `[n, hidden]`.
    pub(crate) o: SharedBuf<f32>,
    /// GELU(gate) · up, `[n, ffn]`, where the next matmul wants it so.
    pub(crate) g: SharedBuf<f32>,
    /// The same, quantized, where it wants that.
    pub(crate) g_q: Quantized,
    /// The same, laid out for the tiles, where it is read by tiles.
    pub(crate) g_packed: SharedBuf<u8>,
    /// h or a, whichever the next matmul reads, laid out for the tiles.
    pub(crate) packed: SharedBuf<u8>,
    /// What each thread found of each row's and head's attention over its part of the cache:
    /// `[small rows, heads, threads, head_pad + 2]`; the last two are the sum and the maximum.
    pub(crate) parts: SharedBuf<f32>,
    /// `[wanted, vocab]`
    pub(crate) logits: SharedBuf<f32>,
}

impl Shared {
    pub(crate) fn new(c: &GemmaConfig, rows: usize, small: usize, threads: usize) -> Option<Self> {
        let pad = c.head_dim.next_multiple_of(HEAD_PAD);
        Some(Shared {
            qkv: SharedBuf::zeroed(rows * (c.q_dim() + 2 * c.kv_dim()))?,
            q: SharedBuf::zeroed(rows * c.heads * pad)?,
            angles: SharedBuf::zeroed(rows * 2 * c.head_dim)?,
            o: SharedBuf::zeroed(rows * c.hidden)?,
            g: SharedBuf::zeroed(rows * c.ffn)?,
            g_q: Quantized::new(rows, c.ffn)?,
            g_packed: SharedBuf::zeroed(packed_bytes(rows, c.ffn))?,
            packed: SharedBuf::zeroed(packed_bytes(rows, c.hidden.max(c.q_dim())))?,
            parts: SharedBuf::zeroed(small * c.heads * threads * (pad + 2))?,
            logits: SharedBuf::zeroed(0)?,
        })
    }
}
