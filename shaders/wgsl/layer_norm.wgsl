// h = (x - mean) / √(variance + ε) · weight + bias. One workgroup a row.

fn run(workgroup: u32, i: u32) {
    let row = workgroup * p.stride;
    var sum = 0.0;
    for (var c = i; c < p.cols; c += 256u) { sum += x[row + c]; }
    let mean = total(sum, i, 0u) / f32(p.cols);
    var squares = 0.0;
    for (var c = i; c < p.cols; c += 256u) {
        let d = x[row + c] - mean;
        squares += d * d;
    }
    let r = inverseSqrt(total(squares, i, 1u) / f32(p.cols) + p.eps);
    for (var c = i; c < p.cols; c += 256u) {
        h[row + c] = (x[row + c] - mean) * r * weight[c] + bias[c];
    }
}
