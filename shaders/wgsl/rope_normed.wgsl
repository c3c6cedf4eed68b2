// RMSNorm per head: weights of queries, then of keys.
var<workgroup> squares: array<f32, 64>;

fn reciprocal(start: u32, i: u32) -> f32 {
    var sum = 0.0;
    for (var d = i; d < HEAD; d += 64u) { sum += qkv[start + d] * qkv[start + d]; }
    squares[i] = sum;
    workgroupBarrier();
    @halving 64 if i < {step}u { squares[i] += squares[i + {step}u]; } workgroupBarrier();
    return inverseSqrt(squares[0] / f32(HEAD) + p.eps);
}

fn weight(d: u32) -> f32 {
    return weights[d];
}
