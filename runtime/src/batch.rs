//! What one call of the forward pass works on.

/// Where a row of a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The token.
    pub token: u32,
    /// The sequence of the cache that it belongs to.
    pub seq: usize,
    /// Its position in that sequence; positions of one sequence follow each other.
    pub pos: usize,
}

/// Tokens that go through the model together, of one sequence or of many.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The rows, in order.
    pub rows: Vec<Row>,
    /// Indices of the rows whose logits are wanted, ascending.
    pub wanted: Vec<usize>,
}

impl Batch {
    /// No rows, the allocations kept.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.wanted.clear();
    }

    /// Adds a row; `logits` asks for its logits.
    pub fn push(&mut self, row: Row, logits: bool) {
        if logits {
            self.wanted.push(self.rows.len());
        }
        self.rows.push(row);
    }
}
