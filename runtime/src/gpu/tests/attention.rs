//! Attention and rotation against f64, with heads as large as Gemma's.

use half::f16;
use shaders::params::{Attend, Pass, Rope as RopeParams, Row};
use shaders::{Attention, CacheFormat, HEAD_PAD, Kernel, Rope, merge};

use super::variants::told_to;
use super::*;

/// Runs one kernel over its buffers.
fn dispatch(device: &Device, kernel: &Kernel, buffers: &[&wgpu::Buffer], grid: [usize; 3]) {
    let bound: Vec<_> = buffers.iter().map(|buffer| *buffer as &dyn Bound).collect();
    let (pipeline, group) = (device.pipeline(kernel), device.group(kernel, &bound));
    let mut encoder = device.device.create_command_encoder(&Default::default());
    let mut compute = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
    device.dispatch(&mut compute, &pipeline, &group, grid.map(|g| g as u32));
    drop(compute);
    device.queue.submit([encoder.finish()]);
}

fn words(device: &Device, values: &[u32]) -> wgpu::Buffer {
    device.floats("words", bytemuck::cast_slice(values))
}

/// Features as the cache holds them, and what they then are.
fn cached(values: &[f32], format: CacheFormat) -> (Vec<u32>, Vec<f32>) {
    match format {
        CacheFormat::F32 => (bytemuck::cast_slice(values).to_vec(), values.to_vec()),
        CacheFormat::F16 => {
            let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
            let words = halves
                .chunks_exact(2)
                .map(|h| u32::from(h[0].to_bits()) | u32::from(h[1].to_bits()) << 16);
            (words.collect(), halves.iter().map(|h| h.to_f32()).collect())
        }
        CacheFormat::Q8_0 => unreachable!("its tests are those of the cache"),
    }
}

/// A model's attention: heads, how many share a KV head, features, and what may be seen.
struct Case {
    head_dim: usize,
    heads: usize,
    kv_heads: usize,
    window: usize,
    softcap: f32,
}

#[test]
fn attention_with_large_heads_is_the_oracles() {
    let Some(device) = shared() else { return };
    let cases = [
        // 1B, 4B and 27B; Gemma 2 9B's cap; heads of a size that is padded.
        Case { head_dim: 256, heads: 4, kv_heads: 1, window: 0, softcap: 0.0 },
        Case { head_dim: 256, heads: 8, kv_heads: 4, window: 33, softcap: 0.0 },
        Case { head_dim: 128, heads: 4, kv_heads: 2, window: 40, softcap: 0.0 },
        Case { head_dim: 256, heads: 4, kv_heads: 2, window: 0, softcap: 2.0 },
        Case { head_dim: 128, heads: 2, kv_heads: 2, window: 0, softcap: 0.0 },
        Case { head_dim: 100, heads: 2, kv_heads: 1, window: 50, softcap: 0.0 },
    ];
    for (i, case) in cases.iter().enumerate() {
        for format in [CacheFormat::F16, CacheFormat::F32] {
            if format == CacheFormat::F32 && i > 2 {
                continue; // pipelines take long to compile in software
            }
            // One row at the end of 101 positions and nine rows; one part of the positions and three.
            for (n, splits) in [(1, 1), (1, 3), (9, 1), (3, 2)] {
                let what = format!("case {i}, {format:?}, {n} rows, {splits} parts");
                check_attention(&device, case, format, n, splits, &what);
            }
        }
    }
}

/// Where there are cooperative matrices: many rows by these. Queries and weights are then in f16.
#[test]
fn attention_by_matrices_is_the_oracles() {
    let Some(adapter) = adapter() else { return };
    let Some(device) = told_to(&adapter, &["matrix"]).pop() else { return };
    for (i, (case, n)) in [
        (Case { head_dim: 256, heads: 4, kv_heads: 1, window: 0, softcap: 0.0 }, 100),
        (Case { head_dim: 256, heads: 4, kv_heads: 2, window: 40, softcap: 2.0 }, 37),
        (Case { head_dim: 128, heads: 4, kv_heads: 2, window: 33, softcap: 0.0 }, 70),
        (Case { head_dim: 128, heads: 2, kv_heads: 2, window: 17, softcap: 0.0 }, 9),
    ]
    .iter()
    .enumerate()
    {
        let what = format!("by matrices, case {i}");
        check_attention(&device, case, CacheFormat::F16, *n, 1, &what);
    }
}

