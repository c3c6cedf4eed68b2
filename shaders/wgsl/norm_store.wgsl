// h = RMSNorm(x) · weight
fn store(v: ptr<function, array<vec4<f32>, PER>>, row: u32, i: u32) {
    var squares = 0.0;
    for (var k = 0u; k < PER; k++) { squares += dot((*v)[k], (*v)[k]); }
    let r = reciprocal(squares, i);
    for (var k = 0u; k < PER; k++) {
        let c = k * 256u + i;
        if c < p.stride { h[row + c] = (*v)[k] * r * weight[c]; }
    }
}
