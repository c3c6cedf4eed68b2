//! The `lapidary` command line.
fn main() {}
