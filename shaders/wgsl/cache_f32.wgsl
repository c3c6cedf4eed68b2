struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// Unit c, eight features, of the key or the value in a row.
fn key(row: u32, c: u32) -> Eight {
    let at = 2u * (row * UNITS + c);
    return Eight(bitcast<vec4<f32>>(k[at]), bitcast<vec4<f32>>(k[at + 1u]));
}

fn value(row: u32, c: u32) -> Eight {
    let at = 2u * (row * UNITS + c);
    return Eight(bitcast<vec4<f32>>(v[at]), bitcast<vec4<f32>>(v[at + 1u]));
}
