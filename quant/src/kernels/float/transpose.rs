//! Rows of floats become columns.

use super::{F32, FloatIsa};

/// `to[j][i] = from[i][j]`, in squares of vectors; see [`Kernels::transpose`](crate::kernels::Kernels).
#[inline(always)]
pub(in crate::kernels) fn transpose<I: FloatIsa>(
    isa: I,
    from: &[f32],
    width: usize,
    to: &mut [f32],
    height: usize,
) {
    let side = I::WIDTH;
    let rows = from.len() / width;
    let whole = [rows / side * side, width / side * side];
    for i in (0..whole[0]).step_by(side) {
        // Vectors are of 16 floats at most.
        let mut at = [std::ptr::null(); 16];
        for (at, row) in at.iter_mut().zip(from[i * width..].chunks_exact(width)).take(side) {
            *at = row.as_ptr().cast();
        }
        for j in (0..whole[1]).step_by(side) {
            let to = &mut to[j * height + i..][..(side - 1) * height + side];
            // SAFETY: each of these rows has a vector from column j on; as many rows of the result, just
            // taken as a slice, have one from column i on.
            unsafe {
                isa.transpose::<F32>(&at[..side], j * size_of::<f32>(), to.as_mut_ptr(), height);
            }
        }
    }
    plain(from, width, to, height, whole);
}

/// What is left outside the first `done` rows and columns.
pub(in crate::kernels) fn plain(
    from: &[f32],
    width: usize,
    to: &mut [f32],
    height: usize,
    done: [usize; 2],
) {
    for (i, row) in from.chunks_exact(width).enumerate() {
        for j in if i < done[0] { done[1] } else { 0 }..width {
            to[j * height + i] = row[j];
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kernels::{Isa, Kernels};

    #[test]
    fn turns_every_shape() {
        for isa in Isa::available() {
            let kernels = Kernels::for_isa(isa).unwrap();
            for (rows, width, height) in
                [(1, 1, 1), (3, 5, 4), (16, 16, 16), (32, 48, 32), (33, 50, 40), (7, 32, 32)]
            {
                let from: Vec<f32> = (0..rows * width).map(|i| i as f32).collect();
                let mut to = vec![-1.0; width * height];
                kernels.transpose(&from, width, &mut to, height);
                for (k, v) in to.into_iter().enumerate() {
                    let (j, i) = (k / height, k % height);
                    let want = if i < rows { from[i * width + j] } else { -1.0 };
                    assert_eq!(v, want, "{isa}: {rows} × {width}, {j} {i}");
                }
            }
        }
    }
}
