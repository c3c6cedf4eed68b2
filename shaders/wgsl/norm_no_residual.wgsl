fn ask_residual(row: u32, c: u32, k: u32) {}
fn residual(v: ptr<function, array<vec4<f32>, PER>>, row: u32, i: u32) {}