#[test]
fn attention_with_subgroups_is_the_oracles() {
    let Some(adapter) = adapter() else { return };
    let Some(device) = told_to(&adapter, &["subgroup"]).pop() else { return };
    let cases = [
        Case { head_dim: 256, heads: 4, kv_heads: 1, window: 0, softcap: 0.0 },
        Case { head_dim: 256, heads: 4, kv_heads: 2, window: 40, softcap: 2.0 },
        Case { head_dim: 128, heads: 4, kv_heads: 2, window: 33, softcap: 0.0 },
        Case { head_dim: 32, heads: 2, kv_heads: 1, window: 0, softcap: 0.0 },
        Case { head_dim: 72, heads: 2, kv_heads: 1, window: 50, softcap: 0.0 },
    ];
    for (i, case) in cases.iter().enumerate() {
        for (n, splits) in [(1, 1), (1, 3), (3, 2), (1, 64)] {
            let what = format!("case {i}, {n} rows, {splits} parts");
            check_attention(&device, case, CacheFormat::F16, n, splits, &what);
        }
    }
}

fn check_attention(
    device: &Device,
    c: &Case,
    format: CacheFormat,
    n: usize,
    splits: usize,
    what: &str,
) {
    let (slots, len) = (128, 101);
    let pad = c.head_dim.next_multiple_of(HEAD_PAD);
    // Queries and the cache are zero where heads are padded.
    let padded = |count: usize, seed: u32, size: f32| -> Vec<f32> {
        let mut out = vec![0.0; count * pad];
        let values = noise(count * c.head_dim, seed);
        for (out, v) in out.chunks_exact_mut(pad).zip(values.chunks_exact(c.head_dim)) {
            out.iter_mut().zip(v).for_each(|(o, v)| *o = v * size);
        }
        out
    };
    let q = padded(n * c.heads, 1, 0.3);
    let (k_words, k) = cached(&padded(c.kv_heads * slots, 2, 1.0), format);
    let (v_words, v) = cached(&padded(c.kv_heads * slots, 3, 1.0), format);
    let row = |t: usize| {
        let pos = len - n + t;
        Row { seq: 0, pos: pos as u32, end: pos as u32 + 1, place: t as u32 }
    };
    let rows: Vec<Row> = (0..n).map(row).collect();

    let p = device.uniform(&Attend {
        heads: c.heads as u32,
        kv_heads: c.kv_heads as u32,
        slots: slots as u32,
        window: c.window as u32,
        stride: (c.heads * c.head_dim) as u32,
        softcap: c.softcap,
        ..Default::default()
    });
    let pass = device.uniform(&Pass { n: n as u32, splits: splits as u32, ..Default::default() });
    let rows_buffer = words(device, bytemuck::cast_slice(&rows));
    let outputs = n * c.heads * c.head_dim;
    let [q_buffer, a] = [&q[..], &vec![f32::NAN; outputs]].map(|v| device.floats("floats", v));
    let [k_buffer, v_buffer] = [&k_words, &v_words].map(|v| words(device, v));
    let part_floats = n * c.heads * splits * (c.head_dim + 2);
    let parts = device.floats("parts", &vec![f32::NAN; part_floats]);
    let many = splits == 1 && n > 1;
    let (heads, block) = Attention::shape(c.heads / c.kv_heads, many);
    let attention = Attention { head_dim: c.head_dim, heads, rows: block, cache: format };
    // With subgroups few rows have a kernel of their own, which leaves them in bytes as well.
    let lanes = device.features.subgroup.filter(|_| !many);
    let lanes = lanes.and_then(|least| attention.lanes(least as usize));
    let int8 = lanes.is_some() && c.head_dim.is_multiple_of(32);
    let (values, scales) = (device.storage("values", outputs as u64), {
        device.storage("scales", outputs as u64 / 4)
    });
    let heads = if lanes.is_some() { 1 } else { heads };
    let kernel = match lanes {
        Some(lanes) => Attention { heads, ..attention }.one(lanes, int8),
        None => attention.kernel(),
    };
    let mut buffers = vec![&p, &pass, &rows_buffer, &q_buffer, &k_buffer, &v_buffer, &a, &parts];
    let by = attention.by_matrices().filter(|_| many);
    let (kernel, block) = match (device.features.matrix, by) {
        (Some((16, workgroup)), Some(by)) => {
            buffers.pop();
            (by.matrix(workgroup as usize), by.rows)
        }
        _ => (kernel, block),
    };
    let mut to_merge = vec![&p, &pass, &parts, &a];
    if int8 {
        buffers.extend([&values, &scales]);
        to_merge.extend([&values, &scales]);
    }
    dispatch(device, &kernel, &buffers, [c.heads / heads, n.div_ceil(block), splits]);
    if splits > 1 {
        dispatch(device, &merge(c.head_dim, int8), &to_merge, [n, c.heads, 1]);
    }
    let got = copied(device, &a, outputs);
    if int8 {
        let bytes = [copied(device, &values, outputs / 4), copied(device, &scales, outputs / 16)];
        check_bytes(&got, &bytes[0], &bytes[1], what);
    }

    // Scores are sums of up to 256 products in f32, and off by 1e-5 at most; so are weights. In f16
    // both are off by 2⁻¹¹ of their size.
    let tolerance = if device.features.matrix.is_some() { 5e-4 } else { 3e-5 };
    for (t, head) in (0..n).flat_map(|t| (0..c.heads).map(move |h| (t, h))) {
        let end = rows[t].end as usize;
        let first = if c.window == 0 { 0 } else { end.saturating_sub(c.window) };
        let at = |pos: usize| (head / (c.heads / c.kv_heads) * slots + pos % slots) * pad;
        let query = &q[(t * c.heads + head) * pad..][..pad];
        let score = |pos: usize| {
            let key = &k[at(pos)..][..pad];
            let s: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            let cap = f64::from(c.softcap);
            if cap == 0.0 { s } else { cap * (s / cap).tanh() }
        };
        let scores: Vec<f64> = (first..end).map(score).collect();
        let top = scores.iter().fold(f64::MIN, |m, s| m.max(*s));
        let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        for d in 0..c.head_dim {
            let weighed = |(pos, s): (usize, &f64)| {
                (s - top).exp() / total * f64::from(v[at(first + pos) + d])
            };
            let want: f64 = scores.iter().enumerate().map(weighed).sum();
            let got = f64::from(got[(t * c.heads + head) * c.head_dim + d]);
            assert!(
                (got - want).abs() < tolerance,
                "{what}: row {t}, head {head}, {d}: {got}, not {want}"
            );
        }
    }
}

