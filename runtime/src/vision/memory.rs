//! Memory for one image, or an error that says that there is none.

use crate::error::RuntimeError;

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
