// One workgroup a row. `residual` and `store` are the two halves of the work, either of which may
// be nothing.

// 1 / √(mean of squares + ε)
fn reciprocal(squares: f32, i: u32) -> f32 {
    return inverseSqrt(total(squares, i) / f32(p.cols) + p.eps);
}

fn run(workgroup: u32, i: u32) {
    residual(workgroup * p.stride, i);
    store(workgroup * p.stride, i);
}
