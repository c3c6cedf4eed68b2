// Group c of four features of a head's result, which begins at feature `at` of a.
fn put_quad(at: u32, c: u32, v: vec4<f32>) {
    for (var d = 0u; d < 4u; d++) {
        if 4u * c + d < HEAD { a[at + 4u * c + d] = v[d]; }
    }
}
