// Rows `row` and `row + 1` (even, odd) of the matrix for row `t` of x.
fn output(t: u32, row: u32, even: f32, odd: f32) {
    let at = t * p.y_stride + p.y_offset + row;
    if row < p.rows { y[at] = softcap(even, p.scale); }
    if row + 1u < p.rows { y[at + 1u] = softcap(odd, p.scale); }
}
