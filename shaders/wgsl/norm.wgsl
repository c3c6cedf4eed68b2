// One workgroup a row. `residual` and `store` are the two halves of the work, either of which may
// be nothing.

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

// 1 / √(mean of squares + ε)
fn reciprocal(squares: f32, i: u32) -> f32 {
    return inverseSqrt(total(squares, i) / f32(p.cols) + p.eps);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    residual(workgroup.x * p.stride, i);
    store(workgroup.x * p.stride, i);
}
