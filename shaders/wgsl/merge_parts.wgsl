// Puts the parts of attention of a row and head together: SHARE invocations for each group of four
// features, which share out the parts. `kept` and `sizes` are for `keep`.

const HEAD_QUADS: u32 = (HEAD + 3u) / 4u;
const SHARE: u32 = WORKGROUP / HEAD_QUADS;

var<workgroup> part_tops: array<f32, MOST>;
var<workgroup> part_totals: array<f32, MOST>;
var<workgroup> shares: array<vec4<f32>, SHARE * HEAD_QUADS>;

// Features past the last are the last one again, and not kept. Each by its name: FXC, which compiles for
// DirectX 12 where there is no other, can't have a loop write to a vector's element by its number.
fn four_features(part: u32, c: u32) -> vec4<f32> {
    let d = part + min(4u * c + vec4(0u, 1u, 2u, 3u), vec4(HEAD - 1u));
    return vec4(parts[d.x], parts[d.y], parts[d.z], parts[d.w]);
}

fn merge_parts(row: u32, head: u32, i: u32) {
    let start = (row * p.heads + head) * batch.splits * (HEAD + 2u);
    if i < batch.splits {
        part_totals[i] = parts[start + i * (HEAD + 2u) + HEAD];
        part_tops[i] = parts[start + i * (HEAD + 2u) + HEAD + 1u];
    }
    workgroupBarrier();
    var most = part_tops[0];
    for (var s = 1u; s < batch.splits; s++) { most = max(most, part_tops[s]); }
    let c = i % HEAD_QUADS;
    let share = i / HEAD_QUADS;
    if share < SHARE {
        var v: vec4<f32>;
        for (var s = share; s < batch.splits; s += SHARE) {
            let part = start + s * (HEAD + 2u);
            let factor = exp(part_tops[s] - most);
            v += factor * four_features(part, c);
        }
        shares[i] = v;
    }
    workgroupBarrier();
    let at = row * p.stride + head * HEAD;
    if i < HEAD_QUADS {
        var total = 0.0;
        for (var s = 0u; s < batch.splits; s++) { total += part_totals[s] * exp(part_tops[s] - most); }
        var v: vec4<f32>;
        for (var s = 0u; s < SHARE; s++) { v += shares[s * HEAD_QUADS + i]; }
        v /= total;
        kept[i] = v;
        for (var d = 0u; d < 4u; d++) {
            if 4u * i + d < HEAD { a[at + 4u * i + d] = v[d]; }
        }
    }
    keep(at, i);
}
