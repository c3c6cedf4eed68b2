//! Kernels against the scalar oracle, on whatever adapter there is: here those that ask for nothing
//! beyond WebGPU's least, in `variants` the others.

mod attention;
mod variants;

mod cache;
mod top;

use std::sync::{Arc, OnceLock};

use quant::DType;
use quant::codec::{can_encode, decode_row, encode_row};
use shaders::params::Pass;
use shaders::{Format, Kernel, Output, Prepare};

use super::adapter::{Adapter, DeviceOptions, adapters};
use super::device::Device;
use super::features::Features;
use super::matrix::{DeviceMatrix, Stack};
use super::ops::{Ends, Grid, InBytes, MatOp};
use super::pipelines::Compiled;
use super::planes::{RowLayout, common_format, format_of};
use super::prepare::Prepared;
use super::region::Bound;
use crate::weights::WeightMatrix;

/// The adapter that tests use; `None`, said aloud, where there is none, unless LAPIDARY_REQUIRE_GPU
/// asks for a failure.
fn adapter() -> Option<Adapter> {
    let found = adapters().into_iter().next();
    if found.is_none() {
        assert!(std::env::var_os("LAPIDARY_REQUIRE_GPU").is_none(), "no GPU adapter");
        eprintln!("SKIPPED: no GPU adapter; nothing of this test ran");
    }
    found
}

/// A device on which everything is multiplied in f32, its largest binding as given.
fn device(max_binding: Option<u64>) -> Option<Arc<Device>> {
    let features = Some(Features::PLAIN);
    let options = DeviceOptions { max_binding, features, ..Default::default() };
    adapter().map(|a| a.open(&options).unwrap())
}

/// The device that tests share.
fn shared() -> Option<Arc<Device>> {
    static DEVICE: OnceLock<Option<Arc<Device>>> = OnceLock::new();
    DEVICE.get_or_init(|| device(None)).clone()
}

/// Numbers between -1 and 1, the same each time.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as i32 as f32 / (1u32 << 31) as f32
        })
        .collect()
}

/// A matrix's bytes. Types that can't be encoded get random blocks with small scales.
fn matrix(dtype: DType, rows: usize, cols: usize, seed: u32) -> (WeightMatrix, Vec<u8>) {
    let row_bytes = dtype.row_bytes(cols).unwrap();
    let mut bytes = vec![0; rows * row_bytes];
    for (r, out) in bytes.chunks_exact_mut(row_bytes).enumerate() {
        let x = noise(cols.max(row_bytes), seed + r as u32 * 7);
        match can_encode(dtype) {
            true => encode_row(dtype, &x[..cols], out),
            false => {
                out.iter_mut().zip(x).for_each(|(b, v)| *b = (v * 127.0) as i8 as u8);
                for block in out.chunks_exact_mut(dtype.block_bytes()) {
                    // Any bits, but those of an f16 of at most 0.5 where there is one.
                    for at in floats_at(dtype) {
                        block[at + 1] &= 0xb8;
                    }
                }
            }
        }
    }
    (WeightMatrix { dtype, rows, cols, bytes: 0..rows * row_bytes }, bytes)
}

/// Where a block has its f16.
fn floats_at(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q5_0 | DType::IQ4_NL | DType::IQ4_XS => &[0],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        _ => unreachable!("{dtype} is encoded"),
    }
}

fn decoded(w: &WeightMatrix, bytes: &[u8]) -> Vec<f32> {
    let view = w.view(bytes);
    let mut out = vec![0.0; w.rows * w.cols];
    for (r, out) in out.chunks_exact_mut(w.cols).enumerate() {
        decode_row(w.dtype, view.row(r), out);
    }
    out
}

/// Runs one matmul on the device: `x` is `[n, cols]`, the result `[n, outputs]`.
fn run(device: &Device, m: &DeviceMatrix, output: Output, x: &[f32], n: usize) -> Vec<f32> {
    run_with(device, m, output, x, n, &How::default())
}

/// How a matmul is run.
#[derive(Clone, Copy, Debug, Default)]
struct How {
    /// So many lanes along a row of weights, where there are few rows of x.
    lanes: Option<usize>,
    /// As after a norm that left x in bytes as well.
    in_bytes: bool,
    /// What one row gives is left in bytes, which are checked against nothing here but decoded.
    to_bytes: bool,
}

/// The first floats of a buffer.
fn copied(device: &Device, from: &wgpu::Buffer, floats: usize) -> Vec<f32> {
    let staging = device.staging((floats * 4) as u64);
    let mut encoder = device.device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(from, 0, &staging, 0, (floats * 4) as u64);
    device.queue.submit([encoder.finish()]);
    let mut out = vec![0.0; floats];
    device.read(&staging, &mut out).unwrap();
    out
}

