// x = the embedding of each row's token · √hidden, where this shard holds it. One workgroup a row.

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    embed_row(tokens[workgroup.x], workgroup.x, i);
}
