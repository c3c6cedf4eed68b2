// A feature in a word.
const WORDS: u32 = PAD;

fn word(d: u32) -> u32 {
    return bitcast<u32>(out[d]);
}
