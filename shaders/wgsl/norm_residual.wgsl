// x += RMSNorm(o) · post
var<private> outs: array<vec4<f32>, PER>;
var<private> posts: array<vec4<f32>, PER>;

fn ask_residual(row: u32, c: u32, k: u32) {
    outs[k] = o[row + c];
    posts[k] = post[c];
}

fn residual(v: ptr<function, array<vec4<f32>, PER>>, row: u32, i: u32) {
    var squares = 0.0;
    for (var k = 0u; k < PER; k++) { squares += dot(outs[k], outs[k]); }
    let r = reciprocal(total(squares, i, 0u));
    for (var k = 0u; k < PER; k++) {
        let c = k * 256u + i;
        (*v)[k] += outs[k] * r * posts[k];
        if c < p.stride { x[row + c] = (*v)[k]; }
    }
}
