fn embed_row(token: u32, to: u32, i: u32) {}
