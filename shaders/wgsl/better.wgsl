// The larger of two (value, index) pairs; of equals the one that comes first.
fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let x = bitcast<f32>(a.x);
    let y = bitcast<f32>(b.x);
    if y > x || (y == x && b.y < a.y) { return b; }
    return a;
}

// The bits of -3.4e38: a value that any other is better than.
const LEAST: u32 = 0xff7fc99eu;
