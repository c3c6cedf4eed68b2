//! Every instruction set of this CPU against the codec, on the edges of every shape.
//!
//! The reference decodes the weights with the codec and takes dot products in f64. The
//! integer part of a kernel is exact, so it may differ from the reference only by the rounding of
//! f32 sums and scale products: at most `eps` relative for each of the operations that lie between a
//! term and the result, that is `eps · operations · Σ|terms|`, where a row has one addition a block
//! of 32 and a few products. No term grows on the way, so that this bound holds for every order of
//! summation. The scalar kernel also sums the 32 terms of a block in f32.

use half::f16;
use lapidary_quant::codec::{QK, decode_row};
use lapidary_quant::kernels::{Input, Isa, Kernels, Rows, Scratch};
use lapidary_quant::{DType, Matrix};

const ROWS: [usize; 9] = [1, 2, 3, 15, 16, 17, 31, 33, 48];
const TOKENS: [usize; 14] = [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 33, 64];
const COLS: [usize; 14] = [32, 64, 96, 128, 160, 192, 224, 256, 288, 544, 640, 1024, 1056, 2080];

/// xorshift64*: the same numbers everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// Uniform in -1..1.
    fn unit(&mut self) -> f32 {
        self.next() as i32 as f32 / 2147483648.0
    }
}

/// How the bytes of weights and activations are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fill {
    Random,
    /// All quants at one end, all activations at ±127: what saturates if anything does.
    Low,
    High,
    /// Scales of 0 and -0 among others.
    ZeroScales,
}

const FILLS: [Fill; 4] = [Fill::Random, Fill::Low, Fill::High, Fill::ZeroScales];

fn scale(rng: &mut Rng, fill: Fill) -> [u8; 2] {
    let d = match fill {
        Fill::ZeroScales => [0.0, -0.0, 1.0][rng.next() as usize % 3],
        _ => rng.unit() * 0.1,
    };
    f16::from_f32(d).to_le_bytes()
}

/// Of a block: where its f16 scale is, and where its f16 scale of minimums, if it has one.
fn scales(dtype: DType) -> (usize, Option<usize>) {
    match dtype {
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 | DType::IQ4_NL | DType::IQ4_XS => (0, None),
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => (0, Some(2)),
        DType::Q2_K => (80, Some(82)),
        DType::Q3_K => (108, None),
        DType::Q6_K => (208, None),
        DType::F32 | DType::F16 | DType::BF16 => unreachable!("{dtype} has no scales"),
    }
}

/// One row of valid weights.
fn weights(rng: &mut Rng, fill: Fill, dtype: DType, cols: usize) -> Vec<u8> {
    let mut out = vec![0; dtype.row_bytes(cols).expect("whole blocks")];
    if dtype.is_float() {
        let x: Vec<f32> = (0..cols).map(|_| rng.unit()).collect();
        lapidary_quant::codec::encode_row(dtype, &x, &mut out);
        return out;
    }
    let (d, min) = scales(dtype);
    for block in out.chunks_exact_mut(dtype.block_bytes()) {
        for (i, b) in block.iter_mut().enumerate() {
            // What is signed has its ends elsewhere: the quants of Q8_0, the sub-scales of Q6_K.
            let signed = dtype == DType::Q8_0 || dtype == DType::Q6_K && i >= 192;
            *b = match fill {
                Fill::Low => [0x00, 0x80][usize::from(signed)],
                Fill::High => [0xFF, 0x7F][usize::from(signed)],
                _ => rng.next() as u8,
            };
        }
        for at in [Some(d), min].into_iter().flatten() {
            block[at..][..2].copy_from_slice(&scale(rng, fill));
        }
    }
    out
}

/// The magnitudes that a row's weights are made of: |d · q| + |m|, where the weight itself may be
/// small because the two cancel.
fn magnitudes(dtype: DType, row: &[u8], weights: &[f32]) -> Vec<f64> {
    let Some(min) = (!dtype.is_float()).then(|| scales(dtype).1).flatten() else {
        return weights.iter().map(|&w| f64::from(w).abs()).collect();
    };
    let mut row = row.to_vec();
    row.chunks_exact_mut(dtype.block_bytes()).for_each(|b| b[min..][..2].fill(0));
    let mut without = vec![0.0; weights.len()];
    decode_row(dtype, &row, &mut without);
    let pairs = weights.iter().zip(without);
    pairs.map(|(&w, q)| f64::from(q).abs() + (f64::from(w) - f64::from(q)).abs()).collect()
}

/// `n` rows of activations, both as f32 and quantized.
struct Acts {
    n: usize,
    cols: usize,
    x: Vec<f32>,
    q: Vec<i8>,
    scale: Vec<f32>,
    sum: Vec<i32>,
}

