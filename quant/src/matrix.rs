//! A weight matrix borrowed from a mapped file.

use crate::DType;

/// `rows` × `cols` weights, row-major, in the blocks of `dtype`, borrowed from wherever the file
/// lies. Constructed only with matching sizes, so kernels need not ask again.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    dtype: DType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: &'a [u8],
}

/// Why a [`Matrix`] could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rows} rows of {cols} {dtype} weights do not fit {bytes} bytes")]
pub struct ShapeError {
    /// Element type asked for.
    pub dtype: DType,
    /// Rows asked for.
    pub rows: usize,
    /// Weights a row asked for.
    pub cols: usize,
    /// Bytes that were there.
    pub bytes: usize,
}

impl<'a> Matrix<'a> {
    /// `data` must be exactly `rows` × `dtype.row_bytes(cols)` bytes.
    pub fn new(dtype: DType, rows: usize, cols: usize, data: &'a [u8]) -> Result<Self, ShapeError> {
        let row_bytes = dtype.row_bytes(cols);
        match row_bytes {
            Some(row_bytes) if row_bytes.checked_mul(rows) == Some(data.len()) => {
                Ok(Matrix { dtype, rows, cols, row_bytes, data })
            }
            _ => Err(ShapeError { dtype, rows, cols, bytes: data.len() }),
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features: the length of one row in weights.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes from one row to the next.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// All the bytes.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The bytes of row `r`.
    pub fn row(&self, r: usize) -> &'a [u8] {
        &self.data[r * self.row_bytes..][..self.row_bytes]
    }

    /// Rows `r0 .. r0 + n` as a matrix of their own.
    pub fn slice_rows(&self, r0: usize, n: usize) -> Matrix<'a> {
        let data = &self.data[r0 * self.row_bytes..][..n * self.row_bytes];
        Matrix { rows: n, data, ..*self }
    }
}
