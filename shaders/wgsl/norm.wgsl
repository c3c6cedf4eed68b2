// One workgroup a row, PER groups of four features an invocation, which stay in its registers. All
// that is read is asked for at once: weights come from far away each time. `residual` and `store`
// are the two halves of the work, either of which may be nothing.

// 1 / √(mean of squares + ε)
fn reciprocal(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(p.cols) + p.eps);
}

fn run(workgroup: u32, i: u32) {
    let row = workgroup * p.stride;
    var v: array<vec4<f32>, PER>;
    for (var k = 0u; k < PER; k++) {
        let c = k * 256u + i;
        if c < p.stride {
            v[k] = x[row + c];
            ask_residual(row, c, k);
            ask_store(c, k);
        }
    }
    residual(&v, row, i);
    store(&v, row, i);
}
