// h = RMSNorm(x) · weight, then its blocks of 32 as bytes, once the workgroup has written all of h.
fn store(row: u32, i: u32) {
    var squares = 0.0;
    for (var c = i; c < p.stride; c += 256u) { squares += dot(x[row + c], x[row + c]); }
    let r = reciprocal(squares, i);
    for (var c = i; c < p.stride; c += 256u) { h[row + c] = x[row + c] * r * weight[c]; }
    storageBarrier();
    for (var block = row / 8u + i; block < (row + p.stride) / 8u; block += 256u) {
        var four: array<vec4<f32>, 8>;
        for (var j = 0u; j < 8u; j++) { four[j] = h[8u * block + j]; }
        store_int8(block, four);
    }
}
