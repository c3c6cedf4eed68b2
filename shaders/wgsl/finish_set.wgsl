// y + bias
fn finish(at: u32, b: f32) {
    y[at] += b;
}
