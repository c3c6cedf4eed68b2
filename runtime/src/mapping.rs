//! Files in memory without reading them.

use std::fs::File;
use std::path::Path;

use memmap2::{Mmap, MmapMut};

use crate::error::RuntimeError;

/// Maps a file, read-only.
///
/// # Errors
/// [`RuntimeError::Io`] naming the file.
pub fn map(path: &Path) -> Result<Mmap, RuntimeError> {
    let io = |source| RuntimeError::Io { path: path.to_owned(), source };
    // Before it is opened: Windows refuses to open a folder, with less to say, and a pipe would wait.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        let source = std::io::Error::other("not a file; a model is a .gguf file");
        return Err(io(source));
    }
    let file = File::open(path).map_err(io)?;
    // SAFETY: the mapping is private and read-only. A file that another process shortens while it
    // is mapped would end this one with a signal; that is the price of not copying weights, and
    // what every mapping of a model file lives with. Contents that change cannot break memory
    // safety: whatever was checked (offsets, shapes, counts) is kept outside the mapping.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    // Every token reads all of it: with pages of 2 MiB the address translations of a pass fit the
    // caches of the processor. What is read from disk now comes in such pages; what already lies
    // in the page cache stays as it is. A refusal costs nothing.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

/// `len` zeroed bytes, in large pages where the system has them to give.
///
/// # Errors
/// The system's, when there is no room.
pub fn memory(len: usize) -> std::io::Result<MmapMut> {
    let map = MmapMut::map_anon(len)?;
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}
