fn residual(v: ptr<function, array<vec4<f32>, PER>>, row: u32, i: u32) {}
