//! The `lapidary` command line.
//!
//! `args` is what was typed, `commands` has one file a verb. Exit codes: 0 done, 1 failed, 2 used
//! wrongly, 130 stopped by Ctrl-C or told to end (`SIGTERM`, `SIGHUP`).

#[macro_use]
mod out;

mod args;
mod commands;
mod eyes;
mod figures;
mod format;
mod interrupt;
mod npy;
mod progress;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Convert(args) => commands::convert::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Serve(args) => commands::serve::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Tokenize(args) => commands::tokenize::run(&args),
        Command::Logits(args) => commands::logits::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Compare(args) => commands::compare::run(&args),
        Command::Demo(args) => commands::demo::run(&args),
        Command::Devices(_) => commands::devices::run(),
        Command::Completions(args) => commands::completions::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lapidary: {}", format::error(&e));
            if interrupt::stopped() { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}

/// Whoever reads our output has had enough (`| head`): nothing went wrong.
fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        // Windows may also say that no process is on the other end.
        .any(|e| {
            e.kind() == std::io::ErrorKind::BrokenPipe
                || cfg!(windows) && e.raw_os_error() == Some(233)
        })
}
