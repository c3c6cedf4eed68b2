//! Memory for one image, or an error that says that there is none.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;

use crate::error::RuntimeError;

/// 64 bytes on a 64-byte boundary.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Numbers on a 64-byte boundary: vectors of what many loops read again and again then lie in one cache
/// line each.
pub(super) struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Aligned<T> {
    /// `len` zeros.
    pub(super) fn zeros(len: usize) -> Self {
        let lines = vec![Line([0; 64]); (len * size_of::<T>()).div_ceil(64)];
        Aligned { lines, len, of: PhantomData }
    }
}

impl<T: Pod> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// `len` of something, or the error that says what there was no memory for.
pub(super) fn reserve<T: Clone + Default>(len: usize) -> Result<Vec<T>, RuntimeError> {
    let mut out = Vec::new();
    match out.try_reserve_exact(len) {
        Ok(()) => {
            out.resize(len, T::default());
            Ok(out)
        }
        Err(_) => Err(no_memory(len.saturating_mul(size_of::<T>()))),
    }
}

pub(super) fn no_memory(bytes: usize) -> RuntimeError {
    RuntimeError::Memory { what: "an image's activations", bytes }
}
