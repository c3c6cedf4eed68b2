//! A few tokens: strips of 16 weight rows are multiplied as they are unpacked, one group at a time, in
//! registers, with all the tokens that there are.
//!
//! Memory is asked for one strip ahead ([`Run`]): 16 rows read side by side are 16 streams, which no
//! hardware prefetcher follows well.

use std::arch::x86_64::*;

use super::strip::{At, ROWS, Strip};
use crate::kernels::panel::{COUNTS, Layout};
use crate::kernels::streams::Run;
use crate::kernels::{Job, Scratch};

/// The most tokens: that many accumulators, 8 registers of weights and their scales.
pub(super) const TOKENS: usize = 12;

/// # Safety
/// AVX-512 F, BW, DQ, VL and VNNI; `job` holds what its documentation says, its weights are `F`'s and
/// at most `TOKENS` tokens are asked for.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn matmul<F: Strip>(job: Job<'_>, scratch: &mut Scratch) {
    // SAFETY: passed on.
    unsafe {
        match job.x.n {
            2 => strips::<F, 2>(job, scratch),
            3 => strips::<F, 3>(job, scratch),
            4 => strips::<F, 4>(job, scratch),
            5 => strips::<F, 5>(job, scratch),
            6 => strips::<F, 6>(job, scratch),
            7 => strips::<F, 7>(job, scratch),
            8 => strips::<F, 8>(job, scratch),
            9 => strips::<F, 9>(job, scratch),
            10 => strips::<F, 10>(job, scratch),
            11 => strips::<F, 11>(job, scratch),
            12 => strips::<F, 12>(job, scratch),
            n => unreachable!("{n} tokens at once"),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn strips<F: Strip, const T: usize>(job: Job<'_>, scratch: &mut Scratch) {
    let Job { w, rows, x, y, ld } = job;
    let shape = F::SHAPE;
    debug_assert_eq!(w.row_bytes(), x.cols / F::BLOCK_LEN * F::BLOCK_BYTES);
    let groups = x.cols / shape.group;
    let layout = Layout { tile: T, shape, tokens: (0, T), cols: x.cols };
    let (pack, there) = scratch.pack.keep(layout, groups * shape.pack_bytes(T));
    if !there {
        shape.pack(x, 0, T, pack);
    }
    let ask = Run::new(ROWS * w.row_bytes(), groups);
    for r0 in rows.clone().step_by(ROWS) {
        let strip = ROWS.min(rows.end - r0);
        let at = At::strip(w, r0, rows.end, &mut scratch.spare);
        let next = w.data().as_ptr().wrapping_add((r0 + ROWS) * w.row_bytes());
        let mut acc = [_mm512_setzero_ps(); T];
        for g in 0..groups {
            ask.step(next, g);
            // SAFETY: the rows and the pack hold `groups` groups.
            unsafe {
                let group = F::group(at, g);
                let pack = pack.as_ptr().add(g * shape.pack_bytes(T));
                let rest = pack.add(T * shape.group).cast::<i32>();
                let mut sum = [_mm512_setzero_si512(); T];
                for (t, sum) in sum.iter_mut().enumerate() {
                    *sum = _mm512_set1_epi32(rest.add(T + t).read());
                }
                for i in 0..shape.group / 4 {
                    for (t, sum) in sum.iter_mut().enumerate() {
                        let x = pack.add(t * shape.group + i * 4).cast::<i32>().read_unaligned();
                        *sum = _mm512_dpbusd_epi32(*sum, group.q[i], _mm512_set1_epi32(x));
                    }
                }
                let zero = _mm512_mul_ps(group.d, _mm512_set1_ps(COUNTS));
                for t in 0..T {
                    let scale = _mm512_set1_ps(rest.add(t).cast::<f32>().read());
                    let v = _mm512_fmsub_ps(_mm512_castsi512_ps(sum[t]), group.d, zero);
                    acc[t] = _mm512_fmadd_ps(v, scale, acc[t]);
                }
                if shape.mins {
                    for (t, acc) in acc.iter_mut().enumerate() {
                        let minsum = _mm512_set1_ps(rest.add(2 * T + t).cast::<f32>().read());
                        *acc = _mm512_fmadd_ps(group.m, minsum, *acc);
                    }
                }
            }
        }
        let mask = (u32::MAX >> (32 - strip)) as __mmask16;
        for (t, acc) in acc.iter().enumerate() {
            let y = y[t * ld + r0 - rows.start..].as_mut_ptr();
            // SAFETY: `y` holds `strip` elements from there on.
            unsafe { _mm512_mask_storeu_ps(y, mask, *acc) };
        }
    }
}
