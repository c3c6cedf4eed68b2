fn ask_store(c: u32, k: u32) {}
fn store(v: ptr<function, array<vec4<f32>, PER>>, row: u32, i: u32) {}
