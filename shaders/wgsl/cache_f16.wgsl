struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

fn widen(w: vec4<u32>) -> Eight {
    return Eight(
        vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
}

// Eight features of a key, eight of a value.
fn key(at: u32) -> Eight {
    return widen(k[at]);
}

fn value(at: u32) -> Eight {
    return widen(v[at]);
}
