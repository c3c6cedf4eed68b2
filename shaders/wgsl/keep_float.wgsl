fn keep(at: u32, i: u32) {}