/// What makes queries and keys and attends in one leaves the same result and the same cache as the two
/// kernels it stands for.
#[test]
fn attention_with_rope_is_one_after_the_other() {
    let Some(adapter) = adapter() else { return };
    let Some(device) = told_to(&adapter, &["subgroup"]).pop() else { return };
    let format = CacheFormat::F16;
    for (i, (head_dim, heads, kv_heads, window, softcap, normed, pos, splits)) in [
        (256, 4, 1, 0, 0.0, true, 0, 1),
        (256, 4, 2, 20, 0.0, true, 70, 1),
        (128, 4, 2, 33, 2.0, false, 150, 2),
        (72, 2, 1, 0, 0.0, true, 45, 3),
    ]
    .into_iter()
    .enumerate()
    {
        let (slots, pad) = (160, head_dim_padded(head_dim));
        let all = heads + 2 * kv_heads;
        let qkv = device.floats("qkv", &noise(all * head_dim, 1));
        let weights: Vec<f32> = noise(2 * head_dim, 2).iter().map(|v| 1.0 + v).collect();
        let weights = device.floats("weights", &weights);
        let angles = device.floats("angles", &noise(2 * head_dim, 3));
        let p = device.uniform(&Attend {
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            slots: slots as u32,
            window,
            stride: (heads * head_dim) as u32,
            softcap,
            ..Default::default()
        });
        let r = device.uniform(&RopeParams {
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            slots: slots as u32,
            table: 1,
            eps: 1e-6,
            query_scale: 0.0625,
            ..Default::default()
        });
        let rows = [Row { seq: 0, pos, end: pos + 1, place: 0 }];
        let rows = words(&device, bytemuck::cast_slice(&rows));
        let pass = device.uniform(&Pass { n: 1, splits, ..Default::default() });
        let attention = Attention { head_dim, heads: 1, rows: 1, cache: format };
        let lanes = device.features.subgroup.and_then(|least| attention.lanes(least as usize));
        let Some(lanes) = lanes else { continue };
        let cache = |seed| words(&device, &cached(&noise(kv_heads * slots * pad, seed), format).0);
        let run = |together: bool| {
            let (k, v) = (cache(4), cache(5));
            let q = device.floats("q", &vec![f32::NAN; heads * pad]);
            let a = device.floats("a", &vec![f32::NAN; heads * head_dim]);
            let parts =
                device.storage("parts", (heads * splits as usize * (head_dim + 2) * 4) as u64);
            if together {
                let kernel = attention.with_rope(lanes, normed, false);
                let mut buffers = vec![&p, &r, &pass, &rows, &angles, &qkv, &k, &v, &a, &parts];
                buffers.extend(normed.then_some(&weights));
                dispatch(&device, &kernel, &buffers, [heads, 1, splits as usize]);
            } else {
                let kernel = Rope { head_dim, normed, cache: format }.kernel();
                let mut buffers = vec![&r, &rows, &angles, &qkv, &q, &k, &v];
                buffers.extend(normed.then_some(&weights));
                dispatch(&device, &kernel, &buffers, [1, all, 1]);
                let kernel = attention.one(lanes, false);
                let buffers = [&p, &pass, &rows, &q, &k, &v, &a, &parts];
                dispatch(&device, &kernel, &buffers, [heads, 1, splits as usize]);
            }
            if splits > 1 {
                let buffers = [&p, &pass, &parts, &a];
                dispatch(&device, &merge(head_dim, false), &buffers, [1, heads, 1]);
            }
            let floats = kv_heads * slots * pad / 2;
            let bits = |b| bytemuck::cast_vec::<f32, u32>(copied(&device, b, floats));
            (copied(&device, &a, heads * head_dim), bits(&k), bits(&v))
        };
        let ((got, got_k, got_v), (want, want_k, want_v)) = (run(true), run(false));
        assert!(got_k == want_k && got_v == want_v, "case {i}: the cache");
        for (d, (got, want)) in got.iter().zip(&want).enumerate() {
            // A driver may see that what is rounded to f16 is widened again, and leave both out.
            assert!((got - want).abs() < 5e-4, "case {i}, {d}: {got}, not {want}");
        }
    }
}

