// What piece `at` of a row gives that was multiplied by bytes, whose scale and sum are `xs`. What is added to
// weights is the same in all 32 of a block, and multiplied by the whole block's sum once.
fn product(s: Scale, xs: vec2<f32>, found: f32, at: u32) -> f32 {
    return xs.x * (s.x * found + select(0.0, s.y * xs.y, PIECE == 32u || (at & 1u) == 0u));
}
