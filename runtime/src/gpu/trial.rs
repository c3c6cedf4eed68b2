//! Do a device's cooperative matrices do what they should? wgpu calls them experimental, and drivers
//! differ: each device multiplies something known with them before anything depends on it.

use half::f16;
use quant::DType;
use shaders::params::{Attend, Pass, Row};
use shaders::{Attention, CacheFormat, Kernel, Many, Output};

use super::device::Device;
use super::error::GpuError;
use super::matrix::{DeviceMatrix, Stack};
use super::ops::{Ends, InBytes, MatOp, Op};
use super::prepare::Prepared;
use crate::weights::WeightMatrix;

/// Why the matrices of a device that was opened with them are not to be used; `None` where they are
/// right.
pub(super) fn matrices_fail(device: &Device) -> Option<String> {
    let tried = || -> Result<Option<String>, GpuError> {
        if !product_is_right(device)? {
            return Ok(Some("a product by cooperative matrices came out wrong".into()));
        }
        if !attention_is_right(device)? {
            return Ok(Some("attention by cooperative matrices came out wrong".into()));
        }
        Ok(None)
    };
    match device.guarded("trying cooperative matrices", tried) {
        Ok(why) => why,
        Err(e) => Some(e.to_string()),
    }
}

/// Small integers, whose products and sums are exact.
fn integer(a: usize, b: usize, modulus: usize) -> f32 {
    ((a + b) % modulus) as f32 - (modulus / 2) as f32
}

fn product_is_right(device: &Device) -> Result<bool, GpuError> {
    // More rows of x than a tile has.
    let (rows, cols, n) = (136, 96, 70);
    let w = |r: usize, c: usize| integer(7 * r, 3 * c, 13);
    let x = |t: usize, c: usize| integer(5 * t, 11 * c, 9);
    let bytes: Vec<u8> =
        (0..rows * cols).flat_map(|i| f16::from_f32(w(i / cols, i % cols)).to_le_bytes()).collect();
    let of_file = WeightMatrix { dtype: DType::F16, rows, cols, bytes: 0..bytes.len() };
    let matrix = DeviceMatrix::upload(device, &bytes, &[&of_file], Stack::After)?;
    let values: Vec<f32> = (0..n * cols).map(|i| x(i / cols, i % cols)).collect();
    let pass = device.uniform(&Pass { n: n as u32, ..Default::default() });
    let x_buffer = device.floats("x", &values);
    let y = device.floats("y", &vec![f32::NAN; n * rows]);
    let prepared = Prepared::new(device, n, cols);
    let ends = Ends {
        pass: &pass,
        x: &x_buffer,
        x_stride: cols,
        prepared: prepared.as_ref(),
        in_bytes: InBytes::Never,
        y: &y,
        y_stride: rows,
        y_bytes: None,
    };
    let op = MatOp::new(device, &matrix, Output::Plain, 0.0, &ends);
    debug_assert!(matches!(device.features.many(matrix.format()), Many::Matrix { .. }));
    let mut encoder = device.device.create_command_encoder(&Default::default());
    let mut compute = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
    op.encode(device, n, |compiled, group, grid| {
        device.dispatch(&mut compute, compiled, group, grid);
    });
    drop(compute);
    let got = read(device, encoder, &y, n * rows)?;
    Ok((0..n * rows).all(|i| {
        let (t, r) = (i / rows, i % rows);
        got[i] == (0..cols).map(|c| w(r, c) * x(t, c)).sum::<f32>()
    }))
}

/// Each query sees one key far above all others, so that the result is that key's value.
fn attention_is_right(device: &Device) -> Result<bool, GpuError> {
    let (head_dim, n) = (64, 40_usize);
    let attention = Attention { head_dim, heads: 1, rows: 1, cache: CacheFormat::F16 };
    let (Some((16, workgroup)), Some(by)) = (device.features.matrix, attention.by_matrices())
    else {
        return Ok(true);
    };
    let slots = n.next_multiple_of(16);
    let one_hot = |size: f32| -> Vec<f32> {
        (0..slots * head_dim)
            .map(|i| if i / head_dim == i % head_dim { size } else { 0.0 })
            .collect()
    };
    let values: Vec<f32> =
        (0..slots * head_dim).map(|i| integer(3 * (i / head_dim), i % head_dim, 11)).collect();
    let halves = |values: &[f32]| {
        let words: Vec<f32> = values
            .chunks_exact(2)
            .map(|v| [f16::from_f32(v[0]), f16::from_f32(v[1])].map(f16::to_bits))
            .map(|[a, b]| f32::from_bits(u32::from(a) | u32::from(b) << 16))
            .collect();
        device.floats("cache", &words)
    };
    let rows: Vec<Row> =
        (0..n as u32).map(|place| Row { seq: 0, pos: place, end: place + 1, place }).collect();
    let p = device.uniform(&Attend {
        heads: 1,
        kv_heads: 1,
        slots: slots as u32,
        stride: head_dim as u32,
        ..Default::default()
    });
    let pass = device.uniform(&Pass { n: n as u32, splits: 1, ..Default::default() });
    let rows = device.floats("rows", bytemuck::cast_slice(&rows));
    let (q, k, v) = (device.floats("q", &one_hot(30.0)), halves(&one_hot(1.0)), halves(&values));
    let a = device.floats("a", &vec![f32::NAN; n * head_dim]);
    let kernel: Kernel = by.matrix(workgroup as usize);
    let op = Op::new(device, &kernel, &[&p, &pass, &rows, &q, &k, &v, &a]);
    let mut encoder = device.device.create_command_encoder(&Default::default());
    let mut compute = encoder.begin_compute_pass(&Default::default());
    op.dispatch(device, &mut compute, [1, n.div_ceil(by.rows) as u32, 1]);
    drop(compute);
    let got = read(device, encoder, &a, n * head_dim)?;
    Ok(got.iter().zip(&values).all(|(got, want)| (got - want).abs() < 1e-3))
}

fn read(
    device: &Device,
    mut encoder: wgpu::CommandEncoder,
    from: &wgpu::Buffer,
    floats: usize,
) -> Result<Vec<f32>, GpuError> {
    let staging = device.staging(floats as u64 * 4);
    encoder.copy_buffer_to_buffer(from, 0, &staging, 0, floats as u64 * 4);
    device.queue.submit([encoder.finish()]);
    let mut out = vec![0.0; floats];
    device.read(&staging, &mut out)?;
    Ok(out)
}
