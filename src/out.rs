//! What goes to standard output and standard error. `println!` panics where nobody reads any more (`| head`);
//! these give the error to `main`, to which that is no failure. What can't be said on standard error is not
//! said: nobody could be told.

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

/// Writes a line to standard error, in place of the standard library's, which panics where it can't.
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

/// Writes to standard error, in place of the standard library's, which panics where it can't.
macro_rules! eprint {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr(), $($text)*);
    }};
}
