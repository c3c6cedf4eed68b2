// Block `block` of 32 values, in fours, as bytes: the largest becomes ±127.
fn store_int8(block: u32, four: array<vec4<f32>, 8>) {
    var most = vec4<f32>();
    for (var j = 0u; j < 8u; j++) { most = max(most, abs(four[j])); }
    let scale = max(max(most.x, most.y), max(most.z, most.w)) / 127.0;
    // A block of zeros, or of what is nothing beside anything.
    let inverse = select(0.0, 1.0 / scale, scale > 1e-30);
    var words: array<u32, 8>;
    var sum = 0;
    for (var j = 0u; j < 8u; j++) {
        let q = vec4<i32>(round(four[j] * inverse));
        sum += q.x + q.y + q.z + q.w;
        words[j] = pack4xI8(q);
    }
    values[2u * block] = vec4<u32>(words[0], words[1], words[2], words[3]);
    values[2u * block + 1u] = vec4<u32>(words[4], words[5], words[6], words[7]);
    scales[block] = vec2<f32>(scale, f32(sum));
}
