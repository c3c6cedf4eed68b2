// RMSNorm per head: weights of queries, then of keys. Sums of squares become factors.
fn reciprocals(squares: vec2<f32>) -> vec2<f32> {
    return inverseSqrt(squares / f32(HEAD) + r.eps);
}

fn weight(d: u32) -> f32 {
    return weights[d];
}
