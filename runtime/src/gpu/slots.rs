//! Tokens that follow each other and are sent together: each has a slot for what is known of it before
//! its turn. Which token it is, the device knows.

use shaders::params::Row;

use super::device::Device;
use super::region::Region;

/// Rows and angles of the tokens of one submission.
pub(super) struct Slots {
    buffer: wgpu::Buffer,
    /// Bytes of a token's angles.
    angles: u64,
}

/// What bindings begin at.
const ALIGNED: u64 = 256;

impl Slots {
    /// Tokens in a submission, at most.
    pub(super) const MOST: usize = 4;

    pub(super) fn new(device: &Device, head_dim: usize) -> Self {
        let angles = (2 * head_dim * 4) as u64;
        let bytes = Self::MOST as u64 * (angles.next_multiple_of(ALIGNED) + ALIGNED);
        Slots { buffer: device.storage("slots", bytes), angles }
    }

    /// Bytes from a slot's angles to its row.
    fn row_at(&self) -> u64 {
        self.angles.next_multiple_of(ALIGNED)
    }

    /// Where a slot begins.
    fn at(&self, slot: usize) -> u64 {
        slot as u64 * (self.row_at() + ALIGNED)
    }

    /// Cosines and sines of a token's position, as [`Buffers::angles`](super::buffers::Buffers).
    pub(super) fn angles(&self, slot: usize) -> Region {
        Region::of(&self.buffer, self.at(slot), self.angles)
    }

    /// Its row; its place is the slot's number.
    pub(super) fn row(&self, slot: usize) -> Region {
        Region::of(&self.buffer, self.at(slot) + self.row_at(), size_of::<Row>() as u64)
    }

    /// Sends the rows and angles of all tokens in one go.
    pub(super) fn send(&self, queue: &wgpu::Queue, tokens: &[(Row, Vec<f32>)]) {
        let mut bytes = vec![0; self.at(tokens.len()) as usize];
        let steps = bytes.chunks_exact_mut(self.at(1) as usize);
        for (out, (row, angles)) in steps.zip(tokens) {
            let (first, rest) = out.split_at_mut(self.row_at() as usize);
            first[..self.angles as usize].copy_from_slice(bytemuck::cast_slice(angles));
            rest[..size_of::<Row>()].copy_from_slice(bytemuck::bytes_of(row));
        }
        queue.write_buffer(&self.buffer, 0, &bytes);
    }
}
