// The same of a part, of what was put there.
fn part_quad(start: u32, c: u32) -> vec4<f32> {
    var v: vec4<f32>;
    // Features past the last are read from what follows, and not kept.
    for (var d = 0u; d < 4u; d++) { v[d] = parts[start + min(4u * c + d, HEAD - 1u)]; }
    return v;
}

fn part_ends(start: u32) -> vec2<f32> {
    return vec2<f32>(parts[start + HEAD], parts[start + HEAD + 1u]);
}
