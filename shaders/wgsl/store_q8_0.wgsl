// Blocks of 32 features as the CPU encodes them: words of four int8, then words of two f16 scales.
const BLOCKS: u32 = PAD / 32u;
const WORDS: u32 = PAD / 4u + (BLOCKS + 3u) / 4u * 2u;

fn scale(block: u32) -> f32 {
    if block >= BLOCKS { return 0.0; }
    var top = 0.0;
    for (var j = 0u; j < 32u; j++) { top = max(top, abs(out[32u * block + j])); }
    return top / 127.0;
}

// To the nearest, halves away from zero.
fn rounded(x: vec4<f32>) -> vec4<i32> {
    let whole = trunc(x);
    return vec4<i32>(clamp(whole + select(vec4<f32>(), sign(x), abs(x - whole) >= vec4<f32>(0.5)),
        vec4<f32>(-127.0), vec4<f32>(127.0)));
}

fn word(d: u32) -> u32 {
    if d >= PAD / 4u {
        let block = 2u * (d - PAD / 4u);
        return pack2x16float(vec2<f32>(scale(block), scale(block + 1u)));
    }
    let s = scale(d / 8u);
    var inverse = 0.0;
    if s > 0.0 { inverse = 1.0 / s; }
    let x = vec4<f32>(out[4u * d], out[4u * d + 1u], out[4u * d + 2u], out[4u * d + 3u]);
    return pack4xI8(rounded(x * inverse));
}
