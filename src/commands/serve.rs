//! `lapidary serve`.

use std::net::TcpListener;

use anyhow::{Context, Result};
use server::{Done, Note, Settings, Why};

use super::open;
use crate::args::ServeArgs;
use crate::eyes::Eyes;
use crate::figures::Figures;
use crate::interrupt;

/// Positions of a sequence, where nobody says how many: four have the memory that one has in a chat.
const DEFAULT_CONTEXT: usize = 8192;

pub(crate) fn run(args: &ServeArgs) -> Result<()> {
    interrupt::install_for_work()?;
    // What is wrong with the address is said before a model is read.
    let listener = TcpListener::bind((args.host.as_str(), args.port)).with_context(|| {
        format!("can't listen at {}, port {}; --host and --port name others", args.host, args.port)
    })?;
    let address = listener.local_addr()?;
    let api_key = args.api_key.clone().or_else(|| std::env::var("LAPIDARY_API_KEY").ok());
    let api_key = api_key.filter(|key| !key.is_empty());
    if !address.ip().is_loopback() && api_key.is_none() {
        eprintln!("lapidary: whoever reaches {address} can ask; --api-key has them know a key");
    }
    let model = open::model(&args.model)?;
    let sampling = open::sampling(&model, &args.sampling);
    let mut engine = args.engine.clone();
    engine.ctx = Some(engine.ctx.unwrap_or(model.config().context_length.min(DEFAULT_CONTEXT)));
    let session = open::session_of(model.clone(), &engine, args.parallel)?;
    let mut eyes = Eyes::new(model.clone(), &args.eyes, args.engine.threads).beside(&session);
    if args.eyes.mmproj.is_some() {
        eyes.open()?;
    }
    let stem = || model.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = args.name.clone().unwrap_or_else(stem);
    let context = session.cache().context();
    outln!("http://{address}")?;
    eprintln!(
        "{name} answers there, {} at a time with {context} positions each; OpenAI's interface is at \
         http://{address}/v1. Ctrl-C ends it.",
        args.parallel
    );
    let settings = Settings {
        name,
        sampling,
        seed: args.sampling.seed,
        api_key,
        origins: args.allow_origin.clone(),
        eyes: Some(Box::new(eyes)),
        log: |note| eprintln!("{}", line(&note)),
    };
    server::serve(listener, session, settings, interrupt::flag()).context("the server")?;
    // To be stopped is how a server ends.
    interrupt::reset();
    Ok(())
}

/// What happened, for people to read.
fn line(note: &Note<'_>) -> String {
    match note {
        Note::Seen { tokens, took } => {
            format!("[a picture, {tokens} tokens, {:.2} s]", took.as_secs_f64())
        }
        Note::Answered(done) => answered(done).to_string(),
        Note::Refused { status, message } => format!("lapidary: {status}: {message}"),
    }
}

fn answered(done: &Done) -> Figures {
    Figures {
        prompt: done.prompt_tokens - done.cached_tokens,
        reused: done.cached_tokens,
        tokens: done.tokens,
        decoded: done.tokens.saturating_sub(1),
        prompt_time: done.prompt_time,
        decode_time: done.decode_time,
        first: done.waited + done.prompt_time,
        why: if done.why == Why::Length { "stopped at its limit" } else { "" },
    }
}
