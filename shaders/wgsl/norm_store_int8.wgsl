// h = RMSNorm(x) · weight, and its blocks of 32 as bytes (prepare_int8.wgsl): eight invocations a block.
var<private> weights: array<vec4<f32>, PER>;

fn ask_store(c: u32, k: u32) {
    weights[k] = weight[c];
}

fn store(v: ptr<function, array<vec4<f32>, PER>>, row: u32, i: u32) {
    var squares = 0.0;
    for (var k = 0u; k < PER; k++) { squares += dot((*v)[k], (*v)[k]); }
    let r = reciprocal(total(squares, i, 1u));
    var scale: array<f32, PER>;
    for (var k = 0u; k < PER; k++) {
        let c = k * 256u + i;
        (*v)[k] = (*v)[k] * r * weights[k];
        if c < p.stride { h[row + c] = (*v)[k]; }
        let size = abs((*v)[k]);
        scale[k] = max(max(size.x, size.y), max(size.z, size.w));
    }
    largest_of_eight(&scale, i);
    var sum: array<f32, PER>;
    for (var k = 0u; k < PER; k++) {
        let c = k * 256u + i;
        scale[k] /= 127.0;
        let inverse = select(0.0, 1.0 / scale[k], scale[k] > 1e-30);
        let q = vec4<i32>(round((*v)[k] * inverse));
        if c < p.stride { values[row + c] = pack4xI8(q); }
        sum[k] = f32(q.x + q.y + q.z + q.w);
    }
    sum_of_eight(&sum, i);
    for (var k = 0u; k < PER; k++) {
        let c = k * 256u + i;
        if c < p.stride && i % 8u == 0u { scales[(row + c) / 8u] = vec2<f32>(scale[k], sum[k]); }
    }
}
