//! Keys and values: stored as the CPU stores them, and attended to as plain softmax says.

use bytemuck::cast_slice;
use half::f16;
use quant::DType;
use quant::codec::{BlockQ8_0, QK, decode_row, encode_row};
use shaders::params::{Attend, Pass, Rope as RopeParams, Row};
use shaders::{Attention, CacheFormat, HEAD_PAD, Rope};

use super::super::device::Device;
use super::super::ops::{Grid, Op};
use super::super::region::Bound;
use super::{noise, shared};

/// Runs operations one after the other and reads the first `n` floats of a buffer.
fn run_ops(device: &Device, ops: &[(&Op, Grid)], from: &wgpu::Buffer, n: usize) -> Vec<f32> {
    let mut encoder = device.device.create_command_encoder(&Default::default());
    let mut pass = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
    for (op, grid) in ops {
        op.dispatch(device, &mut pass, *grid);
    }
    drop(pass);
    let staging = device.staging(n as u64 * 4);
    encoder.copy_buffer_to_buffer(from, 0, &staging, 0, n as u64 * 4);
    device.queue.submit([encoder.finish()]);
    let mut out = vec![0.0; n];
    device.read(&staging, &mut out).unwrap();
    out
}

/// One head's row as the device keeps it.
fn encoded(format: CacheFormat, x: &[f32]) -> Vec<u8> {
    let mut row = match format {
        CacheFormat::F32 => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        CacheFormat::F16 => x.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        CacheFormat::Q8_0 => {
            let mut blocks = vec![0; DType::Q8_0.row_bytes(x.len()).unwrap()];
            encode_row(DType::Q8_0, x, &mut blocks);
            let blocks: &[BlockQ8_0] = cast_slice(&blocks);
            let features = blocks.iter().flat_map(|b| b.qs.map(|q| q as u8));
            features.chain(blocks.iter().flat_map(|b| b.d)).collect::<Vec<u8>>()
        }
    };
    row.resize(format.row_bytes(x.len()), 0);
    row
}

/// What stands in such a row.
fn decoded(format: CacheFormat, row: &[u8], head_dim: usize) -> Vec<f32> {
    let dtype = match format {
        CacheFormat::F32 => DType::F32,
        CacheFormat::F16 => DType::F16,
        CacheFormat::Q8_0 => {
            let scale = |block: usize| {
                let at = head_dim + 2 * block;
                f16::from_le_bytes([row[at], row[at + 1]]).to_f32()
            };
            let feature = |(i, q): (usize, &u8)| f32::from(*q as i8) * scale(i / QK);
            return row[..head_dim].iter().enumerate().map(feature).collect();
        }
    };
    let mut out = vec![0.0; head_dim];
    decode_row(dtype, &row[..dtype.row_bytes(head_dim).unwrap()], &mut out);
    out
}

