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

// Eight features as they are kept.
alias Unit = vec4<u32>;

fn opened(unit: Unit) -> Eight {
    return widen(unit);
}

fn key_unit(row: u32, c: u32) -> Unit {
    return k[row * UNITS + c];
}

fn value_unit(row: u32, c: u32) -> Unit {
    return v[row * UNITS + c];
}

// Unit c, eight features, of the key or the value in a row.
fn key(row: u32, c: u32) -> Eight {
    return widen(key_unit(row, c));
}

fn value(row: u32, c: u32) -> Eight {
    return widen(value_unit(row, c));
}
