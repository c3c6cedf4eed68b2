// As output_glu.wgsl, for one row of x: a workgroup has 64 rows of weights, 32 features of the output,
// and leaves them as a block of bytes (prepare_int8.wgsl).
var<workgroup> outs: array<f32, 32>;
var<workgroup> tops: array<f32, 8>;
var<workgroup> totals: array<i32, 8>;

fn output(t: u32, row: u32, even: f32, odd: f32) {
    outs[row / 2u % 32u] = select(0.0, gelu(even) * odd, row < p.rows);
}

// Eight invocations, four values each.
fn conclude(workgroup: u32, i: u32) {
    workgroupBarrier();
    let at = 4u * (i % 8u);
    let four = vec4<f32>(outs[at], outs[at + 1u], outs[at + 2u], outs[at + 3u]);
    if i < 8u {
        let size = abs(four);
        tops[i] = max(max(size.x, size.y), max(size.z, size.w));
    }
    workgroupBarrier();
    var scale = 0.0;
    for (var j = 0u; j < 8u; j++) { scale = max(scale, tops[j]); }
    scale /= 127.0;
    let inverse = select(0.0, 1.0 / scale, scale > 1e-30);
    let q = vec4<i32>(round(four * inverse));
    let block = p.y_offset / 32u + workgroup;
    if i < 8u {
        totals[i] = q.x + q.y + q.z + q.w;
        y_values[8u * block + i] = pack4xI8(q);
    }
    workgroupBarrier();
    if i == 0u {
        var total = 0;
        for (var j = 0u; j < 8u; j++) { total += totals[j]; }
        y_scales[block] = vec2<f32>(scale, f32(total));
    }
}
