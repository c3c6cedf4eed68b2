//! A few tokens: strips of 16 weight rows are multiplied as they are unpacked, one group of eight rows
//! at a time, in registers, with all the tokens that there are. Memory is asked for one strip ahead
//! ([`Run`]).

use std::arch::x86_64::*;

use super::dot::Dot;
use super::strip::{At, OCTET, ROWS, Strip};
use crate::Matrix;
use crate::kernels::panel::{COUNTS, Lines, START};
use crate::kernels::streams::Run;
use crate::kernels::{Job, Scratch};

/// The most tokens.
pub(super) const TOKENS: usize = 3;

/// What [`strips`] works on.
pub(super) struct Strips<'a> {
    w: Matrix<'a>,
    rows: std::ops::Range<usize>,
    pack: &'a [u8],
    y: &'a mut [f32],
    ld: usize,
    spare: &'a mut Lines,
}

/// # Safety
/// The features of `D`; `job` holds what its documentation says, its weights are `F`'s and at most
/// `TOKENS` tokens are asked for.
pub(super) unsafe fn matmul<D: Dot, F: Strip>(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, ld } = job;
    let shape = F::SHAPE;
    debug_assert_eq!(w.row_bytes(), x.cols / F::BLOCK_LEN * F::BLOCK_BYTES);
    let pack = scratch.pack.at_least(x.cols / shape.group * shape.pack_bytes(x.n));
    shape.pack(x, 0, x.n, pack);
    let strips = Strips { w, rows, pack, y, ld, spare: &mut scratch.spare };
    // SAFETY: passed on.
    unsafe {
        match x.n {
            2 => D::direct::<F, 2>(strips),
            3 => D::direct::<F, 3>(strips),
            n => unreachable!("{n} tokens at once"),
        }
    }
}

/// # Safety
/// The features of `D`; the rows of `w` are `F`'s, the pack has `T` tokens and as many columns, `y`
/// is as [`Job`] says.
#[inline(always)]
pub(super) unsafe fn strips<D: Dot, F: Strip, const T: usize>(job: Strips<'_>) {
    let Strips { w, rows, pack, y, ld, spare } = job;
    let shape = F::SHAPE;
    let groups = w.cols() / shape.group;
    assert!(pack.len() >= groups * shape.pack_bytes(T));
    let ask = Run::new(ROWS * w.row_bytes(), groups);
    for r0 in rows.clone().step_by(ROWS) {
        let strip = ROWS.min(rows.end - r0);
        let at = At::strip(w, r0, rows.end, spare);
        let next = w.data().as_ptr().wrapping_add((r0 + ROWS) * w.row_bytes());
        // SAFETY: the caller has the features, the strip and the pack have `groups` groups.
        unsafe {
            let mut acc = [[_mm256_setzero_ps(); T]; 2];
            for g in 0..groups {
                ask.step(next, g);
                let pack = pack.as_ptr().add(g * shape.pack_bytes(T));
                acc[0] = octet::<D, F, T>(at, g, pack, acc[0]);
                acc[1] = octet::<D, F, T>(at.below(OCTET), g, pack, acc[1]);
            }
            for t in 0..T {
                let mut out = [0.0f32; ROWS];
                _mm256_storeu_ps(out.as_mut_ptr(), acc[0][t]);
                _mm256_storeu_ps(out.as_mut_ptr().add(OCTET), acc[1][t]);
                y[t * ld + r0 - rows.start..][..strip].copy_from_slice(&out[..strip]);
            }
        }
    }
}

#[inline(always)]
unsafe fn octet<D: Dot, F: Strip, const T: usize>(
    at: At,
    g: usize,
    pack: *const u8,
    mut acc: [__m256; T],
) -> [__m256; T] {
    let shape = F::SHAPE;
    let fours = shape.group / 4;
    let chain = D::chain(F::MAX);
    // SAFETY: the caller has the features; the rows have group `g`, the pack its fields.
    unsafe {
        let group = F::group(at, g);
        let rest = pack.add(T * shape.group).cast::<i32>();
        let init = |t: usize| _mm256_set1_epi32(rest.add(T + t).read());
        let mut sum = [D::start(F::MAX, START, || init(0)); T];
        for (t, sum) in sum.iter_mut().enumerate().skip(1) {
            *sum = D::start(F::MAX, START, || init(t));
        }
        for i in 0..fours {
            if i > 0 && i.is_multiple_of(chain) {
                for sum in &mut sum {
                    *sum = D::widen(*sum);
                }
            }
            let w = D::weights(F::MAX, group.q[i]);
            for (t, sum) in sum.iter_mut().enumerate() {
                let x = pack.add(t * shape.group + i * 4).cast::<i32>().read_unaligned();
                *sum = D::add(F::MAX, *sum, w, _mm256_set1_epi32(x));
            }
        }
        let zero = _mm256_mul_ps(group.d, _mm256_set1_ps(COUNTS));
        for t in 0..T {
            let scale = _mm256_broadcast_ss(&*rest.add(t).cast::<f32>());
            let v = _mm256_castsi256_ps(D::finish(F::MAX, sum[t], || init(t)));
            acc[t] = _mm256_fmadd_ps(_mm256_fmsub_ps(v, group.d, zero), scale, acc[t]);
            if shape.mins {
                let minsum = _mm256_broadcast_ss(&*rest.add(2 * T + t).cast::<f32>());
                acc[t] = _mm256_fmadd_ps(group.m, minsum, acc[t]);
            }
        }
        acc
    }
}
