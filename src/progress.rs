//! A bar for long work: on standard error, and only where a person watches.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts bytes. Draws nothing when standard error is not a terminal.
#[derive(Debug)]
pub(crate) struct ByteBar(ProgressBar);

impl ByteBar {
    /// A bar that waits for its length, showing `what` is going on.
    pub(crate) fn new(what: &str) -> Self {
        let bar = ProgressBar::no_length();
        bar.set_style(style("{msg} {spinner}"));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        ByteBar(bar)
    }

    /// So many bytes of so many are done.
    #[cfg(feature = "gpu")]
    pub(crate) fn set(&self, done: usize, total: usize) {
        if self.0.length() != Some(total as u64) {
            convert::Progress::begin(self, total as u64);
        }
        self.0.set_position(done as u64);
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for ByteBar {
    fn drop(&mut self) {
        self.clear();
    }
}

impl convert::Progress for ByteBar {
    fn begin(&self, total: u64) {
        self.0.set_length(total);
        self.0.reset_eta();
        self.0.set_style(style(
            "{msg} {bar:24} {percent:>3}%  {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        ));
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

/// A bar that counts what has been scored, with the result so far and the time left.
#[derive(Debug)]
pub(crate) struct ScoreBar(ProgressBar);

impl ScoreBar {
    /// A bar up to `n` `units`, for what is called `name`.
    pub(crate) fn new(name: &str, n: usize, units: &str) -> Self {
        let bar = ProgressBar::new(n as u64);
        bar.set_style(style(&format!(
            "{{prefix}} {{bar:24}} {{pos}} of {{len}} {units}, {{eta}} left  {{msg}}"
        )));
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(250));
        ScoreBar(bar)
    }

    /// So many are done, with this result.
    pub(crate) fn at(&self, done: usize, result: &str) {
        self.0.set_position(done as u64);
        self.0.set_message(result.to_owned());
    }
}

impl Drop for ScoreBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a mistake in one shows a plain bar, no more.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
}
