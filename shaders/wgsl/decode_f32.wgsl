// f32: four weights in a piece.
const PIECE: u32 = 4u;

fn four(piece: vec4<u32>, j: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(piece);
}

fn scale_of(piece: u32) -> f32 {
    return 1.0;
}
