// h = RMSNorm(x) · weight
var<private> weights: array<vec4<f32>, PER>;

fn ask_store(c: u32, k: u32) {
    weights[k] = weight[c];
}

fn store(v: ptr<function, array<vec4<f32>, PER>>, row: u32, i: u32) {
    var squares = 0.0;
    for (var k = 0u; k < PER; k++) { squares += dot((*v)[k], (*v)[k]); }
    let r = reciprocal(total(squares, i, 1u));
    for (var k = 0u; k < PER; k++) {
        let c = k * 256u + i;
        if c < p.stride { h[row + c] = (*v)[k] * r * weights[k]; }
    }
}