/// Rows of a batch go where their positions lie in the ring, encoded as the CPU encodes them.
#[test]
fn keys_and_values_are_stored_as_the_cpu_stores_them() {
    let Some(device) = shared() else { return };
    let (kv_heads, slots, n) = (2, 5, 4);
    for format in CacheFormat::ALL {
        for head_dim in [24, 32, 64, 128, 160, 256].into_iter().filter(|d| format.takes(*d)) {
            // One query head, then keys, then values.
            let heads = 1 + 2 * kv_heads;
            let mut qkv = noise(n * heads * head_dim, head_dim as u32);
            qkv[head_dim..2 * head_dim].fill(0.0); // a block of zeros has the scale 0
            let no_angle = [vec![1.0; head_dim / 2], vec![0.0; head_dim / 2]].concat();
            let angles = device.floats("angles", &no_angle.repeat(2 * n));
            let row = |i: usize| Row { seq: 1, pos: 7 + i as u32, end: 8 + i as u32, place: 0 };
            let rows = device.storage("rows", (n * size_of::<Row>()) as u64);
            device.queue.write_buffer(&rows, 0, cast_slice(&[0, 1, 2, 3].map(row)));
            let p = device.uniform(&RopeParams {
                heads: 1,
                kv_heads: kv_heads as u32,
                slots: slots as u32,
                query_scale: 1.0,
                ..Default::default()
            });
            let bytes = format.row_bytes(head_dim);
            let [k, v] =
                [(); 2].map(|_| device.storage("kv", (2 * kv_heads * slots * bytes) as u64));
            let q = device.storage("q", (n * head_dim.next_multiple_of(HEAD_PAD) * 4) as u64);
            let from = device.floats("qkv", &qkv);
            let kernel = Rope { head_dim, normed: false, cache: format }.kernel();
            let op = Op::new(&device, &kernel, &[&p, &rows, &angles, &from, &q, &k, &v]);
            let grid = [n as u32, heads as u32, 1];
            for (which, buffer) in [&k, &v].into_iter().enumerate() {
                let all = 2 * kv_heads * slots * bytes / 4;
                let stored = run_ops(&device, &[(&op, grid)], buffer, all);
                let stored: &[u8] = cast_slice(&stored);
                for (i, head) in (0..n).flat_map(|i| (0..kv_heads).map(move |h| (i, h))) {
                    let at = (i * heads + 1 + which * kv_heads + head) * head_dim;
                    let x = &qkv[at..][..head_dim];
                    let slot = (kv_heads + head) * slots + (7 + i) % slots;
                    let got = &stored[slot * bytes..][..bytes];
                    if got == encoded(format, x) {
                        continue;
                    }
                    // A driver may round f16 towards zero and divide less exactly: one step of what
                    // is stored, at most.
                    let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    let step = match format {
                        CacheFormat::F32 => 0.0,
                        CacheFormat::F16 => 2.0f32.powi(-10),
                        CacheFormat::Q8_0 => 1.01 / 127.0,
                    };
                    for (got, x) in decoded(format, got, head_dim).iter().zip(x) {
                        let why = format!("{format:?} {head_dim}: {got}, not {x}");
                        assert!((got - x).abs() <= step * largest, "{why}");
                    }
                }
            }
        }
    }
}

