//! NumPy's `.npy` format, version 1.0, for float32 matrices written row by row.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::{self, Write};

/// Writes the header of a C-ordered `[rows, cols]` float32 array; the data follows.
pub(crate) fn header(out: &mut impl Write, rows: usize, cols: usize) -> io::Result<()> {
    let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    // Magic, version, length and dictionary, ended by a newline, are a multiple of 64 bytes.
    let len = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(len as u16).to_le_bytes())?;
    writeln!(out, "{dict:<width$}", width = len - 1)
}

/// Writes values, little-endian.
pub(crate) fn values(out: &mut impl Write, x: &[f32]) -> io::Result<()> {
    x.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn header_is_aligned() {
        let mut out = Vec::new();
        super::header(&mut out, 3, 262_144).unwrap();
        assert!(out.len().is_multiple_of(64));
        assert_eq!(out.last(), Some(&b'\n'));
        let text = String::from_utf8_lossy(&out[10..]).into_owned();
        assert!(text.contains("'shape': (3, 262144)"));
    }
}