/// Do these blocks of bytes, with their scales and sums, stand for `values`?
fn check_bytes(values: &[f32], bytes: &[f32], scales: &[f32], what: &str) {
    let bytes: &[i8] = bytemuck::cast_slice(bytes);
    for (b, block) in values.chunks_exact(32).enumerate() {
        let (scale, sum) = (scales[2 * b], scales[2 * b + 1]);
        let bytes = &bytes[32 * b..][..32];
        let total: i32 = bytes.iter().map(|b| i32::from(*b)).sum();
        assert_eq!(sum, total as f32, "{what}, block {b}");
        for (q, v) in bytes.iter().zip(block) {
            let error = (f32::from(*q) * scale - v).abs();
            assert!(error <= scale * 0.501, "{what}, block {b}: {q} · {scale}, not {v}");
        }
    }
}

/// As [`run`].
fn run_with(
    device: &Device,
    m: &DeviceMatrix,
    output: Output,
    x: &[f32],
    n: usize,
    how: &How,
) -> Vec<f32> {
    let cols = m.layout.cols;
    let stride = cols.next_multiple_of(shaders::COLS_PAD);
    let rows: usize = m.shards.iter().map(|s| s.rows).sum();
    let outputs = if output == Output::Glu { rows / 2 } else { rows };
    // Two rows before the first: `first` must be honoured.
    let mut padded = vec![0.0; (n + 2) * stride];
    for (t, x) in x.chunks_exact(cols).enumerate() {
        padded[(t + 2) * stride..][..cols].copy_from_slice(x);
    }
    let x = device.floats("x", &padded);
    // Results that are not written show.
    let y = device.floats("y", &vec![f32::NAN; n * outputs]);
    let pass = device.uniform(&Pass { n: n as u32, first: 2, ..Default::default() });
    let prepared = Prepared::new(device, n + 2, stride);
    let prepared = prepared.as_ref();
    let before = prepared.filter(|_| how.in_bytes);
    let before = before.map(|to| to.op(device, Prepare::Int8, &pass, &x, stride));
    let y_bytes = how.to_bytes.then(|| Prepared::new(device, n, outputs)).flatten();
    let ends = Ends {
        pass: &pass,
        x: &x,
        x_stride: stride,
        prepared,
        in_bytes: if how.in_bytes { InBytes::Always } else { InBytes::Never },
        y: &y,
        y_stride: outputs,
        y_bytes: y_bytes.as_ref(),
    };
    let mut op = MatOp::new(device, m, output, 2.5, &ends);
    op.few.lanes = how.lanes.unwrap_or(op.few.lanes);
    let mut encoder = device.device.create_command_encoder(&Default::default());
    let mut compute = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
    let mut dispatch = |compiled: &Compiled, group: &wgpu::BindGroup, grid: Grid| {
        device.dispatch(&mut compute, compiled, group, grid);
    };
    if let Some(before) = &before {
        let grid = Prepare::Int8.grid(n, stride).map(|g| g as u32);
        dispatch(&before.pipeline, &before.group, grid);
    }
    op.encode(device, n, &mut dispatch);
    drop(compute);
    if op.leaves_bytes() && n == 1 {
        device.queue.submit([encoder.finish()]);
        let Prepared { values, scales } = y_bytes.as_ref().expect("it was asked for");
        let bytes = copied(device, values, outputs / 4);
        let bytes: &[i8] = bytemuck::cast_slice(&bytes);
        let scales = copied(device, scales, outputs / 16);
        return bytes.iter().enumerate().map(|(i, q)| f32::from(*q) * scales[i / 32 * 2]).collect();
    }
    let staging = device.staging((n * outputs * 4) as u64);
    encoder.copy_buffer_to_buffer(&y, 0, &staging, 0, (n * outputs * 4) as u64);
    device.queue.submit([encoder.finish()]);
    let mut out = vec![0.0; n * outputs];
    device.read(&staging, &mut out).unwrap();
    out
}

/// f32 sums of `cols` products in any order are within cols · ε of Σ|w·x|; twice that for the
/// factors that are multiplied in before or after, and f16 weights that were wider in the file.
fn compare(got: &[f32], w: &[f32], x: &[f32], cols: usize, outputs: usize, what: &str) {
    for (t, (got, x)) in got.chunks_exact(outputs).zip(x.chunks_exact(cols)).enumerate() {
        for (r, (got, w)) in got.iter().zip(w.chunks_exact(cols)).enumerate() {
            let products = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let (want, size) = products.fold((0.0, 0.0), |(s, a), p| (s + p, a + p.abs()));
            let tolerance = size * cols as f64 * f64::from(f32::EPSILON) * 2.0 + 1e-9;
            let error = (f64::from(*got) - want).abs();
            assert!(error <= tolerance, "{what}: row {t}, feature {r}: {got}, not {want}");
        }
    }
}