/// Softmax attention in f64, all at once.
fn naive(q: &[f32], keys: &[&[f32]], values: &[&[f32]], cap: f32) -> Vec<f64> {
    let score = |k: &&[f32]| {
        let s: f64 = q.iter().zip(*k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
        if cap == 0.0 { s } else { f64::from(cap) * (s / f64::from(cap)).tanh() }
    };
    let scores: Vec<f64> = keys.iter().map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
    let weigh = |d: usize| {
        let products = scores.iter().zip(values).map(|(s, v)| (s - max).exp() * f64::from(v[d]));
        products.sum::<f64>() / total
    };
    (0..q.len()).map(weigh).collect()
}

/// Every format, heads of a test's and of real sizes; one row and many; whole and in parts; with
/// and without a window, in a ring that has wrapped.
#[test]
fn attention_is_plain_softmax() {
    let Some(device) = shared() else { return };
    let (heads, kv_heads) = (4, 2);
    for (format, head_dim) in [
        (CacheFormat::F32, 24),
        (CacheFormat::F16, 128),
        (CacheFormat::F16, 256),
        (CacheFormat::Q8_0, 32),
        (CacheFormat::Q8_0, 64),
        (CacheFormat::Q8_0, 128),
        (CacheFormat::Q8_0, 160),
        (CacheFormat::Q8_0, 256),
    ] {
        for (positions, window, splits, rows, cap) in [
            (1, 0, 1, 1, 0.0),
            (150, 0, 3, 1, 0.0),
            (90, 40, 1, 1, 2.0),
            (90, 40, 2, 2, 0.0),
            (70, 0, 1, 9, 2.0),
            (150, 50, 1, 6, 0.0),
        ] {
            // The ring holds the window of every row, and no more.
            let slots = if window == 0 { positions } else { window + rows };
            let bytes = format.row_bytes(head_dim);
            let pad = head_dim.next_multiple_of(HEAD_PAD);
            let mut stored = [(); 2].map(|_| vec![0u8; kv_heads * slots * bytes]);
            let kv: Vec<Vec<Vec<f32>>> = (0..2 * kv_heads)
                .map(|which| {
                    let one = |pos: usize| {
                        let x = noise(head_dim, (1 + which * positions + pos) as u32);
                        let row = encoded(format, &x);
                        let slot = which / 2 * slots + pos % slots;
                        stored[which % 2][slot * bytes..][..bytes].copy_from_slice(&row);
                        decoded(format, &row, head_dim)
                    };
                    (0..positions).map(one).collect()
                })
                .collect();
            let [k, v] = stored.map(|bytes| {
                let buffer = device.storage("kv", bytes.len() as u64);
                device.queue.write_buffer(&buffer, 0, &bytes);
                buffer
            });
            let q = noise(rows * heads * head_dim, 77);
            let mut padded = vec![0.0; rows * heads * pad];
            for (to, from) in padded.chunks_exact_mut(pad).zip(q.chunks_exact(head_dim)) {
                to[..head_dim].copy_from_slice(from);
            }
            let q_buffer = device.floats("q", &padded);
            let row = |i: usize| {
                let pos = positions - rows + i;
                Row { seq: 0, pos: pos as u32, end: pos as u32 + 1, place: i as u32 }
            };
            let of_rows: Vec<Row> = (0..rows).map(row).collect();
            let row_buffer = device.storage("rows", (rows * size_of::<Row>()) as u64);
            device.queue.write_buffer(&row_buffer, 0, cast_slice(&of_rows));
            let p = device.uniform(&Attend {
                heads: heads as u32,
                kv_heads: kv_heads as u32,
                slots: slots as u32,
                window: window as u32,
                stride: (heads * head_dim) as u32,
                softcap: cap,
                ..Default::default()
            });
            let batch = device.uniform(&Pass { n: rows as u32, first: 0, splits, unused: 0 });
            let a = device.floats("a", &vec![f32::NAN; rows * heads * head_dim]);
            let part = rows * heads * splits as usize * (head_dim + 2);
            let parts = device.floats("parts", &vec![f32::NAN; part]);
            let many = rows > 2;
            let (h, r) = Attention::shape(heads / kv_heads, many);
            let kernel = Attention { head_dim, heads: h, rows: r, cache: format }.kernel();
            let buffers: [&dyn Bound; 8] = [&p, &batch, &row_buffer, &q_buffer, &k, &v, &a, &parts];
            let attend = Op::new(&device, &kernel, &buffers);
            let merge =
                Op::new(&device, &shaders::merge(head_dim, false), &[&p, &batch, &parts, &a]);
            let grid = [(heads / h) as u32, rows.div_ceil(r) as u32, splits];
            let ops = [(&attend, grid), (&merge, [rows as u32, heads as u32, 1])];
            let ops = &ops[..if splits > 1 { 2 } else { 1 }];
            let got = run_ops(&device, ops, &a, rows * heads * head_dim);
            for (i, got) in got.chunks_exact(head_dim).enumerate() {
                let (r, head) = (i / heads, i % heads);
                let end = of_rows[r].end as usize;
                let start = if window == 0 { 0 } else { end.saturating_sub(window) };
                let seen = |which: usize| -> Vec<&[f32]> {
                    let of_head = &kv[head / (heads / kv_heads) * 2 + which];
                    of_head[start..end].iter().map(Vec::as_slice).collect()
                };
                let want = naive(&q[i * head_dim..][..head_dim], &seen(0), &seen(1), cap);
                for (got, want) in got.iter().zip(want) {
                    // Scores are sums of up to 256 products below 1, f32's error in them ends in
                    // the exponent.
                    let error = (f64::from(*got) - want).abs();
                    let what = format!("{format:?} {head_dim}, {positions} positions, row {r}");
                    assert!(error < 5e-5, "{what}: {got}, not {want}");
                }
            }
        }
    }
}
