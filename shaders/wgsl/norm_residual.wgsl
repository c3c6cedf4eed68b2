// x += RMSNorm(o) · post
fn residual(v: ptr<function, array<vec4<f32>, PER>>, row: u32, i: u32) {
    var u: array<vec4<f32>, PER>;
    var squares = 0.0;
    for (var k = 0u; k < PER; k++) {
        let c = k * 256u + i;
        if c < p.stride { u[k] = o[row + c]; }
        squares += dot(u[k], u[k]);
    }
    let r = reciprocal(squares, i);
    for (var k = 0u; k < PER; k++) {
        let c = k * 256u + i;
        if c < p.stride {
            (*v)[k] += u[k] * r * post[c];
            x[row + c] = (*v)[k];
        }
    }
}
