// h = (x - mean) / √(variance + ε) · weight + bias. One workgroup a row.

var<workgroup> sums: array<f32, 256>;

// The sum over the workgroup.
fn total(v: f32, i: u32) -> f32 {
    sums[i] = v;
    workgroupBarrier();
    for (var step = 128u; step > 0u; step /= 2u) {
        if i < step { sums[i] += sums[i + step]; }
        workgroupBarrier();
    }
    let sum = sums[0];
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let row = workgroup.x * p.stride;
    var sum = 0.0;
    for (var c = i; c < p.cols; c += 256u) { sum += x[row + c]; }
    let mean = total(sum, i) / f32(p.cols);
    var squares = 0.0;
    for (var c = i; c < p.cols; c += 256u) {
        let d = x[row + c] - mean;
        squares += d * d;
    }
    let r = inverseSqrt(total(squares, i) / f32(p.cols) + p.eps);
    for (var c = i; c < p.cols; c += 256u) {
        h[row + c] = (x[row + c] - mean) * r * weight[c] + bias[c];
    }
}
