// GELU(y + bias)
fn finish(at: u32, b: f32) {
    y[at] = gelu(y[at] + b);
}
