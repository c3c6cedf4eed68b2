fn residual(v: ptr<function, array<vec4<f32>, PER>>, i: u32) {}
