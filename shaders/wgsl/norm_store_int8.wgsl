// h = RMSNorm(x) · weight, and its blocks of 32 as bytes (prepare_int8.wgsl): eight invocations a block.
var<workgroup> shared_values: array<f32, PER * 256u>;

fn store(v: ptr<function, array<vec4<f32>, PER>>, row: u32, i: u32) {
    var squares = 0.0;
    for (var k = 0u; k < PER; k++) { squares += dot((*v)[k], (*v)[k]); }
    let r = reciprocal(squares, i);
    for (var k = 0u; k < PER; k++) {
        let c = k * 256u + i;
        if c < p.stride {
            (*v)[k] = (*v)[k] * r * weight[c];
            h[row + c] = (*v)[k];
        }
        let size = abs((*v)[k]);
        shared_values[c] = max(max(size.x, size.y), max(size.z, size.w));
    }
    workgroupBarrier();
    var scale: array<f32, PER>;
    for (var k = 0u; k < PER; k++) {
        let first = k * 256u + i / 8u * 8u;
        for (var j = 0u; j < 8u; j++) { scale[k] = max(scale[k], shared_values[first + j]); }
        scale[k] /= 127.0;
    }
    workgroupBarrier();
    for (var k = 0u; k < PER; k++) {
        let c = k * 256u + i;
        let inverse = select(0.0, 1.0 / scale[k], scale[k] > 1e-30);
        let q = vec4<i32>(round((*v)[k] * inverse));
        if c < p.stride { values[row + c] = pack4xI8(q); }
        shared_values[c] = f32(q.x + q.y + q.z + q.w);
    }
    workgroupBarrier();
    for (var k = 0u; k < PER; k++) {
        let c = k * 256u + i;
        if c < p.stride && i % 8u == 0u {
            var sum = 0.0;
            for (var j = 0u; j < 8u; j++) { sum += shared_values[c + j]; }
            scales[(row + c) / 8u] = vec2<f32>(scale[k], sum);
        }
    }
}
