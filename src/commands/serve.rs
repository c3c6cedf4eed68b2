//! `lapidary serve`.

use std::net::TcpListener;
use std::sync::mpsc::sync_channel;

use anyhow::{Context, Result, anyhow};
use server::{Done, Note, Settings, Why};

use super::open;
use crate::args::{ServeArgs, serve};
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
    let api_key = match (&args.api_key, std::env::var("LAPIDARY_API_KEY")) {
        (Some(key), _) => Some(key.clone()),
        (None, Ok(key)) if !key.is_empty() => {
            Some(serve::key(&key).map_err(|e| anyhow!("LAPIDARY_API_KEY: {e}"))?)
        }
        _ => None,
    };
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
        log: log(),
    };
    server::serve(listener, session, settings, interrupt::flag()).context("the server")?;
    // To be stopped is how a server ends.
    interrupt::reset();
    Ok(())
}

/// Lines that may wait to be written; when they are more, nobody reads them.
const LINES: usize = 1024;

/// Writes what happens to standard error, on a thread of its own: who has it in a pipe and does not read it
/// loses lines, and the server goes on.
fn log() -> Box<dyn Fn(Note<'_>) + Send + Sync> {
    let (lines, to_write) = sync_channel::<String>(LINES);
    std::thread::spawn(move || to_write.iter().for_each(|line| eprintln!("{line}")));
    Box::new(move |note| drop(lines.try_send(line(&note))))
}

/// What happened, for people to read. Parts of requests steer no terminal.
fn line(note: &Note<'_>) -> String {
    let escape = |c: char| match c {
        '"' | '\'' | '\\' => c.to_string(),
        c => c.escape_debug().to_string(),
    };
    match note {
        Note::Seen { tokens, took } => {
            format!("[a picture, {tokens} tokens, {:.2} s]", took.as_secs_f64())
        }
        Note::Answered(done) => answered(done).to_string(),
        Note::Refused { status, message } => {
            format!("lapidary: {status}: {}", message.chars().map(escape).collect::<String>())
        }
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
