// Two features in a word.
const WORDS: u32 = PAD / 2u;

fn word(d: u32) -> u32 {
    return pack2x16float(vec2<f32>(out[2u * d], out[2u * d + 1u]));
}
