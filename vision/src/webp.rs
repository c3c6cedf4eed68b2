//! The outermost structure of a WebP file.

use crate::error::PictureError;

/// Checks that every chunk lies within the file: the decoder reserves as much memory for metadata
/// as their headers claim.
///
/// Format: <https://developers.google.com/speed/webp/docs/riff_container>.
pub(crate) fn check(bytes: &[u8]) -> Result<(), PictureError> {
    let cut = || PictureError::Damaged("a WebP chunk ends past the end of the file".into());
    let size = |at: usize| -> Option<usize> {
        let word = bytes.get(at..at + 4)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*word) as usize)
    };
    // "RIFF", size, "WEBP", then chunks: name, size, and data padded to an even length.
    let end = size(4).and_then(|n| n.checked_add(8)).ok_or_else(cut)?;
    if end > bytes.len() + 1 {
        return Err(cut());
    }
    let mut at = 12;
    while at + 8 <= bytes.len() {
        let chunk = size(at + 4).ok_or_else(cut)?;
        if chunk > bytes.len() - at - 8 {
            return Err(cut());
        }
        at += 8 + chunk + chunk % 2;
    }
    Ok(())
}
