//! The command line as it is typed. What it resolves to is decided where it is used.

mod eval;
mod pictures;
pub(crate) mod serve;

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use quant::DType;
use runtime::KvType;
use runtime::grammar::Form;
use runtime::sampler::SamplingParams;

pub(crate) use self::eval::{ChoicesForm, CompareArgs, EvalArgs, EvalOutput};
pub(crate) use self::pictures::{EyeArgs, PictureArgs};
pub(crate) use self::serve::ServeArgs;
use crate::commands::convert::ConvertArgs;

/// Runs Gemma models, quantized, on the machine you own.
#[derive(Debug, Parser)]
#[command(
    name = "lapidary",
    version,
    about = "Runs Gemma models, quantized, on the machine you own: offline, in one binary.",
    after_help = "Examples:
  lapidary demo                                  try it on the small model that comes along
  lapidary convert gemma-3-1b-it                 a downloaded checkpoint becomes one .gguf file
  lapidary run gemma-3-1b-it-q4_0.gguf           chat with it
  lapidary run gemma-3-1b-it-q4_0.gguf -p \"Why is the sky blue?\"
  lapidary serve gemma-3-1b-it-q4_0.gguf         for programs, with OpenAI's interface

Exit codes: 0 done, 1 failed, 2 used wrongly, 130 stopped by Ctrl-C.
`lapidary help COMMAND` says more about each."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Convert(ConvertArgs),
    Run(RunArgs),
    Serve(ServeArgs),
    Inspect(InspectArgs),
    Tokenize(TokenizeArgs),
    Logits(LogitsArgs),
    Bench(BenchArgs),
    Eval(EvalArgs),
    Compare(CompareArgs),
    Demo(DemoArgs),
    Devices(DevicesArgs),
    Completions(CompletionsArgs),
}

/// Answer a prompt, or chat
///
/// With -p, or with a prompt piped in, the answer is written and that's it. Otherwise a chat opens
/// on the terminal. The answer alone goes to standard output; everything else to standard error.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lapidary run model.gguf                                   chat; /help lists the commands
  lapidary run model.gguf -p \"Three names for a cat?\"       one answer
  lapidary run model.gguf -p \"Tell a story\" --seed 7        the same story every time
  git diff | lapidary run model.gguf --system \"Summarise.\"  a prompt from a pipe
  lapidary run model.gguf --image cat.jpg -p \"What is it?\"  a question on a picture
  lapidary run model.gguf --raw -p \"Once upon a time\" -n 64 continue a text, no chat template
  lapidary run model.gguf --regex \"yes|no\" -p \"Is it?\"     nothing else as an answer")]
pub(crate) struct RunArgs {
    /// The model, a .gguf file
    pub(crate) model: PathBuf,
    /// Answer this and exit
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// Stop after this many tokens [default: when the model is done]
    #[arg(short = 'n', long = "tokens", value_name = "N", allow_negative_numbers = true)]
    pub(crate) limit: Option<usize>,
    /// Instructions for the whole conversation
    #[arg(long, value_name = "TEXT", conflicts_with = "raw", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    /// Continue the prompt as it is, without the chat template
    #[arg(long)]
    pub(crate) raw: bool,
    /// Draft tokens from what was said before: sooner for summaries and edits, the same text but where two
    /// tokens are about as likely
    #[arg(long)]
    pub(crate) lookup: bool,
    #[command(flatten)]
    pub(crate) form: FormArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) pictures: PictureArgs,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
}

/// What answers must be.
#[derive(Clone, Debug, Args)]
#[group(multiple = false)]
pub(crate) struct FormArgs {
    /// Answers are JSON objects. Say so in the prompt as well, and which
    #[arg(long)]
    json: bool,
    /// Answers are JSON that the schema in this file describes
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Answers are texts that this regular expression describes
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    regex: Option<String>,
}

impl FormArgs {
    /// The form, with what to call it.
    ///
    /// # Errors
    /// When the file can't be read, or is no JSON.
    pub(crate) fn form(&self) -> anyhow::Result<Option<(String, Form)>> {
        if let Some(path) = &self.json_schema {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
            let schema = serde_json::from_str(&text).with_context(|| name.clone())?;
            return Ok(Some((name, Form::Schema(schema))));
        }
        let regex = self.regex.clone().map(|regex| ("--regex".into(), Form::Regex(regex)));
        Ok(regex.or_else(|| self.json.then(|| ("--json".into(), Form::JsonObject))))
    }
}

