// c · tanh(x / c). Beyond ±15 tanh is ±1 in f32, and some drivers' overflow.
fn softcap(x: f32, c: f32) -> f32 {
    return c * tanh(clamp(x / c, -15.0, 15.0));
}

// GELU's tanh form (Hendrycks & Gimpel 2016): x/2 · (1 + tanh u) = x / (1 + e^(-2u)).
fn gelu(x: f32) -> f32 {
    let u = 0.7978845608 * (x + 0.044715 * x * x * x);
    return x / (1.0 + exp(min(-2.0 * u, 80.0)));
}
