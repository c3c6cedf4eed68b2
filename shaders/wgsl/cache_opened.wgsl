
// Eight features as they are asked for.
alias Unit = Eight;

fn opened(unit: Unit) -> Eight {
    return unit;
}

fn key_unit(row: u32, c: u32) -> Unit {
    return key(row, c);
}

fn value_unit(row: u32, c: u32) -> Unit {
    return value(row, c);
}
