//! What is used only where an adapter has it: every such way of multiplying against the oracle, on
//! shapes that fill no tile and no subgroup.

use shaders::params::Norm;
use shaders::{Many, Matmul};

use super::*;
use crate::gpu::ops::{NormBefore, NormEnds, NormOps, Op};

/// Devices told to use these, as far as they can. What the adapter has not is said aloud.
pub(super) fn told_to(adapter: &Adapter, words: &[&str]) -> Vec<Arc<Device>> {
    let offers = adapter.offers();
    let open = |words: &&str| match Features::parse(words, &offers, adapter.name()) {
        Ok(used) => {
            let options = DeviceOptions { features: Some(used), ..Default::default() };
            let device = adapter.open(&options).unwrap();
            assert_eq!(device.doubt(), None, "{words}");
            Some(device)
        }
        Err(e) => {
            eprintln!("SKIPPED: {e}");
            None
        }
    };
    words.iter().filter_map(open).collect()
}

/// A device that is told that its invocations have few registers.
fn of_few_registers(adapter: &Adapter) -> Arc<Device> {
    let features = Features { dot4: true, few_registers: true, ..Features::PLAIN };
    let options = DeviceOptions { features: Some(features), ..Default::default() };
    adapter.open(&options).unwrap()
}

/// What blocks of 32 become: each value's nearest multiple of a 127th of the largest.
fn in_bytes(x: &[f32], cols: usize) -> Vec<f32> {
    let block = |b: &[f32]| -> Vec<f32> {
        let scale = b.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0;
        let inverse = if scale > 1e-30 { 1.0 / scale } else { 0.0 };
        b.iter().map(|v| (v * inverse).round_ties_even() * scale).collect()
    };
    x.chunks_exact(cols).flat_map(|row| row.chunks(32).flat_map(block)).collect()
}

/// Compares with f64 sums of what is really multiplied.
///
/// Bytes: sums of `x` rounded as [`in_bytes`] does; a division that is rounded otherwise may tip one
/// value over to the next multiple. Halves: both factors are off by up to 2⁻¹¹ of their size, on the
/// whole by a random walk, of which eight deviations are allowed.
fn compare_variant(got: &[f32], w: &[f32], x: &[f32], cols: usize, many: Many, what: &str) {
    let rounded = if many == Many::Int8 { in_bytes(x, cols) } else { x.to_vec() };
    let outputs = w.len() / cols;
    for (t, got) in got.chunks_exact(outputs).enumerate() {
        let x = &rounded[t * cols..][..cols];
        let most_x = x.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
        for (r, (got, w)) in got.iter().zip(w.chunks_exact(cols)).enumerate() {
            let most_w = w.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
            let (mut want, mut size, mut squares) = (0.0, 0.0, 0.0);
            for (w, x) in w.iter().zip(x) {
                let product = f64::from(*w) * f64::from(*x);
                want += product;
                size += product.abs();
                squares += product * product;
            }
            let float = size * cols as f64 * f64::from(f32::EPSILON) * 2.0 + 1e-9 * most_x * most_w;
            let tolerance = match many {
                Many::Float => float,
                Many::Int8 => float + most_w * most_x / 127.0,
                _ => float + 8.0 * squares.sqrt() / 2048.0 + 1e-6 * most_x * most_w,
            };
            let error = (f64::from(*got) - want).abs();
            assert!(error <= tolerance, "{what}: row {t}, feature {r}: {got}, not {want}");
        }
    }
}

