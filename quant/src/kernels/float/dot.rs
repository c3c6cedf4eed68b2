//! A few tokens: rows as they lie in the file, along the columns, each weight read once.
//!
//! One token is bound by memory: one row at a time, a single forward stream, with a prefetch that
//! runs on into the next row. Several tokens are bound by the loads of the activations: two rows
//! share each.

use super::{FloatIsa, Job, Scratch, Weight};
use crate::kernels::panel::{Layout, Shape};
use crate::kernels::prefetch::prefetch_stream;

/// Most tokens of a pass over a row.
const TOKENS: usize = 4;
/// Sums in flight for each row, so that additions need not wait for each other.
const CHAINS: usize = 4;

#[inline(always)]
pub(super) fn matmul<I: FloatIsa, W: Weight>(
    isa: I,
    job: Job<'_>,
    scratch: &mut Scratch,
    acts: Shape,
) {
    let Job { w, rows, x, y, ld } = job;
    // The activations on cache lines, each token padded to whole vectors with zeros.
    let padded = x.cols.next_multiple_of(16);
    let layout = Layout { tile: 0, shape: acts, tokens: (0, x.n), cols: x.cols };
    let (acts, there) = scratch.pack.keep(layout, x.n * padded * 4);
    let acts: &mut [f32] = &mut bytemuck::cast_slice_mut(acts)[..x.n * padded];
    if !there {
        for (a, x) in acts.chunks_exact_mut(padded).zip(x.x.chunks_exact(x.cols)) {
            a[..x.len()].copy_from_slice(x);
            a[x.len()..].fill(0.0);
        }
    }
    let mut i = 0;
    while i < rows.len() {
        let pair = x.n > 1 && i + 1 < rows.len();
        let a = w.row(rows.start + i);
        let b = if pair { w.row(rows.start + i + 1) } else { a };
        for t in (0..x.n).step_by(TOKENS) {
            let n = (x.n - t).min(TOKENS);
            let acts = &acts[t * padded..][..n * padded];
            let y = &mut y[t * ld + i..];
            match (pair, n) {
                (false, 1) => dot::<I, W, 1, 1>(isa, [a], acts, y, ld),
                (false, 2) => dot::<I, W, 1, 2>(isa, [a], acts, y, ld),
                (false, 3) => dot::<I, W, 1, 3>(isa, [a], acts, y, ld),
                (false, _) => dot::<I, W, 1, TOKENS>(isa, [a], acts, y, ld),
                (true, 1) => dot::<I, W, 2, 1>(isa, [a, b], acts, y, ld),
                (true, 2) => dot::<I, W, 2, 2>(isa, [a, b], acts, y, ld),
                (true, 3) => dot::<I, W, 2, 3>(isa, [a, b], acts, y, ld),
                (true, _) => dot::<I, W, 2, TOKENS>(isa, [a, b], acts, y, ld),
            }
        }
        i += 1 + usize::from(pair);
    }
}

/// `R` rows times `N` tokens (padded): `y[t * ld + r]` becomes row `r` · token `t`.
#[inline(always)]
fn dot<I: FloatIsa, W: Weight, const R: usize, const N: usize>(
    isa: I,
    rows: [&[u8]; R],
    acts: &[f32],
    y: &mut [f32],
    ld: usize,
) {
    let cols = rows[0].len() / W::BYTES;
    let padded = acts.len() / N;
    assert!(acts.len() == N * padded && padded >= cols.next_multiple_of(I::WIDTH));
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
    // With several tokens there are sums enough.
    let chains = if R * N == 1 { CHAINS } else { 8 / (R * N).next_power_of_two() }.max(1);
    let mut acc = [[[isa.zero(); CHAINS]; N]; R];
    let step = CHAINS * I::WIDTH;
    let mut k = 0;
    while k + step <= cols {
        for row in rows {
            prefetch_stream::<1>(row.as_ptr().wrapping_add(k * W::BYTES), step * W::BYTES);
        }
        for c in 0..CHAINS {
            for (r, acc) in acc.iter_mut().enumerate() {
                // SAFETY: `k + step <= cols <= padded` bounds both reads.
                unsafe {
                    let k = k + c * I::WIDTH;
                    let w = W::load(isa, rows[r].as_ptr().add(k * W::BYTES));
                    for (t, acc) in acc.iter_mut().enumerate() {
                        let x = isa.load_f32(acts.as_ptr().add(t * padded + k).cast());
                        acc[c % chains] = isa.fma(w, x, acc[c % chains]);
                    }
                }
            }
        }
        k += step;
    }
    while k < cols {
        for (row, acc) in rows.iter().zip(&mut acc) {
            let w = vector::<I, W>(isa, &row[k * W::BYTES..]);
            for (t, acc) in acc.iter_mut().enumerate() {
                // SAFETY: `padded` is a multiple of vectors and larger than `k`, which is one too.
                let x = unsafe { isa.load_f32(acts.as_ptr().add(t * padded + k).cast()) };
                acc[0] = isa.fma(w, x, acc[0]);
            }
        }
        k += I::WIDTH;
    }
    for (r, acc) in acc.iter().enumerate() {
        for (t, a) in acc.iter().enumerate() {
            y[t * ld + r] = isa.sum(isa.add(isa.add(a[0], a[1]), isa.add(a[2], a[3])));
        }
    }
}

/// The next vector of a row, padded with zeros where the row ends.
#[inline(always)]
fn vector<I: FloatIsa, W: Weight>(isa: I, bytes: &[u8]) -> I::V {
    let mut padded = [0u8; 64];
    let n = (I::WIDTH * W::BYTES).min(bytes.len());
    padded[..n].copy_from_slice(&bytes[..n]);
    assert!(I::WIDTH * W::BYTES <= padded.len());
    // SAFETY: a vector of weights fits `padded`.
    unsafe { W::load(isa, padded.as_ptr()) }
}
