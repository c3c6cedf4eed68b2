//! Ctrl-C: a flag that long work looks at, so that it can end properly.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on, Ctrl-C sets the flag instead of ending the program.
///
/// # Errors
/// When the system does not let a handler be installed.
pub(crate) fn install() -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed))?)
}

/// The same for what tells a program to end (`kill`, a terminal that is closed), for work that leaves
/// nothing half-written behind. Not for the chat, which goes on after a stopped answer.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_for_work() -> anyhow::Result<()> {
    install()?;
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGTERM};
        signal_hook::flag::register(SIGTERM, STOP.clone())?;
        if !is_ignored(SIGHUP) {
            signal_hook::flag::register(SIGHUP, STOP.clone())?;
        }
    }
    Ok(())
}

/// Was the program started so that it ignores a signal, as by `nohup`? Linux tells; elsewhere it may be.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
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
