//! Kernels against the ceilings of the machine: decode as a share of the read bandwidth, prefill as
//! a share of the int8 peak (of the f32 peak, for float weights). The ceiling is measured again before
//! every kernel, and each pair runs several times; rates are per second of processor time. So the
//! shares mean something even on a machine with neighbours, as far as those do not use the memory.
//!
//! ```text
//! cargo bench -p lapidary-quant --bench kernels [-- FILTER...]
//! ```
//!
//! A filter is a piece of a line's name, such as `avx512`, `prefill`, `q4_0` or `2t`.

use std::sync::Mutex;
use std::time::Duration;

use lapidary_quant::codec::QK;
use lapidary_quant::kernels::ceiling::{Clock, Pattern, f32_peak, int8_peak, rate};
use lapidary_quant::kernels::{Input, Isa, Kernels, Rows, Scratch};
use lapidary_quant::{DType, Matrix};

/// (rows, columns) of a prefill: the matrices of Gemma 3 1B, 270M and 27B. Formats with blocks of 256
/// skip those that are not whole blocks.
const SHAPES: [(usize, usize); 4] = [(1152, 1152), (6912, 1152), (1152, 6912), (2048, 5376)];
const TOKENS: [usize; 4] = [16, 64, 128, 512];
const ROUNDS: usize = 15;

fn noise(n: usize) -> Vec<u8> {
    let mut s = 0x9E37_79B9_7F4A_7C15u64;
    let mut out = Vec::with_capacity(n + 8);
    while out.len() < n {
        s ^= s >> 12;
        s ^= s << 25;
        s ^= s >> 27;
        out.extend(s.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    out.truncate(n);
    out
}

/// Random bytes as weights: only the scales must be sane. Floats are all the same small number.
/// `None` where rows are not whole blocks.
fn weights(dtype: DType, rows: usize, cols: usize) -> Option<Vec<u8>> {
    let row = dtype.row_bytes(cols)?;
    if dtype.is_float() {
        return Some(vec![0x11; row * rows]);
    }
    let mut data = noise(row);
    for block in data.chunks_exact_mut(dtype.block_bytes()) {
        // Wherever a format has its one or two scales.
        let end = block.len() - 2;
        for at in [0, 2, end] {
            block[at..at + 2].copy_from_slice(&half::f16::from_f32(0.01).to_le_bytes());
        }
    }
    Some(data.repeat(rows))
}

struct Acts {
    n: usize,
    cols: usize,
    x: Vec<f32>,
    q: Vec<i8>,
    scale: Vec<f32>,
    sum: Vec<i32>,
}

impl Acts {
    fn new(n: usize, cols: usize) -> Self {
        let q: Vec<i8> = noise(n * cols).into_iter().map(|b| (b as i8).max(-127)).collect();
        let sum = q.chunks(QK).map(|b| b.iter().map(|&q| i32::from(q)).sum()).collect();
        Acts { n, cols, x: vec![0.5; n * cols], q, scale: vec![0.01; n * cols / QK], sum }
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
}

/// Multiplications a second on `threads` threads, each of which has a part of the rows, and takes it in
/// sections with results of their own, as a forward pass does.
fn speed(kernels: Kernels, w: Matrix<'_>, x: &Acts, threads: usize, min: Duration) -> f64 {
    let part = w.rows().div_ceil(threads).next_multiple_of(16);
    let section = if x.n > 8 { 128 } else { part };
    let memory: Vec<_> = (0..threads)
        .map(|_| Mutex::new((vec![0.0; x.n * section], Scratch::default(), 0)))
        .collect();
    rate(threads, min, Clock::Processor, |t| {
        let rows = (t * part).min(w.rows())..((t + 1) * part).min(w.rows());
        let (y, scratch, input) = &mut *memory[t].lock().expect("no other thread");
        *input += 1;
        scratch.set_input(*input);
        for from in rows.clone().step_by(section) {
            let rows = from..rows.end.min(from + section);
            kernels.matmul(w, rows, x.rows(), y, section, scratch);
        }
        rows.len() as f64 / w.rows() as f64
    })
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

/// Prints best and median of `ROUNDS` interleaved pairs of a kernel and its ceiling.
fn report(name: &str, unit: &str, mut pair: impl FnMut() -> (f64, f64)) {
    let (mut got, mut ceiling) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        let (g, c) = pair();
        got.push(g);
        ceiling.push(c);
    }
    let best = |v: &[f64]| v.iter().copied().fold(0.0, f64::max);
    let shares = got.iter().zip(&ceiling).map(|(g, c)| g / c).collect();
    println!(
        "{name:<46} {:7.1} of {:7.1} {unit}  best/best {:5.1}%  median of pairs {:5.1}%",
        best(&got),
        best(&ceiling),
        100.0 * best(&got) / best(&ceiling),
        100.0 * median(shares),
    );
}

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| filters.iter().all(|f| name.contains(f.as_str()));
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let counts = if cores > 1 { vec![1, cores] } else { vec![1] };
    let big = noise(512 << 20);
    for isa in Isa::available().into_iter().filter(|&i| i != Isa::Scalar) {
        let kernels = Kernels::for_isa(isa).expect("available");
        for dtype in DType::ALL.into_iter().filter(|&d| kernels.isa_for(d) == isa) {
            for &threads in &counts {
                let pattern = Pattern::best(&big, threads, Duration::from_millis(100));
                for n in [1, 2, 4, 8] {
                    for (rows, cols) in [(262144, 640), (262144, 1152), (32768, 6912)] {
                        let name = format!("{isa} decode {dtype} {rows}x{cols} n={n} {threads}t");
                        if !wanted(&name) {
                            continue;
                        }
                        let Some(data) = weights(dtype, rows, cols) else { continue };
                        let w = Matrix::new(dtype, rows, cols, &data).expect("fits");
                        let x = Acts::new(n, cols);
                        report(&name, "GB/s", || {
                            let time = Duration::from_millis(100);
                            let ceiling = pattern.rate(&big, threads, time, Clock::Processor);
                            let speed = speed(kernels, w, &x, threads, Duration::from_millis(60));
                            (data.len() as f64 * speed / 1e9, ceiling)
                        });
                    }
                }
                for n in TOKENS {
                    for (rows, cols) in SHAPES {
                        let name = format!("{isa} prefill {dtype} {rows}x{cols} n={n} {threads}t");
                        if !wanted(&name) {
                            continue;
                        }
                        let Some(data) = weights(dtype, rows, cols) else { continue };
                        let w = Matrix::new(dtype, rows, cols, &data).expect("fits");
                        let x = Acts::new(n, cols);
                        report(&name, "GOPS", || {
                            let peak = match Input::of(dtype) {
                                Input::F32 => f32_peak,
                                Input::Q8 => int8_peak,
                            };
                            let time = Duration::from_millis(5);
                            let ceiling = peak(kernels, threads, time, Clock::Processor);
                            let speed = speed(kernels, w, &x, threads, Duration::from_millis(15));
                            let ops = 2.0 * (rows * cols * n) as f64;
                            (ops * speed / 1e9, ceiling.unwrap_or(f64::NAN))
                        });
                    }
                }
            }
        }
    }
}
