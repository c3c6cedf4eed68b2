//! Rows of activations in the form that matmuls of many rows multiply.

use shaders::params::Mat;
use shaders::{Format, Many, Prepare};

use super::device::Device;
use super::ops::Op;
use super::region::Bound;

/// Where prepared rows lie. One pair of buffers does for several matmuls: each is prepared right
/// before it is read.
pub(super) struct Prepared {
    pub(super) values: wgpu::Buffer,
    pub(super) scales: wgpu::Buffer,
}

impl Prepared {
    /// For up to `rows` rows of up to `cols` values, a multiple of 32; `None` where this device
    /// multiplies everything as it is.
    pub(super) fn new(device: &Device, rows: usize, cols: usize) -> Option<Self> {
        let ways = |f| [device.features.few(f), device.features.many(f)];
        let forms = Format::ALL.into_iter().flat_map(ways).filter_map(Many::prepare);
        let forms: Vec<Prepare> = forms.collect();
        let values = forms.iter().map(|f| f.bytes(cols)).max()?;
        let scales = forms.iter().map(|f| f.scale_bytes(cols)).max()?;
        Some(Prepared {
            values: device.storage("prepared", (rows * values) as u64),
            scales: device.storage("scales of prepared", (rows * scales) as u64),
        })
    }

    /// The buffers, as kernels bind them in place of x.
    pub(super) fn bound(&self) -> [&dyn Bound; 2] {
        [&self.values, &self.scales]
    }

    /// What prepares the rows of `x`, `stride` floats apart.
    pub(super) fn op(
        &self,
        device: &Device,
        form: Prepare,
        pass: &dyn Bound,
        x: &wgpu::Buffer,
        stride: usize,
    ) -> Op {
        let p = device.uniform(&Mat { x_stride: (stride / 4) as u32, ..Default::default() });
        Op::new(device, &form.kernel(), &[&p, pass, x, &self.values, &self.scales])
    }
}