/// What is the same as without any of it is left out: a pipeline takes long to compile in software.
#[test]
fn every_way_multiplies_as_the_oracle_does() {
    let Some(adapter) = adapter() else { return };
    let told = told_to(&adapter, &["subgroup", "dot4", "subgroup,dot4", "f16", "matrix"]);
    for device in told.into_iter().chain([of_few_registers(&adapter)]) {
        let features = device.features;
        let floats = [DType::F32, DType::F16, DType::BF16];
        let blocks =
            [DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::IQ4_XS];
        for dtype in floats.into_iter().chain(blocks) {
            // Rows that fill no tile; odd numbers of blocks; a depth that no tile or lane divides.
            let shapes: &[_] = match dtype {
                _ if dtype.is_float() => &[(1, 24), (70, 50)],
                DType::Q4_0 | DType::Q8_0 => &[(3, 32), (67, 96), (33, 1056), (130, 64)],
                _ => &[(3, 256), (67, 1280)],
            };
            for &(rows, cols) in shapes {
                let (w, bytes) = matrix(dtype, rows, cols, 3);
                let plain = decoded(&w, &bytes);
                let m = DeviceMatrix::upload(&device, &bytes, &[&w], Stack::After).unwrap();
                let many = features.many(m.format());
                for n in [1, 2, 3, 4, 5, 6, 7, 8, 9, 65] {
                    let few = n <= Matmul::FEW;
                    let x = noise(n * cols, 11);
                    let what = format!("{features}: {dtype} {rows}×{cols}, {n} rows");
                    let way = if few { features.few(m.format()) } else { many };
                    if (few && features.subgroup.is_some() && !features.dot4)
                        || (!few && many != Many::Float)
                    {
                        let got = run(&device, &m, Output::Plain, &x, n);
                        compare_variant(&got, &plain, &x, cols, way, &what);
                    }
                    if way == Many::Int8 {
                        let how = How { in_bytes: true, ..How::default() };
                        let got = run_with(&device, &m, Output::Plain, &x, n, &how);
                        compare_variant(&got, &plain, &x, cols, way, &format!("{what}, in bytes"));
                    }
                }
            }
        }
    }
}

/// Groups of lanes smaller than a subgroup (of 8 in lavapipe, 4 in SwiftShader), as large, and made of
/// several.
#[test]
fn lanes_need_not_be_a_subgroup() {
    let Some(adapter) = adapter() else { return };
    for device in told_to(&adapter, &["subgroup", "subgroup,dot4"]) {
        for (dtype, rows, cols) in [
            (DType::Q4_0, 70, 320),
            (DType::Q8_0, 9, 352),
            (DType::Q4_K, 70, 512),
            (DType::Q6_K, 9, 256),
        ] {
            let (w, bytes) = matrix(dtype, rows, cols, 4);
            let plain = decoded(&w, &bytes);
            let m = DeviceMatrix::upload(&device, &bytes, &[&w], Stack::After).unwrap();
            for (lanes, n) in [2, 4, 8, 32].into_iter().flat_map(|l| [(l, 1), (l, 3)]) {
                let x = noise(n * cols, 12);
                let in_bytes = device.features.dot4;
                let how = How { lanes: Some(lanes), in_bytes, ..How::default() };
                let what = format!("{}: {dtype}, {lanes} lanes, {n} rows", device.features);
                let got = run_with(&device, &m, Output::Plain, &x, n, &how);
                let way = if how.in_bytes { Many::Int8 } else { Many::Float };
                compare_variant(&got, &plain, &x, cols, way, &what);
            }
        }
    }
}

/// Shards, stacks and what the outputs do, many rows at a time.
#[test]
fn shards_and_outputs_are_the_same_every_way() {
    let Some(adapter) = adapter() else { return };
    for way in told_to(&adapter, &["dot4", "f16", "matrix"]) {
        // 96 columns of q8_0 are 96 bytes: four rows in a binding.
        let options = DeviceOptions {
            max_binding: Some(4 * 96),
            features: Some(way.features),
            ..Default::default()
        };
        let device = adapter.open(&options).unwrap();
        let (cols, n) = (96, 70);
        let (a, mut bytes) = matrix(DType::Q8_0, 10, cols, 1);
        let (mut b, more) = matrix(DType::Q4_0, 10, cols, 2);
        b.bytes = bytes.len()..bytes.len() + more.len();
        bytes.extend(more);
        let (wa, wb) = (decoded(&a, &bytes), decoded(&b, &bytes));
        let rows = wa.chunks_exact(cols).zip(wb.chunks_exact(cols));
        let in_turn: Vec<f32> = rows.flat_map(|(a, b)| [a, b].concat()).collect();
        let m = DeviceMatrix::upload(&device, &bytes, &[&a, &b], Stack::InTurn).unwrap();
        assert_eq!(m.shards.len(), 5);
        let x = noise(n * cols, 5);
        let what = device.features.to_string();
        let got = run(&device, &m, Output::Plain, &x, n);
        compare_variant(&got, &in_turn, &x, cols, device.features.many(m.format()), &what);
        let glu = run(&device, &m, Output::Glu, &x, n);
        for (glu, pair) in glu.iter().zip(got.chunks_exact(2)) {
            let (g, up) = (f64::from(pair[0]), f64::from(pair[1]));
            let u = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g * g * g);
            let want = g / 2.0 * (1.0 + u.tanh()) * up;
            assert!((f64::from(*glu) - want).abs() < 1e-5 * (1.0 + want.abs()), "{what}: {glu}");
        }
        let capped = run(&device, &m, Output::Softcap, &x, n);
        for (capped, y) in capped.iter().zip(&got) {
            let want = 2.5 * (f64::from(*y) / 2.5).tanh();
            assert!((f64::from(*capped) - want).abs() < 1e-5, "{what}: {capped} {want}");
        }
    }
}

