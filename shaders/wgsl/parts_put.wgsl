// Group c of four features of a part of the positions.
fn put_part(to: u32, c: u32, v: vec4<f32>) {
    for (var d = 0u; d < 4u; d++) {
        if 4u * c + d < HEAD { parts[to + 4u * c + d] = v[d]; }
    }
}

// The total and the maximum of a part.
fn put_ends(to: u32, total: f32, top: f32) {
    parts[to + HEAD] = total;
    parts[to + HEAD + 1u] = top;
}
