// What was found before.
fn load(at: u32) -> vec2<u32> {
    return x[at];
}
