//! `lapidary completions`.

use std::io::Write;

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};

pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    // Into memory first: it panics where it can't write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lapidary", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(())
}
