// What a piece gives that was multiplied by bytes, whose scale and sum are `xs`.
fn product(s: Scale, xs: vec2<f32>, found: f32, at: u32) -> f32 {
    return s * xs.x * found;
}
