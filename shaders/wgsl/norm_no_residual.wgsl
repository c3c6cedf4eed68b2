fn residual(row: u32, i: u32) {}
