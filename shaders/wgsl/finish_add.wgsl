// x += y + bias
fn finish(at: u32, b: f32) {
    x[at] += y[at] + b;
}
