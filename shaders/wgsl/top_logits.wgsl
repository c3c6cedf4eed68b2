// Logits, by their bits: unsigned keys in the order of the floats, NaN (which must be noticed) the
// largest of all. Comparing bits, no compiler can assume that there is none.
fn load(at: u32) -> vec2<u32> {
    let bits = x[at];
    if (bits & 0x7fffffffu) > 0x7f800000u { return vec2<u32>(0xffffffffu, at); }
    return vec2<u32>(select(bits | 0x80000000u, ~bits, bits >= 0x80000000u), at);
}
