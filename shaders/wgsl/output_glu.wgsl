// Even rows are the gate's, odd rows the up projection's: one feature of the output from both.
fn output(t: u32, row: u32, even: f32, odd: f32) {
    if row < p.rows { y[t * p.y_stride + p.y_offset + row / 2u] = gelu(even) * odd; }
}
