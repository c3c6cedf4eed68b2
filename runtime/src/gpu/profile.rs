//! Where a device's time goes: a pair of timestamps around each dispatch.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::device::Device;
use super::error::GpuError;
use super::ops::Grid;

/// Dispatches between two looks at the timestamps (WebGPU's query sets hold 4096).
const MOST: u32 = 2048;

/// What one kernel has cost, all of its dispatches of one size together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelTime {
    /// Its file and its constants.
    pub name: String,
    /// Workgroups of a dispatch.
    pub grid: [u32; 3],
    /// Dispatches.
    pub count: usize,
    /// The time of all of them.
    pub time: Duration,
}

/// Timestamps of a device, where they were asked for.
pub(super) struct Profile {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// Nanoseconds in a tick.
    period: f32,
    pending: Mutex<Vec<(String, Grid)>>,
    found: Mutex<HashMap<(String, Grid), (usize, Duration)>>,
}

impl Profile {
    pub(super) fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: u64::from(MOST) * 16,
                usage,
                mapped_at_creation: false,
            })
        };
        Profile {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * MOST,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            staging: buffer(wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ),
            period: queue.get_timestamp_period(),
            pending: Mutex::default(),
            found: Mutex::default(),
        }
    }

    /// A pass of its own for one dispatch, and the time around it.
    pub(super) fn pass(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        name: &str,
        grid: Grid,
    ) -> wgpu::ComputePass<'static> {
        let mut pending = self.pending.lock().unwrap_or_else(|e| e.into_inner());
        let at = pending.len() as u32;
        pending.push((name.to_owned(), grid));
        let writes = wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(2 * at),
            end_of_pass_write_index: Some(2 * at + 1),
        };
        let descriptor =
            wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(writes) };
        encoder.begin_compute_pass(&descriptor).forget_lifetime()
    }

    /// Have as many dispatches been encoded as there is room for?
    pub(super) fn is_full(&self) -> bool {
        self.pending.lock().unwrap_or_else(|e| e.into_inner()).len() >= MOST as usize
    }

    /// Goes at the end of what is submitted.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let n = self.pending.lock().unwrap_or_else(|e| e.into_inner()).len() as u32;
        if n > 0 {
            encoder.resolve_query_set(&self.queries, 0..2 * n, &self.resolved, 0);
            let bytes = u64::from(n) * 16;
            encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.staging, 0, bytes);
        }
    }

    /// Goes after the submission: waits for it and adds up its times.
    pub(super) fn collect(&self, device: &Device) -> Result<(), GpuError> {
        let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(|e| e.into_inner()));
        if pending.is_empty() {
            return Ok(());
        }
        let slice = self.staging.slice(..pending.len() as u64 * 16);
        let (to, answer) = channel();
        slice.map_async(wgpu::MapMode::Read, move |r| drop(to.send(r)));
        device.mapped(None, &answer)?;
        let view = slice.get_mapped_range().map_err(|e| device.failed(e.to_string()))?;
        let ticks: &[[u64; 2]] = bytemuck::cast_slice(&view);
        let mut found = self.found.lock().unwrap_or_else(|e| e.into_inner());
        for (key, [from, to]) in pending.into_iter().zip(ticks) {
            let entry = found.entry(key).or_default();
            entry.0 += 1;
            let nanoseconds = to.saturating_sub(*from) as f64 * f64::from(self.period);
            entry.1 += Duration::from_nanos(nanoseconds as u64);
        }
        drop(view);
        self.staging.unmap();
        Ok(())
    }

    /// What was found since this was last asked, the most expensive first.
    pub(super) fn take(&self) -> Vec<KernelTime> {
        let found = std::mem::take(&mut *self.found.lock().unwrap_or_else(|e| e.into_inner()));
        let mut times: Vec<_> = found
            .into_iter()
            .map(|((name, grid), (count, time))| KernelTime { name, grid, count, time })
            .collect();
        times.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.name.cmp(&b.name)));
        times
    }
}
