alias Scale = f32;

// Weights.
fn weigh(q: vec4<f32>, s: Scale) -> vec4<f32> {
    return s * q;
}

// The same in two steps: before products are added up, and after.
fn before(q: vec4<f32>, s: Scale) -> vec4<f32> {
    return q;
}

fn after(s: Scale) -> f32 {
    return s;
}
