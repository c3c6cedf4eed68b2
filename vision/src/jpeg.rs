//! The outermost structure of a JPEG file.

use crate::error::PictureError;

/// Checks that the picture has an end: the decoder would fill what is missing with grey.
///
/// Markers: ITU T.81, annex B. In the data of a scan a byte 0xFF is followed by 0 or by a restart
/// marker, so that no other marker can be found in it by mistake.
pub(crate) fn check(bytes: &[u8]) -> Result<(), PictureError> {
    const END: u8 = 0xD9;
    let mut at = 2; // after the marker of the start
    loop {
        let found = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xFF));
        let cut = || PictureError::Damaged("the JPEG data has no end".into());
        at += found.ok_or_else(cut)? + 1;
        match *bytes.get(at).ok_or_else(cut)? {
            END => return Ok(()),
            // Bytes of a scan, restarts, and a marker without a segment.
            0 | 1 | 0xD0..=0xD8 => at += 1,
            // Fill bytes: the next one may be the marker.
            0xFF => {}
            _ => {
                let length = bytes.get(at + 1..at + 3).ok_or_else(cut)?;
                at += 1 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}
