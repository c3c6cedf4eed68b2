//! What `eval` and `compare` take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{DeviceArgs, Kv, at_least_one, threads};

/// Measure how good a model is, and what quantization cost it
///
/// Perplexity of a text with its standard error and bits per byte; against a reference, the
/// divergence of every token's distribution; accuracy on multiple-choice questions. Definitions are
/// llama-perplexity's, so figures can be laid beside published ones. Several models make one table.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("measure").required(true).multiple(true).args(["text", "choices"])),
    after_help = "Examples:
  lapidary eval model.gguf --text wiki.test.raw
  lapidary eval q8_0.gguf q4_0.gguf --text wiki.test.raw --reference gemma-3-1b-it --report eval.html
  lapidary eval bf16.gguf --text t.txt --save-logits t.logits       once, then for each model:
  lapidary eval q4_0.gguf --text t.txt --reference-logits t.logits
  lapidary eval q4_0.gguf --text t.txt --reference bf16.gguf --kv f16,q8_0
  lapidary eval q4_0.gguf --choices questions.jsonl

A text is read as it is, BOS in front. Without --stride it is cut into windows of --ctx tokens and the
second half of each is scored, as llama-perplexity does; with it, windows advance by so many tokens
and each token is scored once. The reference runs with an f32 KV cache.
A question is a line {\"question\": …, \"choices\": [\"…\", …], \"answer\": 0}. acc takes the likeliest choice,
acc_norm the likeliest per byte.
Ctrl-C prints what was measured until then."
)]
pub(crate) struct EvalArgs {
    /// The models, .gguf files
    #[arg(required = true, value_name = "MODEL")]
    pub(crate) models: Vec<PathBuf>,
    /// The text to be predicted
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Compare with this model, as a rule the bf16 one
    #[arg(long, value_name = "BF16.gguf | CHECKPOINT_DIR", requires = "text")]
    pub(crate) reference: Option<PathBuf>,
    /// Tokens in a window
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = at_least_one)]
    pub(crate) ctx: usize,
    /// Advance windows by this many tokens and score every token once
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) stride: Option<usize>,
    /// Read only this many windows
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) chunks: Option<usize>,
    /// Multiple-choice questions to be answered, one JSON object a line
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) choices: Option<PathBuf>,
    /// How questions are put
    #[arg(long, value_enum, value_name = "FORM", default_value_t = ChoicesForm::Chat)]
    pub(crate) choices_form: ChoicesForm,
    /// Save the reference's logits (the model's, without a reference) for later runs
    #[arg(long, value_name = "FILE", requires = "text", conflicts_with = "reference_logits")]
    pub(crate) save_logits: Option<PathBuf>,
    /// Compare with saved logits instead of running the reference
    #[arg(long, value_name = "FILE", requires = "text")]
    pub(crate) reference_logits: Option<PathBuf>,
    /// How keys and values are kept; several give a row each
    #[arg(long, value_enum, value_name = "TYPE,…", value_delimiter = ',', default_value = "f16")]
    pub(crate) kv: Vec<Kv>,
    /// Threads [default: the large physical cores this process may use]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = EvalOutput::Md)]
    pub(crate) output: EvalOutput,
    /// Write a page with tables and charts
    #[arg(long, value_name = "OUT.html")]
    pub(crate) report: Option<PathBuf>,
}

/// What `eval` and `compare` print.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum EvalOutput {
    /// Markdown tables
    Md,
    /// JSON
    Json,
}

/// How a multiple-choice question is put to a model.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ChoicesForm {
    /// As a user's turn in the chat template; the choice is the answer
    Chat,
    /// As a text that the choice continues after a space
    Plain,
}

/// Show where quantization loses: weights, and residual streams layer by layer
///
/// Each tensor is compared with the reference's, worst first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lapidary compare q4_0.gguf bf16.gguf
  lapidary compare q4_0.gguf gemma-3-1b-it --text sample.txt      a checkpoint folder as reference")]
pub(crate) struct CompareArgs {
    /// The model, a .gguf file
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// What it is compared with
    #[arg(value_name = "BF16.gguf | CHECKPOINT_DIR")]
    pub(crate) reference: PathBuf,
    /// Also compare residual streams, over the beginning of this text
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Threads [default: the large physical cores this process may use]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<usize>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = EvalOutput::Md)]
    pub(crate) output: EvalOutput,
}