/// One row's GELU(gate) · up left in bytes is what many rows' is in floats.
#[test]
fn one_row_is_left_in_bytes() {
    let Some(adapter) = adapter() else { return };
    for device in told_to(&adapter, &["dot4", "subgroup,dot4"]) {
        for (dtype, rows, cols) in [
            (DType::Q4_0, 64, 2560),
            (DType::Q8_0, 128, 96),
            (DType::Q4_0, 192, 1152),
            (DType::Q4_K, 64, 2560),
            (DType::Q5_K, 128, 256),
        ] {
            let (w, bytes) = matrix(dtype, rows, cols, 3);
            let m = DeviceMatrix::upload(&device, &bytes, &[&w], Stack::After).unwrap();
            let x = noise(cols, 11);
            let how = How { in_bytes: true, ..How::default() };
            let want = run_with(&device, &m, Output::Glu, &x, 1, &how);
            let got = run_with(&device, &m, Output::Glu, &x, 1, &How { to_bytes: true, ..how });
            for (i, (got, want)) in got.chunks(32).zip(want.chunks(32)).enumerate() {
                let most = want.iter().fold(0f32, |m, v| m.max(v.abs()));
                for (got, want) in got.iter().zip(want) {
                    let what = format!("{}: {dtype} {rows}×{cols}, block {i}", device.features);
                    assert!((got - want).abs() <= most / 127.0 * 0.501, "{what}: {got} {want}");
                }
            }
        }
    }
}

