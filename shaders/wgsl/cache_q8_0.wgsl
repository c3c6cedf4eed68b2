// q8_0: a row is its int8 features, a unit of eight in two words, then the f16 scales of its blocks
// of 32, four of them in two words.
const ROW: u32 = UNITS + (PAD / 32u + 3u) / 4u;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

fn scaled(unit: vec2<u32>, scales: vec2<u32>, c: u32) -> Eight {
    let s = unpack2x16float(scales[(c >> 3u) & 1u])[(c >> 2u) & 1u];
    return Eight(vec4<f32>(unpack4xI8(unit.x)) * s, vec4<f32>(unpack4xI8(unit.y)) * s);
}

// Unit c, eight features, of the key or the value in a row.
fn key(row: u32, c: u32) -> Eight {
    return scaled(k[row * ROW + c], k[row * ROW + UNITS + c / 16u], c);
}

fn value(row: u32, c: u32) -> Eight {
    return scaled(v[row * ROW + c], v[row * ROW + UNITS + c / 16u], c);
}
