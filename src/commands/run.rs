//! `lapidary run`: one answer, or a chat.

use std::io::{IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use runtime::chat::{Message, Part, Role};
use runtime::generate::{Generated, Generator, Stop};
use runtime::sampler::Sampler;
use runtime::{Prompt, PromptSlice, Session};

use super::{chat, open};
use crate::args::RunArgs;
use crate::eyes::{Eyes, Sight};
use crate::figures::Figures;
use crate::interrupt;

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
    match prompt {
        Some(_) => interrupt::install_for_work()?,
        None => interrupt::install()?,
    }
    let model = open::model(&args.model)?;
    let params = open::sampling(&model, &args.sampling);
    let mut sampler = Sampler::new(params).context("sampling")?;
    if let Some((name, form)) = args.form.form()? {
        sampler = sampler.with_grammar(model.grammar(&form).context(name)?);
    }
    let mut generator = Generator::new(open::session(model.clone(), &args.engine)?);
    if args.lookup {
        generator = generator.with_lookup();
    }
    let limit = args.limit.unwrap_or(usize::MAX);
    match prompt {
        Some(text) => {
            let prompt = prompt_of(args, &text, generator.session())?;
            once(&prompt, &mut generator, &mut sampler, limit, start)
        }
        None if args.raw => bail!("--raw needs a prompt: give one with -p, or through a pipe"),
        None => chat::run(args, generator, sampler, limit),
    }
}

/// The pictures, then the text: in the chat's format, or with --raw as they are.
fn prompt_of(args: &RunArgs, text: &str, session: &Session) -> Result<Prompt> {
    let model = session.model();
    let mut eyes =
        Eyes::new(model.clone(), &args.pictures.eyes, args.engine.threads).beside(session);
    let sights = eyes.look_at_all(&args.pictures.images)?;
    let mut parts: Vec<Part> = sights.iter().map(Sight::part).collect();
    parts.push(Part::Text(text.to_string()));
    let views = sights.into_iter().flat_map(|sight| sight.views);
    let tokenizer = model.tokenizer();
    let prompt = if args.raw {
        runtime::chat::raw(tokenizer, &parts, views)?
    } else {
        let system = args.system.iter().map(|s| Message::system(s.as_str()));
        let messages: Vec<Message> = system.chain([Message { role: Role::User, parts }]).collect();
        model.template().render_prompt(tokenizer, &messages, true, views)?
    };
    if prompt.is_empty() {
        bail!("the prompt is empty");
    }
    Ok(prompt)
}

/// One prompt, one answer.
fn once(
    prompt: &Prompt,
    generator: &mut Generator,
    sampler: &mut Sampler,
    limit: usize,
    start: Instant,
) -> Result<()> {
    let before = start.elapsed();
    let (done, _) = answer(generator, sampler, prompt, limit)?;
    outln!()?;
    report(&done, Some(before));
    if done.stop == Stop::Cancelled && interrupt::stopped() {
        bail!("stopped");
    }
    Ok(())
}

/// Generates, writing the answer to standard output as it comes; returns it as well.
pub(super) fn answer<'p>(
    generator: &mut Generator,
    sampler: &mut Sampler,
    prompt: impl Into<PromptSlice<'p>>,
    limit: usize,
) -> Result<(Generated, String)> {
    let mut out = std::io::stdout().lock();
    let (mut text, mut failed) = (String::new(), None);
    let done = generator.generate(prompt, sampler, limit, interrupt::flag(), |piece| {
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
    let figures = Figures {
        prompt: done.prompt_tokens,
        reused: done.reused_tokens,
        tokens: done.tokens.len(),
        // The first token came with the prompt.
        decoded: done.tokens.len().saturating_sub(usize::from(done.stop != Stop::Eos)),
        prompt_time: done.prompt_time,
        decode_time: done.decode_time,
        first: before.unwrap_or_default() + done.prompt_time,
        why: match done.stop {
            Stop::Eos => "",
            Stop::Limit => "stopped at -n",
            Stop::ContextFull => "the context is full (--ctx)",
            Stop::Cancelled => "stopped",
        },
    };
    eprintln!("{figures}");
}