/// A norm and the matmul after it in one give what one after the other gives, and the same new x.
#[test]
fn norms_with_matmuls_are_one_after_the_other() {
    let Some(adapter) = adapter() else { return };
    let Some(device) = told_to(&adapter, &["subgroup,dot4"]).pop() else { return };
    for (dtype, rows, cols) in [
        (DType::Q4_0, 70, 640),
        (DType::Q8_0, 192, 96),
        (DType::Q4_0, 1540, 1152),
        (DType::Q4_K, 70, 512),
        (DType::Q5_K, 192, 1280),
    ] {
        let (w, bytes) = matrix(dtype, rows, cols, 3);
        let m = DeviceMatrix::upload(&device, &bytes, &[&w], Stack::After).unwrap();
        let floats = |seed, lift: f32| {
            let values: Vec<f32> = noise(cols, seed).iter().map(|v| v + lift).collect();
            device.floats("values", &values)
        };
        let (o, post, weight) = (floats(2, 0.0), floats(3, 1.0), floats(4, 1.0));
        let pass = device.uniform(&Pass { n: 1, ..Default::default() });
        let p = Norm { cols: cols as u32, stride: (cols / 4) as u32, eps: 1e-6, unused: 0 };
        for residual in [false, true] {
            for output in [Output::Plain, Output::Glu] {
                if output == Output::Glu && rows % 64 != 0 {
                    continue;
                }
                let (x, x_out) = (floats(1, 0.0), floats(9, 0.0));
                let (h, prepared) = (floats(9, 0.0), Prepared::new(&device, 1, cols));
                let outputs = if output == Output::Glu { rows / 2 } else { rows };
                let y_bytes = Prepared::new(&device, 1, rows);
                let y = device.floats("y", &vec![f32::NAN; outputs]);
                let ends = Ends {
                    pass: &pass,
                    x: &h,
                    x_stride: cols,
                    prepared: prepared.as_ref(),
                    in_bytes: InBytes::Always,
                    y: &y,
                    y_stride: outputs,
                    y_bytes: y_bytes.as_ref().filter(|_| output == Output::Glu),
                };
                let norm = NormEnds { p, x: &x, o: &o, h: &h, prepared: prepared.as_ref() };
                let op = MatOp::new(&device, &m, output, 0.0, &ends);
                let ops = NormOps::new(&device, &norm, Some(&post), Some(&weight));
                let post = residual.then_some(&post);
                let before = NormBefore { ends: norm, post, weight: &weight, x_out: &x_out };
                let both = op.normed(&device, &m, &ends, &before).expect("it has subgroups");
                let result = || match op.leaves_bytes() {
                    true => {
                        let Prepared { values, scales } = y_bytes.as_ref().unwrap();
                        let bytes = copied(&device, values, outputs / 4);
                        let scales = copied(&device, scales, outputs / 16);
                        let q: &[i8] = bytemuck::cast_slice(&bytes);
                        let value = |(i, q): (usize, &i8)| f32::from(*q) * scales[i / 32 * 2];
                        q.iter().enumerate().map(value).collect()
                    }
                    false => copied(&device, &y, outputs),
                };
                dispatch_all(&device, &[(&both.op, [both.workgroups as u32, 1, 1])], None);
                let got = result();
                let norm_op = if residual { ops.after } else { ops.alone }.unwrap();
                dispatch_all(&device, &[(&norm_op, [1, 1, 1])], Some(&op));
                let want = result();
                let what = format!("{dtype} {rows}×{cols}, {output:?}, residual: {residual}");
                let (x, x_out) = (copied(&device, &x, cols), copied(&device, &x_out, cols));
                for (x, out) in x.iter().zip(&x_out) {
                    assert!((x - out).abs() < 1e-5, "{what}: {out}, not {x}");
                }
                // A value of x that is rounded the other way costs the largest product's 127th.
                let most = decoded(&w, &bytes).iter().fold(0f32, |m, v| m.max(v.abs()));
                let size = want.iter().fold(0f32, |m, v| m.max(v.abs()));
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    let error = (got - want).abs();
                    assert!(
                        error < 2.0 * most * 3.0 / 127.0 + size / 120.0,
                        "{what}, {i}: {got} {want}"
                    );
                }
            }
        }
    }
}

/// Runs these, then one row of a matmul.
fn dispatch_all(device: &Device, ops: &[(&Op, [u32; 3])], then: Option<&MatOp>) {
    let mut encoder = device.device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
    let mut run = |compiled: &Compiled, group: &wgpu::BindGroup, grid: Grid| {
        device.dispatch(&mut pass, compiled, group, grid);
    };
    for (op, grid) in ops {
        run(&op.pipeline, &op.group, *grid);
    }
    if let Some(op) = then {
        op.encode(device, 1, &mut run);
    }
    drop(pass);
    device.queue.submit([encoder.finish()]);
}

/// Rows and weights far beyond f16's range, and far below it, lose no more than others.
#[test]
fn halves_have_room_for_every_row() {
    let Some(adapter) = adapter() else { return };
    let (rows, cols, n) = (20, 64, 26);
    for device in told_to(&adapter, &["f16", "matrix"]) {
        for (dtype, size) in
            [(DType::BF16, 1e-7), (DType::BF16, 1e6), (DType::Q4_0, 1e-4), (DType::Q8_0, 100.0)]
        {
            let values: Vec<f32> = noise(rows * cols, 3).iter().map(|v| v * size).collect();
            let row_bytes = dtype.row_bytes(cols).unwrap();
            let mut bytes = vec![0; rows * row_bytes];
            for (row, out) in values.chunks_exact(cols).zip(bytes.chunks_exact_mut(row_bytes)) {
                encode_row(dtype, row, out);
            }
            let w = WeightMatrix { dtype, rows, cols, bytes: 0..bytes.len() };
            let plain = decoded(&w, &bytes);
            let mut x = noise(n * cols, 6);
            for (t, row) in x.chunks_exact_mut(cols).enumerate() {
                let size = 10f32.powi(t as i32 - 13);
                row.iter_mut().for_each(|v| *v *= if t == 4 { 0.0 } else { size });
            }
            let m = DeviceMatrix::upload(&device, &bytes, &[&w], Stack::After).unwrap();
            let got = run(&device, &m, Output::Plain, &x, n);
            let what = format!("{}: {dtype} times {size}", device.features);
            compare_variant(&got, &plain, &x, cols, device.features.many(m.format()), &what);
        }
    }
}

