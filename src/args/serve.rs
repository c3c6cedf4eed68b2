//! `lapidary serve` as it is typed.

use std::path::PathBuf;

use clap::Args;

use super::{EngineArgs, EyeArgs, SamplingArgs, at_least_one};

/// Serve a model to programs, over HTTP with OpenAI's interface
///
/// Chat completions and completions, streamed or whole, several at a time, with pictures where the model
/// sees. Only programs on this machine can ask, unless --host says otherwise. Requests may set what the
/// sampling options below set for those that don't.
#[derive(Debug, Args)]
#[command(
    mut_arg("ctx", |arg| arg.help("Positions of a prompt and its answer [default: the model's own, up to 8192]")),
    mut_arg("seed", |arg| arg.help("The seed of requests that name none [default: a new one each time]")),
    after_help = "Examples:
  lapidary serve model.gguf
  lapidary serve model.gguf --port 9000 --parallel 8 --ctx 4096
  curl http://127.0.0.1:8080/v1/models

Programs made for OpenAI's interface take http://127.0.0.1:8080/v1 as its
address, and any key. Where the server listens is written to standard output,
all else to standard error. Ctrl-C ends it; that, and being told to end, is no
failure here: the exit code is 0."
)]
pub(crate) struct ServeArgs {
    /// The model, a .gguf file
    pub(crate) model: PathBuf,
    /// The address to listen at; 0.0.0.0 lets other machines ask
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// The port to listen at; 0 for any that is free
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub(crate) port: u16,
    /// Answers that are written at the same time; others wait
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = parallel)]
    pub(crate) parallel: usize,
    /// Requests must come with this key, as a bearer token [default: LAPIDARY_API_KEY, if it is set]
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub(crate) api_key: Option<String>,
    /// Web pages from there may ask as well, as those of this machine may, and it may be called by that name
    /// (for a proxy); * for all
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) allow_origin: Vec<String>,
    /// What the model is called in answers [default: the file's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) eyes: EyeArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// What can stand in a header, and is something: an empty one would open the server.
pub(crate) fn key(s: &str) -> Result<String, String> {
    match s.trim() {
        "" => Err("it is empty".into()),
        key if key.bytes().all(|b| b.is_ascii_graphic()) => Ok(key.into()),
        _ => Err("only letters, digits and signs of ASCII can be sent".into()),
    }
}

/// Each has a part of the cache.
fn parallel(s: &str) -> Result<usize, String> {
    match at_least_one(s)? {
        n @ ..=256 => Ok(n),
        _ => Err("256 are the most".into()),
    }
}
