// x + RMSNorm(o) · post
fn residual(v: ptr<function, array<vec4<f32>, PER>>, i: u32) {
    var u: array<vec4<f32>, PER>;
    var gain: array<vec4<f32>, PER>;
    var squares = 0.0;
    for (var k = 0u; k < PER; k++) {
        let c = k * WORKGROUP + i;
        if c < QUADS {
            u[k] = o[c];
            gain[k] = post[c];
        }
        squares += dot(u[k], u[k]);
    }
    let factor = reciprocal(total(squares, i, 0u));
    for (var k = 0u; k < PER; k++) { (*v)[k] += u[k] * factor * gain[k]; }
}