/// Norms, with their sums within subgroups and with h in bytes, against f64.
#[test]
fn norms_are_the_same_every_way() {
    let Some(adapter) = adapter() else { return };
    let eps = 1e-6;
    for device in told_to(&adapter, &["plain", "subgroup", "dot4", "subgroup,dot4"]) {
        for (cols, n) in [(24, 1), (640, 3), (1152, 2)] {
            let stride = cols_padded(cols);
            let padded = |seed: u32, rows: usize, lift: f32| -> Vec<f32> {
                let mut out = vec![0.0; rows * stride];
                let values = noise(rows * cols, seed);
                for (out, v) in out.chunks_exact_mut(stride).zip(values.chunks_exact(cols)) {
                    out.iter_mut().zip(v).for_each(|(o, v)| *o = v + lift);
                }
                out
            };
            let (x, o) = (padded(1, n, 0.0), padded(2, n, 0.0));
            let (post, weight) = (padded(3, 1, 1.0), padded(4, 1, 1.0));
            let normed = |row: &[f64], w: &[f32]| -> Vec<f64> {
                let mean = row.iter().map(|v| v * v).sum::<f64>() / cols as f64;
                row.iter().zip(w).map(|(v, w)| v / (mean + eps).sqrt() * f64::from(*w)).collect()
            };
            let wide = |row: &[f32]| row.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            let rows = x.chunks_exact(stride).zip(o.chunks_exact(stride));
            let sum: Vec<Vec<f64>> = rows
                .map(|(x, o)| {
                    let o = normed(&wide(o), &post);
                    wide(x).iter().zip(o).map(|(x, o)| x + o).collect()
                })
                .collect();
            let want: Vec<f64> = sum.iter().flat_map(|row| normed(row, &weight)).collect();

            let buffers = [&x, &o, &post, &weight].map(|v| device.floats("values", v));
            let h = device.floats("h", &vec![f32::NAN; n * stride]);
            let prepared = Prepared::new(&device, n, stride);
            let p =
                Norm { cols: cols as u32, stride: (stride / 4) as u32, eps: eps as f32, unused: 0 };
            let ends =
                NormEnds { p, x: &buffers[0], o: &buffers[1], h: &h, prepared: prepared.as_ref() };
            let ops = NormOps::new(&device, &ends, Some(&buffers[2]), Some(&buffers[3]));
            let op = ops.after.expect("both halves were asked for");
            let mut encoder = device.device.create_command_encoder(&Default::default());
            let mut compute = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
            op.dispatch(&device, &mut compute, [n as u32, 1, 1]);
            drop(compute);
            device.queue.submit([encoder.finish()]);
            let got = copied(&device, &h, n * stride);
            let what = format!("{}: {n} rows of {cols}", device.features);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let error = (f64::from(*got) - want).abs();
                assert!(error < 1e-5 * (1.0 + want.abs()), "{what}, {i}: {got}, not {want}");
            }
            if device.features.few(Format::Q4_0) != Many::Int8 {
                continue;
            }
            let Prepared { values, scales } = prepared.as_ref().unwrap();
            let bytes = copied(&device, values, n * stride / 4);
            let scales = copied(&device, scales, n * stride / 32 * 2);
            check_bytes(&got, &bytes, &scales, &what);
        }
    }
}

fn cols_padded(cols: usize) -> usize {
    cols.next_multiple_of(shaders::COLS_PAD)
}
