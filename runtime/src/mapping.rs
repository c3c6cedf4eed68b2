//! Files in memory without reading them.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::RuntimeError;

/// Maps a file, read-only.
///
/// # Errors
/// [`RuntimeError::Io`] naming the file.
pub fn map(path: &Path) -> Result<Mmap, RuntimeError> {
    let io = |source| RuntimeError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        let source = std::io::Error::other("not a file; a model is a .gguf file");
        return Err(io(source));
    }
    // SAFETY: the mapping is private and read-only. A file that another process shortens while it
    // is mapped would end this one with a signal; that is the price of not copying weights, and
    // what every mapping of a model file lives with. Contents that change cannot break memory
    // safety: whatever was checked (offsets, shapes, counts) is kept outside the mapping.
    unsafe { Mmap::map(&file) }.map_err(io)
}
