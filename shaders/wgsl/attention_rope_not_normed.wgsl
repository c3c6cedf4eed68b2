fn reciprocals(squares: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(1.0);
}

fn weight(d: u32) -> f32 {
    return 1.0;
}
