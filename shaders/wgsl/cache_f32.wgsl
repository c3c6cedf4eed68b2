struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// Eight features of a key, eight of a value.
fn key(at: u32) -> Eight {
    return Eight(bitcast<vec4<f32>>(k[2u * at]), bitcast<vec4<f32>>(k[2u * at + 1u]));
}

fn value(at: u32) -> Eight {
    return Eight(bitcast<vec4<f32>>(v[2u * at]), bitcast<vec4<f32>>(v[2u * at + 1u]));
}