fn head_dim_padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(HEAD_PAD)
}

/// Norm, rotation and the way into the cache, with large heads.
#[test]
fn rotation_with_large_heads_is_the_oracles() {
    let Some(device) = shared() else { return };
    use CacheFormat::{F16, F32};
    for (head_dim, normed, format) in
        [(256, true, F16), (128, true, F32), (256, false, F32), (100, true, F16)]
    {
        check_rotation(&device, head_dim, normed, format);
    }
}

fn check_rotation(device: &Device, head_dim: usize, normed: bool, format: CacheFormat) {
    let (n, heads, kv_heads, slots, query_scale, eps) = (3, 4, 2, 8, 0.0625, 1e-6);
    let pad = head_dim.next_multiple_of(HEAD_PAD);
    let all = heads + 2 * kv_heads;
    let qkv = noise(n * all * head_dim, 1);
    let weights: Vec<f32> = noise(2 * head_dim, 2).iter().map(|v| 1.0 + v).collect();
    // Two tables of angles a row, the second of which is used.
    let angles: Vec<f32> = (0..n * 2)
        .flat_map(|row| {
            let angle = move |d: usize| (row as f32 + 1.0) * 0.37 / (1.0 + d as f32);
            let half = head_dim / 2;
            (0..head_dim)
                .map(move |d| if d < half { angle(d).cos() } else { angle(d - half).sin() })
        })
        .collect();
    // Past the ring's end: slots wrap.
    let row = |t: usize| Row { seq: 1, pos: (6 + t) as u32, end: 0, place: t as u32 };
    let rows: Vec<Row> = (0..n).map(row).collect();
    let p = device.uniform(&RopeParams {
        heads: heads as u32,
        kv_heads: kv_heads as u32,
        slots: slots as u32,
        table: 1,
        eps: eps as f32,
        query_scale: query_scale as f32,
        ..Default::default()
    });
    let cache_words = 2 * kv_heads * slots * format.row_bytes(head_dim) / 4;
    let rows_buffer = words(device, bytemuck::cast_slice(&rows));
    let [angles_buffer, qkv_buffer, weights_buffer, q] =
        [&angles, &qkv, &weights, &vec![f32::NAN; n * heads * pad]]
            .map(|v| device.floats("floats", v));
    let [k, v] = [(), ()].map(|()| words(device, &vec![0; cache_words]));
    let mut buffers = vec![&p, &rows_buffer, &angles_buffer, &qkv_buffer, &q, &k, &v];
    buffers.extend(normed.then_some(&weights_buffer));
    dispatch(device, &Rope { head_dim, normed, cache: format }.kernel(), &buffers, [n, all, 1]);
    let q = copied(device, &q, n * heads * pad);
    let [k, v] = [k, v].map(|b| {
        let words: Vec<u32> = bytemuck::cast_vec(copied(device, &b, cache_words));
        match format {
            CacheFormat::F32 => words.iter().map(|w| f32::from_bits(*w)).collect::<Vec<f32>>(),
            CacheFormat::Q8_0 => unreachable!("its tests are those of the cache"),
            CacheFormat::F16 => {
                let halves = words.iter().flat_map(|w| [*w as u16, (*w >> 16) as u16]);
                halves.map(|h| f16::from_bits(h).to_f32()).collect()
            }
        }
    });
    for (t, head) in (0..n).flat_map(|t| (0..all).map(move |h| (t, h))) {
        let x = &qkv[(t * all + head) * head_dim..][..head_dim];
        let is_query = head < heads;
        let want: Vec<f64> = if head >= heads + kv_heads {
            x.iter().map(|v| f64::from(*v)).collect()
        } else {
            let squares: f64 = x.iter().map(|v| f64::from(*v).powi(2)).sum();
            let r = if normed { (squares / head_dim as f64 + eps).sqrt().recip() } else { 1.0 };
            let w = |d: usize| match normed {
                true => f64::from(weights[if is_query { d } else { head_dim + d }]),
                false => 1.0,
            };
            let y: Vec<f64> = (0..head_dim).map(|d| f64::from(x[d]) * r * w(d)).collect();
            let angle = |d: usize| f64::from(angles[(t * 2 + 1) * head_dim + d]);
            let (half, scale) = (head_dim / 2, if is_query { query_scale } else { 1.0 });
            let turned = |d: usize| match d < half {
                true => y[d] * angle(d) - y[d + half] * angle(d + half),
                false => y[d] * angle(d - half) + y[d - half] * angle(d),
            };
            (0..head_dim).map(|d| turned(d) * scale).collect()
        };
        let kv_head = (head.saturating_sub(heads)) % kv_heads;
        let slot = (kv_heads + kv_head) * slots + (6 + t) % slots;
        let got = match head {
            h if h < heads => &q[(t * heads + head) * pad..][..pad],
            h if h < heads + kv_heads => &k[slot * pad..][..pad],
            _ => &v[slot * pad..][..pad],
        };
        let ulp = if format == CacheFormat::F16 && !is_query { 1e-3 } else { 1e-5 };
        for (d, got) in got.iter().enumerate() {
            let want = want.get(d).copied().unwrap_or(0.0);
            let error = (f64::from(*got) - want).abs();
            let what = format!("{head_dim}, {format:?}, row {t}, head {head}, {d}");
            assert!(error <= ulp * (want.abs() + 1e-2), "{what}: {got}, not {want}");
        }
    }
}
