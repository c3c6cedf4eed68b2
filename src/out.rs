//! What goes to standard output. `println!` panics where nobody reads any more (`| head`); these give the
//! error to `main`, to which that is no failure.

/// Writes to standard output, as `print!` does.
macro_rules! out {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        write!(std::io::stdout(), $($text)*)
    }};
}

/// Writes a line to standard output, as `println!` does.
macro_rules! outln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stdout(), $($text)*)
    }};
}
