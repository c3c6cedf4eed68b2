//! Ctrl-C: a flag that long work looks at, so that it can end properly.

use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

/// From now on, Ctrl-C sets the flag instead of ending the program.
///
/// # Errors
/// When the system does not let a handler be installed.
pub(crate) fn install() -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed))?)
}

/// The flag.
pub(crate) fn flag() -> &'static AtomicBool {
    &STOP
}

/// Was Ctrl-C pressed?
pub(crate) fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Forgets an earlier Ctrl-C: the chat goes on after a stopped answer.
pub(crate) fn reset() {
    STOP.store(false, Ordering::Relaxed);
}
