// 0x6400 with a byte in its last bits is 1024 and the byte, in half precision; bytes count from -128.
fn four_half(piece: vec4<u32>, j: u32, s: Scale) -> vec4<f16> {
    let w = piece[j] ^ 0x80808080u;
    let even = unpack2x16float((w & 0x00ff00ffu) | 0x64006400u);
    let odd = unpack2x16float(((w >> 8u) & 0x00ff00ffu) | 0x64006400u);
    return vec4<f16>(vec4<f32>(even.x, odd.x, even.y, odd.y) * s.x + (s.y - 1152.0 * s.x));
}
