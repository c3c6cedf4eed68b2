// Blocks of 32 of x to bytes: an invocation a block, rows along y.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let blocks = p.x_stride / 8u;
    if id.x >= blocks { return; }
    let block = (batch.first + id.y) * blocks + id.x;
    var four: array<vec4<f32>, 8>;
    for (var j = 0u; j < 8u; j++) { four[j] = x[block * 8u + j]; }
    store_int8(block, four);
}
