// The HEAD values of `outs`, from feature `at` of a on, as blocks of bytes (prepare_int8.wgsl), four
// values an invocation.
fn keep(at: u32, i: u32) {
    for (var c = i; c < HEAD / 4u; c += WORKGROUP) {
        let block = 32u * (c / 8u);
        var scale = 0.0;
        for (var j = 0u; j < 32u; j++) { scale = max(scale, abs(outs[block + j])); }
        scale /= 127.0;
        let inverse = select(0.0, 1.0 / scale, scale > 1e-30);
        let four = vec4<f32>(outs[4u * c], outs[4u * c + 1u], outs[4u * c + 2u], outs[4u * c + 3u]);
        a_values[at / 4u + c] = pack4xI8(vec4<i32>(round(four * inverse)));
        if c % 8u == 0u {
            var sum = 0.0;
            for (var j = 0u; j < 32u; j++) { sum += round(outs[block + j] * inverse); }
            a_scales[at / 32u + c / 8u] = vec2<f32>(scale, sum);
        }
    }
}
