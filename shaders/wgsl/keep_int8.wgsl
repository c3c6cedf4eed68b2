// The HEAD values of `kept`, from feature `at` of a on, as blocks of bytes (prepare_int8.wgsl), a
// group of four an invocation, which is the one that wrote it. `sizes` takes what is exchanged.
fn keep(at: u32, i: u32) {
    for (var c = i; c < HEAD / 4u; c += WORKGROUP) {
        let size = abs(kept[c]);
        sizes[c] = max(max(size.x, size.y), max(size.z, size.w));
    }
    workgroupBarrier();
    for (var c = i; c < HEAD / 4u; c += WORKGROUP) {
        var scale = 0.0;
        for (var j = 0u; j < 8u; j++) { scale = max(scale, sizes[c / 8u * 8u + j]); }
        scale /= 127.0;
        let inverse = select(0.0, 1.0 / scale, scale > 1e-30);
        let q = vec4<i32>(round(kept[c] * inverse));
        a_values[at / 4u + c] = pack4xI8(q);
        kept[c].x = f32(q.x + q.y + q.z + q.w);
        kept[c].y = scale;
    }
    workgroupBarrier();
    for (var c = 8u * i; c < HEAD / 4u; c += 8u * WORKGROUP) {
        var sum = 0.0;
        for (var j = 0u; j < 8u; j++) { sum += kept[c + j].x; }
        a_scales[(at + 4u * c) / 32u] = vec2<f32>(kept[c].y, sum);
    }
}
