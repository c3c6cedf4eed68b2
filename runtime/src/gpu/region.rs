//! Parts of buffers: layers that run in one dispatch lie in the same buffers, one after the other, and
//! what works on one of them alone binds its part.

use super::buffers::PassBuffer;
use super::device::Device;

/// What a kernel binds.
pub(crate) trait Bound {
    fn binding(&self) -> wgpu::BufferBinding<'_>;
}

impl Bound for wgpu::Buffer {
    fn binding(&self) -> wgpu::BufferBinding<'_> {
        self.as_entire_buffer_binding()
    }
}

impl Bound for PassBuffer {
    fn binding(&self) -> wgpu::BufferBinding<'_> {
        self.as_entire_buffer_binding()
    }
}

/// A part of a buffer, or all of it.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    buffer: wgpu::Buffer,
    /// Bytes before it: a multiple of what bindings begin at.
    offset: u64,
    bytes: u64,
}

impl Region {
    /// A buffer of its own, of zeros.
    pub(super) fn new(device: &Device, label: &str, bytes: u64) -> Self {
        let buffer = device.storage(label, bytes);
        let bytes = buffer.size();
        Region { buffer, offset: 0, bytes }
    }

    /// `bytes` of a buffer from `offset` on, a multiple of 256.
    pub(super) fn of(buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Self {
        debug_assert!(offset.is_multiple_of(256) && offset + bytes <= buffer.size());
        Region { buffer: buffer.clone(), offset, bytes }
    }

    /// Fills `to` with its beginning.
    pub(super) fn copy(&self, encoder: &mut wgpu::CommandEncoder, to: &wgpu::Buffer) {
        encoder.copy_buffer_to_buffer(&self.buffer, self.offset, to, 0, to.size());
    }

    /// Sends `data` to where it is `at` bytes from the beginning on.
    pub(super) fn write(&self, device: &Device, at: u64, data: &[u8]) {
        debug_assert!(at + data.len() as u64 <= self.bytes);
        device.queue.write_buffer(&self.buffer, self.offset + at, data);
    }
}

impl Bound for Region {
    fn binding(&self) -> wgpu::BufferBinding<'_> {
        let size = wgpu::BufferSize::new(self.bytes);
        wgpu::BufferBinding { buffer: &self.buffer, offset: self.offset, size }
    }
}