impl Acts {
    fn new(rng: &mut Rng, fill: Fill, n: usize, cols: usize) -> Self {
        let x: Vec<f32> = (0..n * cols).map(|_| rng.unit() * 3.0).collect();
        let q: Vec<i8> = (0..n * cols)
            .map(|_| match fill {
                Fill::Low | Fill::High => [-127, 127][rng.next() as usize / 3 % 8 / 7],
                _ => (rng.next() % 255) as i8,
            })
            .map(|q: i8| q.max(-127))
            .collect();
        let scale = (0..n * cols / QK).map(|_| rng.unit().abs()).collect();
        let sum = q.chunks(QK).map(|b| b.iter().map(|&q| i32::from(q)).sum()).collect();
        Acts { n, cols, x, q, scale, sum }
    }

    fn rows(&self) -> Rows<'_> {
        Rows {
            n: self.n,
            cols: self.cols,
            x: &self.x,
            q: &self.q,
            scale: &self.scale,
            sum: &self.sum,
            packed: None,
        }
    }

    fn value(&self, input: Input, t: usize, c: usize) -> f64 {
        let i = t * self.cols + c;
        match input {
            Input::F32 => f64::from(self.x[i]),
            Input::Q8 => f64::from(self.q[i]) * f64::from(self.scale[i / QK]),
        }
    }
}

/// The result and the sum of its terms' magnitudes, `[n, rows]`.
fn reference(w: Matrix<'_>, x: &Acts) -> Vec<(f64, f64)> {
    let mut row = vec![0.0; w.cols()];
    let mut out = vec![(0.0, 0.0); x.n * w.rows()];
    let input = Input::of(w.dtype());
    for r in 0..w.rows() {
        decode_row(w.dtype(), w.row(r), &mut row);
        let sizes = magnitudes(w.dtype(), w.row(r), &row);
        for t in 0..x.n {
            let (sum, abs) = &mut out[t * w.rows() + r];
            for (c, (&w, size)) in row.iter().zip(&sizes).enumerate() {
                let x = x.value(input, t, c);
                *sum += f64::from(w) * x;
                *abs += size * x.abs();
            }
        }
    }
    out
}

/// Has this instruction set int8 kernels for the format? Where not, it multiplies in f32.
fn int8(isa: Isa, dtype: DType) -> bool {
    match isa {
        Isa::NeonDotprod | Isa::NeonI8mm => {
            matches!(dtype, DType::Q4_0 | DType::Q8_0 | DType::IQ4_NL)
        }
        _ => true,
    }
}

fn check(dtype: DType, fill: Fill, rows: usize, cols: usize, n: usize, odd: usize) {
    let mut rng = Rng(0x9E37_79B9_7F4A_7C15 ^ (rows * 31 + cols * 7 + n) as u64);
    let mut data = vec![0xA5; odd];
    for _ in 0..rows {
        data.extend(weights(&mut rng, fill, dtype, cols));
    }
    let w = Matrix::new(dtype, rows, cols, &data[odd..]).expect("sizes fit");
    let x = Acts::new(&mut rng, fill, n, cols);
    let want = reference(w, &x);
    for isa in Isa::available() {
        let kernels = Kernels::for_isa(isa).expect("available");
        // All rows, and all but the first and last where there are that many.
        let cut = usize::from(rows > 2);
        for range in [0..rows, cut..rows - cut] {
            let ld = range.len() + 3;
            let mut y = vec![f32::NAN; n * ld];
            let mut scratch = Scratch::default();
            kernels.matmul(w, range.clone(), x.rows(), &mut y, ld, &mut scratch);
            // Per block: an addition; besides the two scale products, a final reduction of up to 16
            // lanes, and for plain f32 sums one addition a weight.
            let ops = match kernels.isa_for(dtype) {
                _ if dtype.is_float() || !int8(isa, dtype) => cols + 4,
                Isa::Scalar => cols / QK + QK + 4,
                _ => cols / QK + 8,
            };
            for t in 0..n {
                for (i, r) in range.clone().enumerate() {
                    let (want, abs) = want[t * rows + r];
                    let got = f64::from(y[t * ld + i]);
                    let bound = f64::from(f32::EPSILON) * ops as f64 * abs;
                    assert!(
                        (got - want).abs() <= bound,
                        "{isa} {dtype} {fill:?} {rows}x{cols} n={n} token {t} row {r}: \
                         {got} is not {want} ± {bound}"
                    );
                }
                for pad in &y[t * ld + range.len()..(t + 1) * ld] {
                    assert!(pad.is_nan(), "{isa} {dtype} wrote past its rows");
                }
            }
        }
    }
}

#[test]
fn every_number_of_rows_and_tokens() {
    for dtype in DType::ALL {
        for rows in ROWS {
            for n in TOKENS {
                check(dtype, Fill::Random, rows, 160.max(dtype.block_len()), n, rows % 2);
            }
        }
    }
}

#[test]
fn every_number_of_columns() {
    for dtype in DType::ALL {
        for cols in COLS.into_iter().filter(|c| c.is_multiple_of(dtype.block_len())) {
            for n in [1, 2, 5, 13] {
                check(dtype, Fill::Random, 18, cols, n, 1);
            }
        }
    }
}

