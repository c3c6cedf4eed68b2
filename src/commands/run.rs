//! `lapidary run`: one answer, or a chat.

use std::io::{IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use runtime::chat::Message;
use runtime::generate::{Generated, Generator, Stop};
use runtime::sampler::Sampler;
use runtime::tokenizer::Special;

use super::{chat, open};
use crate::args::RunArgs;
use crate::{format, interrupt};

pub(crate) fn run(args: &RunArgs) -> Result<()> {
    let start = Instant::now();
    let prompt = match &args.prompt {
        Some(text) => Some(text.clone()),
        None if std::io::stdin().is_terminal() => None,
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("standard input")?;
            Some(text)
        }
    };
    interrupt::install()?;
    let model = open::model(&args.model)?;
    let params = open::sampling(&model, &args.sampling);
    let mut sampler = Sampler::new(params).context("sampling")?;
    let mut generator = Generator::new(open::session(model, &args.engine)?);
    if args.lookup {
        generator = generator.with_lookup();
    }
    let limit = args.limit.unwrap_or(usize::MAX);
    match prompt {
        Some(text) => once(args, &text, &mut generator, &mut sampler, limit, start),
        None if args.raw => bail!("--raw needs a prompt: give one with -p, or through a pipe"),
        None => chat::run(args.system.clone(), generator, sampler, limit),
    }
}

/// One prompt, one answer.
fn once(
    args: &RunArgs,
    text: &str,
    generator: &mut Generator,
    sampler: &mut Sampler,
    limit: usize,
    start: Instant,
) -> Result<()> {
    let model = generator.session().model().clone();
    let ids = if args.raw {
        let tokenizer = model.tokenizer();
        let special = tokenizer.special();
        let bos = special.bos.filter(|_| special.add_bos);
        bos.into_iter().chain(tokenizer.encode(text, Special::Plain)).collect()
    } else {
        let system = args.system.iter().map(|s| Message::system(s.as_str()));
        let messages: Vec<Message> = system.chain([Message::user(text)]).collect();
        model.template().render(model.tokenizer(), &messages, true)
    };
    if ids.is_empty() {
        bail!("the prompt is empty");
    }
    let before = start.elapsed();
    let (done, _) = answer(generator, sampler, &ids, limit)?;
    println!();
    report(&done, Some(before));
    if done.stop == Stop::Cancelled && interrupt::stopped() {
        bail!("stopped");
    }
    Ok(())
}

/// Generates, writing the answer to standard output as it comes; returns it as well.
pub(super) fn answer(
    generator: &mut Generator,
    sampler: &mut Sampler,
    ids: &[u32],
    limit: usize,
) -> Result<(Generated, String)> {
    let mut out = std::io::stdout().lock();
    let (mut text, mut failed) = (String::new(), None);
    let done = generator.generate(ids, sampler, limit, interrupt::flag(), |piece| {
        text.push_str(piece);
        match out.write_all(piece.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                failed = Some(e);
                ControlFlow::Break(())
            }
        }
    })?;
    match failed {
        Some(e) => Err(e.into()),
        None => Ok((done, text)),
    }
}

/// The line of figures under an answer. `before`: what passed before generation began, so that the
/// time to the first token is what the person waited.
pub(super) fn report(done: &Generated, before: Option<Duration>) {
    let seconds = |d: Duration| d.as_secs_f64();
    let first = seconds(before.unwrap_or_default() + done.prompt_time);
    let reused = match done.reused_tokens {
        0 => String::new(),
        n => format!(" (+{n} remembered)"),
    };
    // The first token came with the prompt.
    let decoded = done.tokens.len().saturating_sub(usize::from(done.stop != Stop::Eos));
    let why = match done.stop {
        Stop::Eos => "",
        Stop::Limit => " · stopped at -n",
        Stop::ContextFull => " · the context is full (--ctx)",
        Stop::Cancelled => " · stopped",
    };
    eprintln!(
        "[prompt {} tokens{reused}, {} tokens/s · generated {} tokens, {} tokens/s · first token after {first:.2} s{why}]",
        done.prompt_tokens,
        format::rate(done.prompt_tokens, seconds(done.prompt_time)),
        done.tokens.len(),
        format::rate(decoded, seconds(done.decode_time)),
    );
}