/// How the model is run.
#[derive(Clone, Debug, Args)]
pub(crate) struct EngineArgs {
    /// Positions the conversation can have [default: the model's own, up to 32768]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) ctx: Option<usize>,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    pub(crate) kv: Kv,
    /// Threads [default: the large physical cores this process may use]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Where the model is run.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeviceArgs {
    /// auto (a real GPU, where there is one and the model fits), cpu, gpu, or a GPU by its number or
    /// a part of its name in `lapidary devices`
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: String,
    /// Only the first N layers on the GPU, the others on the CPU [default: as many as fit]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) gpu_layers: Option<usize>,
}

/// Threads that wait for each other many times a token get nowhere where each has to be let run first.
fn threads(s: &str) -> Result<usize, String> {
    let n = at_least_one(s)?;
    let here = std::thread::available_parallelism().map_or(1, usize::from);
    match n <= 4 * here {
        true => Ok(n),
        false => {
            Err(format!("this machine runs {here} at the same time; {} are the most", 4 * here))
        }
    }
}

fn at_least_one(s: &str) -> Result<usize, String> {
    match s.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(n) => Ok(n),
        Err(e) => Err(format!("{e}")),
    }
}

/// Storage of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kv {
    /// Half precision
    F16,
    /// Single precision, for comparing with a reference
    F32,
    /// 8 bits: half the memory of f16
    #[value(name = "q8_0")]
    Q8_0,
}

impl Kv {
    /// As typed and shown.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kv::F16 => "f16",
            Kv::F32 => "f32",
            Kv::Q8_0 => "q8_0",
        }
    }
}

impl From<Kv> for KvType {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F16 => KvType::F16,
            Kv::F32 => KvType::F32,
            Kv::Q8_0 => KvType::Q8_0,
        }
    }
}

/// How the next token is chosen. What is not given comes from the file, else from Gemma's defaults.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Sampling (defaults from the file)")]
pub(crate) struct SamplingArgs {
    /// Temperature; 0 always takes the likeliest token
    #[arg(long, value_name = "T", allow_negative_numbers = true, value_parser = temperature)]
    pub(crate) temp: Option<f32>,
    /// Only the K likeliest tokens; 0 for all
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub(crate) top_k: Option<usize>,
    /// Only the likeliest tokens that make up this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = top_p)]
    pub(crate) top_p: Option<f32>,
    /// Only tokens at least this likely, relative to the likeliest
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = min_p)]
    pub(crate) min_p: Option<f32>,
    /// Make recent tokens less likely; 1 leaves them
    #[arg(long, value_name = "R", allow_negative_numbers = true, value_parser = repeat_penalty)]
    pub(crate) repeat_penalty: Option<f32>,
    /// The same seed gives the same text [default: a new one each time]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
}

/// A number that samplers take where `put` puts it.
fn sampled(s: &str, put: impl Fn(&mut SamplingParams, f32)) -> Result<f32, String> {
    let value = s.parse().map_err(|e| format!("{e}"))?;
    let mut params = SamplingParams::default();
    put(&mut params, value);
    params.check().map_err(|e| e.to_string())?;
    Ok(value)
}

fn temperature(s: &str) -> Result<f32, String> {
    sampled(s, |params, v| params.temperature = v)
}

fn top_p(s: &str) -> Result<f32, String> {
    sampled(s, |params, v| params.top_p = v)
}

fn min_p(s: &str) -> Result<f32, String> {
    sampled(s, |params, v| params.min_p = v)
}

fn repeat_penalty(s: &str) -> Result<f32, String> {
    sampled(s, |params, v| params.repeat_penalty = v)
}

/// Show what is in a model file
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lapidary inspect model.gguf              shapes, types, sizes, metadata
  lapidary inspect model.gguf --tensors    every tensor besides
  lapidary inspect model.gguf --json       the same for a program")]
pub(crate) struct InspectArgs {
    /// A .gguf file, of any architecture
    pub(crate) model: PathBuf,
    /// List every tensor
    #[arg(long)]
    pub(crate) tensors: bool,
    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Turn text to token ids
///
/// No BOS is added. Control tokens such as <end_of_turn> are text unless --special is given.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lapidary tokenize model.gguf \"Hello, world\"
  lapidary tokenize model.gguf --json - < text.txt")]
pub(crate) struct TokenizeArgs {
    /// The model, a .gguf file
    pub(crate) model: PathBuf,
    /// The text, or - to read it from standard input
    #[arg(allow_hyphen_values = true)]
    pub(crate) text: String,
    /// Write the ids as a JSON array, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Let control tokens in the text be control tokens
    #[arg(long)]
    pub(crate) special: bool,
}

/// Write the logits of every position to a NumPy file
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("input").required(true).args(["tokens", "prompt"])),
    after_help = "Examples:
  lapidary logits model.gguf --tokens 2,9259,1902 --kv f32 -o logits.npy
  lapidary logits model.gguf --prompt \"Hello\" -o logits.npy
  lapidary logits model.gguf --tokens 2,255999,262144,… --image cat.png -o logits.npy

