// x += RMSNorm(o) · post
fn residual(row: u32, i: u32) {
    var squares = 0.0;
    for (var c = i; c < p.stride; c += 256u) { squares += dot(o[row + c], o[row + c]); }
    let r = reciprocal(squares, i);
    for (var c = i; c < p.stride; c += 256u) { x[row + c] += o[row + c] * r * post[c]; }
}