/// Rows and columns that are no multiple of a workgroup's or a tile's; odd numbers of scales in a row.
fn shapes(dtype: DType) -> &'static [(usize, usize)] {
    match dtype {
        _ if dtype.is_float() => &[(1, 24), (70, 50)],
        _ if dtype.block_len() == 256 => &[(3, 256), (67, 1280)],
        _ => &[(3, 32), (67, 96), (33, 1056)],
    }
}

#[test]
fn every_format_multiplies_as_the_oracle_does() {
    let Some(device) = shared() else { return };
    for dtype in DType::ALL {
        let shapes = shapes(dtype);
        for &(rows, cols) in shapes {
            let (w, bytes) = matrix(dtype, rows, cols, 3);
            let plain = decoded(&w, &bytes);
            let m = DeviceMatrix::upload(&device, &bytes, &[&w], Stack::After).unwrap();
            for n in [1, 2, 3, 7, 8, 9, 70] {
                // A type without a form of its own is rounded to f16.
                if m.format() == Format::F16 && dtype != DType::F16 {
                    continue;
                }
                let x = noise(n * cols, 11);
                let got = run(&device, &m, Output::Plain, &x, n);
                compare(&got, &plain, &x, cols, rows, &format!("{dtype} {rows}×{cols}, {n} rows"));
            }
        }
    }
}

#[test]
fn any_number_of_lanes_adds_up_the_same() {
    let Some(device) = shared() else { return };
    for (dtype, rows, cols) in [
        (DType::Q4_0, 70, 320),
        (DType::Q8_0, 9, 352),
        (DType::BF16, 33, 48),
        (DType::Q4_K, 70, 512),
    ] {
        let (w, bytes) = matrix(dtype, rows, cols, 4);
        let plain = decoded(&w, &bytes);
        let m = DeviceMatrix::upload(&device, &bytes, &[&w], Stack::After).unwrap();
        for (lanes, n) in [(8, 1), (16, 1), (8, 3), (16, 8)] {
            let x = noise(n * cols, 12);
            let how = How { lanes: Some(lanes), ..How::default() };
            let got = run_with(&device, &m, Output::Plain, &x, n, &how);
            compare(&got, &plain, &x, cols, rows, &format!("{dtype}, {lanes} lanes, {n} rows"));
        }
    }
}

#[test]
fn shards_and_stacks_change_nothing() {
    // 96 columns of q8_0 are 96 bytes: four rows in a binding.
    let Some(device) = device(Some(4 * 96)) else { return };
    let cols = 96;
    let (a, mut bytes) = matrix(DType::Q8_0, 10, cols, 1);
    let (mut b, more) = matrix(DType::Q4_0, 10, cols, 2);
    b.bytes = bytes.len()..bytes.len() + more.len();
    bytes.extend(more);
    let (wa, wb) = (decoded(&a, &bytes), decoded(&b, &bytes));
    for n in [1, 5, 12] {
        let x = noise(n * cols, 5);
        let m = DeviceMatrix::upload(&device, &bytes, &[&a, &b], Stack::After).unwrap();
        assert_eq!((m.shards.len(), m.format()), (5, Format::Q8_0));
        let got = run(&device, &m, Output::Plain, &x, n);
        compare(&got, &[&wa[..], &wb].concat(), &x, cols, 20, "one after the other");

        let m = DeviceMatrix::upload(&device, &bytes, &[&a, &b], Stack::InTurn).unwrap();
        let in_turn: Vec<f32> = wa
            .chunks_exact(cols)
            .zip(wb.chunks_exact(cols))
            .flat_map(|(a, b)| [a, b].concat())
            .collect();
        let got = run(&device, &m, Output::Plain, &x, n);
        compare(&got, &in_turn, &x, cols, 20, "in turn");
        // What the outputs do with it.
        let glu = run(&device, &m, Output::Glu, &x, n);
        for (glu, pair) in glu.iter().zip(got.chunks_exact(2)) {
            let (g, up) = (f64::from(pair[0]), f64::from(pair[1]));
            let u = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g * g * g);
            let want = g / 2.0 * (1.0 + u.tanh()) * up;
            assert!((f64::from(*glu) - want).abs() < 1e-5 * (1.0 + want.abs()), "{glu} {want}");
        }
        let capped = run(&device, &m, Output::Softcap, &x, n);
        for (capped, y) in capped.iter().zip(&got) {
            let want = 2.5 * (f64::from(*y) / 2.5).tanh();
            assert!((f64::from(*capped) - want).abs() < 1e-5, "{capped} {want}");
        }
    }
}

