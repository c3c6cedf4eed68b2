// 0x6400 with a nibble in its last bits is 1024 and the nibble, in half precision.
fn four_half(piece: vec4<u32>, j: u32, s: Scale) -> vec4<f16> {
    let w = piece[j & 3u] >> (j & 4u);
    let even = unpack2x16float((w & 0x000f000fu) | 0x64006400u);
    let odd = unpack2x16float(((w >> 8u) & 0x000f000fu) | 0x64006400u);
    return vec4<f16>(vec4<f32>(even.x, odd.x, even.y, odd.y) * s.x + (s.y - 1024.0 * s.x));
}
