fn conclude(workgroup: u32, i: u32) {}