/// What lies on the device stands for the same numbers as the file, for every type.
#[test]
fn planes_decode_to_what_the_file_says() {
    // With others some are widened.
    let wide = [(DType::Q4_0, Format::Q8_0), (DType::Q4_K, Format::KBytes)];
    for (dtype, format) in DType::ALL.map(|dtype| (dtype, format_of(dtype))).into_iter().chain(wide)
    {
        let cols = 512;
        let (w, bytes) = matrix(dtype, 2, cols, 9);
        let layout = RowLayout { format, cols };
        for r in 0..2 {
            let mut want = vec![0.0; cols];
            decode_row(dtype, w.view(&bytes).row(r), &mut want);
            let (mut pieces, mut scales) = (vec![0; layout.bytes()], vec![0; layout.scales()]);
            layout.split(dtype, w.view(&bytes).row(r), &mut pieces, &mut scales);
            let scale = |i: usize| half::f16::from_bits(scales[i / 32]).to_f32();
            let largest = layout.largest(&pieces, &scales) * (1.0 + 1.0 / 1024.0);
            for (i, want) in want.iter().enumerate() {
                let two = || [pieces[2 * i], pieces[2 * i + 1]];
                let of_k = |words: usize, piece: usize, i: usize, q: f32| {
                    let scales = &scales[i / 256 * words..][..words];
                    let [d, dmin] = [0, 1].map(|i| half::f16::from_bits(scales[i]).to_f32());
                    let [scale, min] = scales[2 + piece].to_le_bytes().map(|b| f32::from(b as i8));
                    d * scale * q + dmin * min
                };
                let got = match format {
                    Format::F32 => f32::from_le_bytes(pieces[4 * i..][..4].try_into().unwrap()),
                    Format::F16 => half::f16::from_le_bytes(two()).to_f32(),
                    Format::Bf16 => half::bf16::from_le_bytes(two()).to_f32(),
                    Format::Q8_0 => f32::from(pieces[i] as i8) * scale(i),
                    Format::Q4_0 => {
                        let byte = pieces[i / 32 * 16 + i % 16];
                        let nibble = if i % 32 < 16 { byte & 15 } else { byte >> 4 };
                        (f32::from(nibble) - 8.0) * scale(i)
                    }
                    Format::Q4K => {
                        let byte = pieces[i / 32 * 16 + i % 16];
                        let nibble = if i % 32 < 16 { byte & 15 } else { byte >> 4 };
                        of_k(10, i / 32 % 8, i, f32::from(nibble))
                    }
                    Format::KBytes => of_k(18, i / 16 % 16, i, f32::from(pieces[i] as i8)),
                };
                // Types without a form of their own are rounded to f16.
                let exact = format != Format::F16 || dtype == DType::F16;
                let tolerance = if exact { 0.0 } else { want.abs() / 2048.0 };
                let what = format!("{dtype} as {} {i}", format.name());
                assert!((got - want).abs() <= tolerance, "{what}: {got}, not {want}");
                assert!(format == Format::F32 || want.abs() <= largest, "{what}: {want}");
            }
        }
    }
    let formats = |types: &[DType]| {
        let matrices: Vec<_> = types.iter().map(|dtype| matrix(*dtype, 1, 256, 1).0).collect();
        common_format(&matrices.iter().collect::<Vec<_>>())
    };
    for dtype in DType::ALL {
        assert_eq!(formats(&[dtype, dtype]), format_of(dtype));
    }
    assert_eq!(formats(&[DType::Q4_0, DType::Q5_0]), Format::Q8_0);
    assert_eq!(formats(&[DType::Q4_0, DType::IQ4_NL]), Format::Q8_0);
    assert_eq!(formats(&[DType::Q3_K, DType::Q4_K, DType::IQ4_XS]), Format::KBytes);
    assert_eq!(formats(&[DType::Q2_K, DType::Q3_K]), Format::F16);
    assert_eq!(formats(&[DType::Q4_K, DType::Q4_K, DType::Q6_K]), Format::KBytes);
    assert_eq!(formats(&[DType::Q4_K, DType::Q8_0]), Format::F16);
    assert_eq!(formats(&[DType::Q4_K, DType::BF16]), Format::F32);
}

