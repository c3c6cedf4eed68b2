// h = RMSNorm(x) · weight. Each invocation reads what it wrote itself.
fn store(row: u32, i: u32) {
    var squares = 0.0;
    for (var c = i; c < p.stride; c += 256u) { squares += dot(x[row + c], x[row + c]); }
    let r = reciprocal(squares, i);
    for (var c = i; c < p.stride; c += 256u) { h[row + c] = x[row + c] * r * weight[c]; }
}
