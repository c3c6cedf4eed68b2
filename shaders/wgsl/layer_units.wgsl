
// The unit of an invocation in its subgroup's turn, several of them side by side, and does the subgroup have any in it?
fn {m}_unit(me: Me, turn: u32) -> u32 {
    return (me.number + turn * me.all) * (me.size / {M}_LANES) + me.place / {M}_LANES;
}

fn {m}_any(me: Me, turn: u32) -> bool {
    return (me.number + turn * me.all) * (me.size / {M}_LANES) < {M}_UNITS;
}