/// A buffer that no device has room for is an error that names the device and what it was for.
#[test]
fn running_out_of_memory_is_an_error() {
    let Some(device) = shared() else { return };
    let failed = device.guarded("a test", || {
        let limit = device.device.limits().max_buffer_size;
        // Far more than there is, or more than one buffer may have: one of the two is refused.
        let all: Vec<_> = (0..3).map(|_| device.storage("huge", limit + 16)).collect();
        Ok(all.len())
    });
    let message = failed.unwrap_err().to_string();
    assert!(message.contains(device.name()), "{message}");
    // The device still works.
    let (w, bytes) = matrix(DType::F32, 4, 32, 1);
    let m = DeviceMatrix::upload(&device, &bytes, &[&w], Stack::After).unwrap();
    let x = noise(32, 2);
    compare(&run(&device, &m, Output::Plain, &x, 1), &decoded(&w, &bytes), &x, 32, 4, "after");
}

/// Where reads are doubted, what was not written is an error, and what was is read as ever.
#[test]
fn a_result_that_never_came_is_an_error() {
    let Some(device) = device(None) else { return };
    device.doubt_reads();
    let (staging, from) = (device.staging(64), device.floats("x", &[1.0, 2.0]));
    let mut out = [0.0; 2];
    let copy = || {
        let mut encoder = device.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&from, 0, &staging, 0, 8);
        device.queue.submit([encoder.finish()]);
    };
    for _ in 0..2 {
        let message = device.read(&staging, &mut out).unwrap_err().to_string();
        assert!(message.contains(device.name()) && message.contains("undone"), "{message}");
        copy();
        device.read(&staging, &mut out).unwrap();
        assert_eq!(out, [1.0, 2.0]);
    }
}

/// A device that goes away is an error as well, then and from then on.
#[test]
fn a_lost_device_is_an_error() {
    let Some(device) = device(None) else { return };
    let (w, bytes) = matrix(DType::F32, 4, 32, 1);
    let upload =
        || device.guarded("a test", || DeviceMatrix::upload(&device, &bytes, &[&w], Stack::After));
    assert!(upload().is_ok());
    device.device.destroy();
    for _ in 0..2 {
        let message = upload().err().expect("the device is gone").to_string();
        assert!(message.contains(device.name()), "{message}");
    }
}

/// A shader that does not compile is an error with the shader's name, not a panic: for who waits for all of
/// them, and for who uses it. Whoever has something in its place goes on.
#[test]
fn a_compile_failure_is_an_error() {
    let Some(device) = device(None) else { return };
    let mut kernel = shaders::gather();
    kernel.name = "broken".into();
    kernel.source.push_str("fn nonsense( {");
    let broken = device.pipeline_or_not(&kernel);
    assert!(broken.wait().is_err_and(|caught| caught.why.contains("broken")));
    device.guarded("a test", || device.all_compiled("a test")).expect("nothing was to be awaited");
    kernel.name = "needed".into();
    kernel.source.push_str("// needed");
    let needed = device.pipeline(&kernel);
    for failed in [
        device.guarded("a test", || device.all_compiled("a test")),
        device.guarded("a test", || {
            let mut encoder = device.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let any = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM;
            let buffers: Vec<_> =
                kernel.bindings.iter().map(|_| device.buffer("any", 64, any)).collect();
            let buffers: Vec<_> = buffers.iter().map(|buffer| buffer as &dyn Bound).collect();
            device.dispatch(&mut pass, &needed, &device.group(&kernel, &buffers), [1, 1, 1]);
            Ok(())
        }),
    ] {
        let message = failed.expect_err("it can't compile").to_string();
        assert!(message.contains("needed"), "{message}");
    }
    // It is said once.
    device.guarded("a test", || device.all_compiled("a test")).expect("all is well now");
}

/// A device may go while its kernels are being compiled, or before.
#[test]
fn a_device_may_go_before_its_kernels_are_there() {
    let Some(device) = device(None) else { return };
    let asked: Vec<_> = (0..40)
        .map(|i| {
            let mut kernel = shaders::gather();
            kernel.name = format!("gather {i}");
            device.pipeline(&kernel)
        })
        .collect();
    let again = device.pipeline(&Kernel { name: "gather 7".into(), ..shaders::gather() });
    drop(device);
    // Whoever waits has an answer, the same each time.
    let there = |compiled: &Compiled| compiled.wait().is_ok();
    assert_eq!(there(&again), there(&asked[7]));
    for refused in asked.iter().filter_map(|compiled| compiled.wait().err()) {
        assert!(refused.why.contains("nobody"), "{}", refused.why);
    }
}