/// Float rows need not be whole blocks: every length about the vectors' and the panels'.
#[test]
fn odd_columns_of_floats() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for cols in (1..70).chain([127, 129, 511, 513, 1023, 1027]) {
            for n in [1, 2, 3, 4, 7, 13] {
                check(dtype, Fill::Random, 35, cols, n, cols % 2);
            }
        }
    }
}

#[test]
fn extreme_values() {
    for dtype in DType::ALL {
        for fill in FILLS {
            for (rows, cols) in [(5, 256), (17, 2048 + 256)] {
                for n in [1, 3, 14] {
                    check(dtype, fill, rows, cols, n, 0);
                }
            }
        }
    }
}

#[test]
fn long_rows() {
    for dtype in DType::ALL {
        for cols in [6912 / 256 * 256, 21504] {
            for n in [1, 2, 13] {
                check(dtype, Fill::Random, 19, cols, n, 0);
            }
        }
    }
}

/// What a kernel keeps of activations in the scratch memory is its own: with the same activations
/// promised, formats, numbers of tokens and instruction sets take turns and come to what each comes
/// to with a scratch of its own.
#[test]
fn scratch_is_kept_apart() {
    let (rows, cols) = (35, 512);
    let mut rng = Rng(11);
    let acts = [1, 3, 14].map(|n| Acts::new(&mut rng, Fill::Random, n, cols));
    for isa in Isa::available() {
        let kernels = Kernels::for_isa(isa).expect("available");
        let mut shared = Scratch::default();
        for round in 0..2 {
            for (input, x) in (1..).zip(&acts) {
                shared.set_input(input);
                for dtype in DType::ALL {
                    let row = |r| weights(&mut Rng(5 + r), Fill::Random, dtype, cols);
                    let data: Vec<u8> = (0..rows as u64).flat_map(row).collect();
                    let w = Matrix::new(dtype, rows, cols, &data).expect("sizes fit");
                    let multiply = |scratch: &mut Scratch, rows: std::ops::Range<usize>| {
                        let mut y = vec![f32::NAN; x.n * rows.len()];
                        let ld = rows.len();
                        kernels.matmul(w, rows, x.rows(), &mut y, ld, scratch);
                        y
                    };
                    for part in [0..20, 20..35] {
                        let want = multiply(&mut Scratch::default(), part.clone());
                        let got = multiply(&mut shared, part);
                        assert_eq!(got, want, "{isa} {dtype} n={} round {round}", x.n);
                    }
                }
            }
        }
    }
}

/// Where the tests are to run on a certain CPU, emulated or not, `LAPIDARY_EXPECT_ISA` says so: all
/// that is tested here is tested for every instruction set that is found, and nothing for others.
#[test]
fn expected_sets_are_there() {
    let expected = std::env::var("LAPIDARY_EXPECT_ISA").unwrap_or_default();
    for name in expected.split(',').filter(|n| !n.is_empty()) {
        let isa = Isa::from_name(name).expect("the name of an instruction set");
        assert!(Isa::available().contains(&isa), "{isa} is not among {:?}", Isa::available());
    }
}

#[test]
fn quantize_is_the_same_everywhere() {
    let mut rng = Rng(7);
    let specials = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        f32::MIN_POSITIVE,
        1e-45,
        -1e-45,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -f32::NAN,
    ];
    let mut x: Vec<f32> = Vec::new();
    for block in 0..400 {
        let size = 2.0f32.powi(block % 260 - 135);
        x.extend((0..QK).map(|_| rng.unit() * size));
    }
    // Ties: the scale is exactly 1, and the values lie half-way between two integers.
    x.extend((0..QK).map(|i| if i == 0 { 127.0 } else { i as f32 * 7.5 - 120.5 }));
    for special in specials {
        for i in [0, 5, 31] {
            let at = x.len();
            x.extend((0..QK).map(|_| rng.unit()));
            x[at + i] = special;
        }
        x.extend([special; QK]);
    }
    let scalar = Kernels::for_isa(Isa::Scalar).expect("always there");
    for cols in [QK, 2 * QK, 5 * QK, x.len()] {
        let quantize = |kernels: Kernels| {
            let mut out = (vec![99; x.len()], vec![f32::NAN; x.len() / QK], vec![-1; x.len() / QK]);
            for (i, x) in x.chunks(cols).enumerate() {
                let (at, b, n) = (i * cols, i * cols / QK, x.len() / QK);
                kernels.quantize(
                    x,
                    &mut out.0[at..][..x.len()],
                    &mut out.1[b..][..n],
                    &mut out.2[b..][..n],
                );
            }
            (out.0, out.1.into_iter().map(f32::to_bits).collect::<Vec<_>>(), out.2)
        };
        let want = quantize(scalar);
        for isa in Isa::available() {
            let got = quantize(Kernels::for_isa(isa).expect("available"));
            for b in 0..x.len() / QK {
                assert_eq!(got.0[b * QK..][..QK], want.0[b * QK..][..QK], "{isa} block {b}");
            }
            assert_eq!(got, want, "{isa}");
        }
    }
}
