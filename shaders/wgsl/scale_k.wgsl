// A piece's scale and what is added to its weights: for 256 weights a word with an f16 factor of each, then
// the signed bytes that these are multiplied by, two a piece.
alias Scale = vec2<f32>;

const K_WORDS: u32 = 1u + 128u / PIECE;

fn scale_of(piece: u32) -> Scale {
    let block = piece / (256u / PIECE) * K_WORDS;
    let two = scales[block + 1u + piece % (256u / PIECE) / 2u] >> (16u * (piece & 1u));
    return unpack2x16float(scales[block]) * vec2<f32>(unpack4xI8(two).xy);
}

// Weights.
fn weigh(q: vec4<f32>, s: Scale) -> vec4<f32> {
    return s.x * q + s.y;
}

// The same in two steps: before products are added up, and after.
fn before(q: vec4<f32>, s: Scale) -> vec4<f32> {
    return weigh(q, s);
}

fn after(s: Scale) -> f32 {
    return 1.0;
}
