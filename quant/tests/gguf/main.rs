//! The GGUF container: what is written comes back, every kind of damage is refused by its own
//! error, and no damage makes the reader panic or allocate much more than the file is long.

mod alloc;
mod bytes;
mod errors;
mod hostile;
mod round_trip;
