fn store(row: u32, i: u32) {}