The file is float32, [positions, vocabulary], C order. --prompt puts BOS in front where the model
wants it, and applies no chat template; pictures go in front of the text. In --tokens, each run of
<image_soft_token> takes the next picture, or the next part of one with --pan-and-scan."
)]
pub(crate) struct LogitsArgs {
    /// The model, a .gguf file
    pub(crate) model: PathBuf,
    /// Token ids
    #[arg(long, value_name = "ID,ID,…", value_delimiter = ',', value_parser = token)]
    pub(crate) tokens: Vec<u32>,
    /// A text to be tokenized
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// Where to write
    #[arg(short, long, value_name = "OUT.npy")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) pictures: PictureArgs,
}

/// Measure how fast a model runs here
///
/// Each figure stands beside what this machine can do at best, measured in the same run: decoding as
/// a share of the read bandwidth, reading a prompt as a share of the int8 peak.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("what").required(true).args(["model", "shape", "image"])),
    after_help = "Examples:
  lapidary bench model.gguf
  lapidary bench --shape gemma-3-4b              before downloading it: random weights
  lapidary bench model.gguf -p 512,8192 -n 128 -d 0,8192
  lapidary bench model.gguf --parallel 1,4,16    what `serve` can do for several at a time
  lapidary bench --image mmproj-model.gguf       how long a picture takes
  lapidary bench model.gguf --device gpu

On a GPU decoding is shown as a share of the bandwidth that copying reaches there.
Tests: pp512 reads a prompt of 512 tokens, tg128 generates 128 tokens one by one, tg128@d8192 does so
after 8192 tokens of context, tg128x4 generates 128 tokens of each of four answers."
)]
pub(crate) struct BenchArgs {
    /// The model, a .gguf file
    pub(crate) model: Option<PathBuf>,
    /// Random weights in the shape of a Gemma, such as gemma-3-1b
    #[arg(long, value_name = "NAME")]
    pub(crate) shape: Option<String>,
    /// A vision tower: how long one picture takes
    #[arg(long, value_name = "MMPROJ.gguf")]
    pub(crate) image: Option<PathBuf>,
    /// Type of the shape's matrices [default: q4_0]
    #[arg(long = "type", value_name = "TYPE", requires = "shape", value_parser = dtype)]
    pub(crate) dtype: Option<DType>,
    /// Type of the shape's embedding [default: q8_0 with q4_0, else the same]
    #[arg(long = "embed-type", value_name = "TYPE", requires = "shape", value_parser = dtype)]
    pub(crate) embed: Option<DType>,
    /// Prompt lengths
    #[arg(short, long, value_name = "N,…", value_delimiter = ',', default_value = "512")]
    pub(crate) prompt: Vec<usize>,
    /// Numbers of tokens to generate
    #[arg(short = 'n', long, value_name = "N,…", value_delimiter = ',', default_value = "128")]
    pub(crate) generate: Vec<usize>,
    /// Answers that are written at the same time, one reading of the weights for a token of each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1", value_parser = at_least_one)]
    pub(crate) parallel: Vec<usize>,
    /// Tokens in the context before the test
    #[arg(short, long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    pub(crate) depth: Vec<usize>,
    /// Repetitions of each test
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    pub(crate) repetitions: usize,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    pub(crate) kv: Kv,
    /// Threads [default: the large physical cores this process may use]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Where the time of a GPU goes: each kernel is timed on its own, which takes longer together
    #[arg(long)]
    pub(crate) profile: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = BenchOutput::Md)]
    pub(crate) output: BenchOutput,
}

/// An id, with or without spaces around it.
fn token(s: &str) -> Result<u32, String> {
    s.trim().parse().map_err(|e| format!("{e}"))
}

fn dtype(s: &str) -> Result<DType, String> {
    DType::from_name(s).ok_or_else(|| {
        let names: Vec<_> = DType::ALL.iter().map(|d| d.name()).collect();
        format!("one of {}", names.join(", "))
    })
}

/// What `bench` prints.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BenchOutput {
    /// A Markdown table
    Md,
    /// JSON
    Json,
    /// Comma-separated values
    Csv,
}

/// Convert the small model that comes along, and let it answer
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The folder that holds the demo checkpoint
    #[arg(long, value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,
    /// Threads [default: the large physical cores this process may use]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// List the GPUs of this machine, and what `--device auto` would take
#[derive(Debug, Args)]
pub(crate) struct DevicesArgs {}

/// Write completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:
  lapidary completions bash > ~/.local/share/bash-completion/completions/lapidary")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
