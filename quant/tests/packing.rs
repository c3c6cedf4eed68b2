//! Activations that a caller laid out are multiplied as those that a kernel lays out for itself, bit for
//! bit: for every type and instruction set, on the edges of tiles, groups and the pieces of long rows. Those
//! that are laid out as bf16, which no kernel does for itself, are multiplied as bf16.

use half::bf16;
use lapidary_quant::codec::{QK, decode_row};
use lapidary_quant::kernels::{Isa, Kernels, Packed, Packing, Rows, Scratch, tiles};
use lapidary_quant::{DType, Matrix};

/// Some numbers, the same everywhere: those of a linear congruential generator.
fn noise(seed: u32, n: usize) -> impl Iterator<Item = u32> {
    let mut state = seed;
    (0..n).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    })
}

/// Rows of activations of every size, among them zeros and what has no reciprocal.
fn activations(n: usize, cols: usize) -> Vec<f32> {
    let mut x: Vec<f32> = noise(7, n * cols).map(|v| (v % 4001) as f32 / 2000.0 - 1.0).collect();
    for (b, block) in x.chunks_mut(QK).enumerate() {
        let size = [1.0, 1e-3, 40.0, 1e-40, 0.0][b * 7 % 11 % 5];
        block.iter_mut().for_each(|v| *v *= size);
    }
    x
}

/// Lays `x` out as the threads of a model do: tile by tile, and in pieces of columns.
fn lay_out(kernels: &Kernels, packing: &Packing, x: &[f32], piece: usize) -> Vec<u8> {
    let (n, cols) = packing.of();
    let mut bytes = vec![0xEE; packing.bytes()];
    for tile in tiles(n, kernels.tile()) {
        for from in (0..cols).step_by(piece) {
            let columns = from..cols.min(from + piece);
            let out = &mut bytes[packing.place(&tile, columns.clone())];
            for (i, t) in tile.clone().enumerate() {
                let x = &x[t * cols..][columns.clone()];
                kernels.quantize_packed(x, packing, (i, tile.len()), out);
            }
        }
    }
    bytes
}

fn check(kernels: &Kernels, dtype: DType, (rows, cols, n): (usize, usize, usize), piece: usize) {
    let Some(packing) = kernels.packing(dtype, n, cols) else {
        let isa = kernels.isa_for(dtype);
        let tiles = matches!(isa, Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni);
        assert!(!tiles || n <= 12 || dtype.is_float(), "{isa} reads {n} rows of {dtype} in tiles");
        return;
    };
    // Below 0x40 in every byte: scales are small and finite.
    let bytes = rows * cols / dtype.block_len() * dtype.block_bytes();
    let data: Vec<u8> = noise(3, bytes).map(|b| b as u8 & 0x3F).collect();
    let w = Matrix::new(dtype, rows, cols, &data).expect("sizes fit");
    let x = activations(n, cols);
    let (mut q, mut scale) = (vec![0; n * cols], vec![0.0; n * cols / QK]);
    let mut sum = vec![0; n * cols / QK];
    kernels.quantize(&x, &mut q, &mut scale, &mut sum);
    let plain = Rows { n, cols, q: &q, scale: &scale, sum: &sum, ..Rows::default() };
    let bytes = lay_out(kernels, &packing, &x, piece);
    let packed = Some(Packed { packing, bytes: &bytes });
    let multiply = |x: Rows<'_>| {
        let mut y = vec![f32::NAN; n * rows];
        kernels.matmul(w, 0..rows, x, &mut y, rows, &mut Scratch::default());
        y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let what = format!("{} {dtype} {rows}x{cols} n={n} piece={piece}", kernels.isa());
    let got = multiply(Rows { n, cols, packed, ..Rows::default() });
    if kernels.isa_for(dtype) == Isa::AmxBf16 {
        return check_rounded(w, &x, &got, &what);
    }
    let want = multiply(plain);
    assert_eq!(got, want, "{what}");
    if n >= 40 {
        // Many columns, in whatever pieces: as the scalar kernel has it, but for the order of additions.
        let scalar = Kernels::for_isa(Isa::Scalar).expect("always there");
        let mut y = vec![f32::NAN; n * rows];
        scalar.matmul(w, 0..rows, plain, &mut y, rows, &mut Scratch::default());
        let size = y.iter().fold(0.0f32, |m, y| m.max(y.abs()));
        for (got, want) in want.iter().zip(&y) {
            let error = (f32::from_bits(*got) - want).abs();
            assert!(error <= 1e-5 * size, "{what}: {error} of {size}");
        }
    }
    // Laid out for another number of rows, they are not what the kernel wants, and not read.
    if let Some(other) = kernels.packing(dtype, n + 1, cols) {
        let bytes = vec![0xEE; other.bytes()];
        let packed = Some(Packed { packing: other, bytes: &bytes });
        assert_eq!(multiply(Rows { packed, ..plain }), want, "{what}, with others' packs");
    }
}

/// Products of what the factors are in bf16, exactly, but for the order of additions.
fn check_rounded(w: Matrix<'_>, x: &[f32], got: &[u32], what: &str) {
    // A sum of two f32 may be rounded to either side where the formula is another, and to bf16 then.
    use DType::{Q2_K, Q4_1, Q4_K, Q5_1, Q5_K};
    let mins = matches!(w.dtype(), Q4_1 | Q5_1 | Q2_K | Q4_K | Q5_K);
    let tolerance = if mins { 3e-4 } else { 2e-6 };
    let rounded = |v: &f32| f64::from(bf16::from_f32(*v));
    let mut row = vec![0.0; w.cols()];
    for r in 0..w.rows() {
        decode_row(w.dtype(), w.row(r), &mut row);
        let row: Vec<f64> = row.iter().map(rounded).collect();
        for (t, x) in x.chunks_exact(w.cols()).enumerate() {
            let terms = || row.iter().zip(x).map(|(w, x)| w * rounded(x));
            let (want, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
            let got = f64::from(f32::from_bits(got[t * w.rows() + r]));
            // What has no normal number in f32 counts as zero.
            assert!(
                (got - want).abs() <= tolerance * size + 1e-35,
                "{what} [{t}, {r}]: {got}, not {want}"
            );
        }
    }
}

#[test]
fn laid_out_by_the_caller_or_by_the_kernel() {
    for isa in Isa::available() {
        let kernels = Kernels::for_isa(isa).expect("available");
        for dtype in DType::ALL {
            let unit = dtype.block_len().max(QK);
            for n in [1, 4, 5, 12, 13, 24, 25, 37] {
                for cols in [unit, 3 * unit] {
                    for piece in [QK, 3 * QK, 5 * QK] {
                        check(&kernels, dtype, (18, cols, n), piece);
                    }
                }
            }
            for rows in [1, 16, 32, 33, 48, 70] {
                check(&kernels, dtype, (rows, 2 * unit, 45), QK);
            }
        }
    }
}

/// Rows that are taken in pieces, on CPUs with large second-level caches and on others.
#[test]
fn long_rows() {
    for isa in Isa::available() {
        let kernels = Kernels::for_isa(isa).expect("available");
        for (dtype, n) in
            [(DType::Q4_0, 512), (DType::Q4_K, 300), (DType::Q6_K, 260), (DType::Q2_K, 260)]
        {
            check(&kernels, dtype, (3, 4096, n), 1024);
        }
        check(&kernels, DType::Q8_0, (2, 9216, 40), 9216);
        check(&kernels, DType::Q4_0, (290, 3456, 33), 3456);
    }
}
