//! From requests to prompts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use runtime::Prompt;
use runtime::chat::{Message, Part};
use runtime::grammar::{Grammar, GrammarError};
use runtime::sampler::SamplingParams;
use runtime::tokenizer::Special;
use runtime::vision::ImageRows;

use super::App;
use crate::api::chat::{ChatRequest, Sent};
use crate::api::completions::{CompletionRequest, RawPrompt};
use crate::api::{ApiError, Common, Echo, Status, Whole, picture};
use crate::engine::{Ask, Failure, MOST_WAITING};
use crate::{NotSeen, Note};

/// What a request comes to.
pub(super) struct Prepared {
    /// Of each prompt, as many as there are answers to each.
    pub(super) asks: Vec<Ask>,
    /// What each begins with, where that is wanted.
    pub(super) echoes: Vec<Option<Echo>>,
    /// How many those are.
    pub(super) each: usize,
    pub(super) streams: bool,
    /// Is the usage wanted at the end of a stream?
    pub(super) wants_usage: bool,
}

/// A conversation, in the model's format.
pub(super) fn of_chat(
    app: &App,
    request: ChatRequest,
    gone: &Arc<AtomicBool>,
) -> Result<Prepared, ApiError> {
    request.check()?;
    let log_probs = request.log_probs()?;
    let ChatRequest { messages, mut common, max_completion_tokens, .. } = request;
    // What is wrong with the numbers is said before pictures are looked at.
    let wishes = Wishes::new(app, &mut common, max_completion_tokens, log_probs)?;
    let messages: Vec<_> = messages.into_iter().map(|m| m.take()).collect::<Result<_, _>>()?;
    let (mut views, mut positions) = (Vec::new(), 0);
    let mut said = Vec::new();
    for (role, sent) in messages {
        let mut parts = Vec::new();
        for part in sent {
            parts.push(match part {
                Sent::Text(text) => Part::Text(text),
                Sent::Image(url) => {
                    let seen = look(app, picture(&url)?, gone)?;
                    positions += seen.iter().map(|view| view.len()).sum::<usize>();
                    if positions > app.engine.context() {
                        // With the words it would be more; nobody need look at the others.
                        let context = app.engine.context();
                        return Err(Failure::TooLong { tokens: positions, context }.into());
                    }
                    let crops = seen.len().saturating_sub(1);
                    views.extend(seen);
                    Part::Image { crops }
                }
            });
        }
        said.push(Message { role, parts });
    }
    let model = app.engine.model();
    let prompt = model.template().render_prompt(model.tokenizer(), &said, true, views);
    let prompt = prompt.map_err(|e| ApiError::field("messages", e.to_string()))?;
    wishes.of(app, vec![(prompt, None)], &common)
}

/// Texts or tokens, as they are.
pub(super) fn of_completions(
    app: &App,
    request: CompletionRequest,
    _gone: &Arc<AtomicBool>,
) -> Result<Prepared, ApiError> {
    request.check()?;
    let (log_probs, echoes) = (request.log_probs()?, request.echoes());
    let CompletionRequest { prompt, mut common, .. } = request;
    let wishes = Wishes::new(app, &mut common, None, log_probs)?;
    let model = app.engine.model();
    let (vocab, special) = (model.weights().vocab(), model.tokenizer().special());
    let one = |prompt| {
        let (text, ids) = match prompt {
            RawPrompt::Text(text) => {
                let bos = special.bos.filter(|_| special.add_bos);
                let mut ids: Vec<u32> = bos.into_iter().collect();
                ids.extend(model.tokenizer().encode(&text, Special::Parse));
                (text, ids)
            }
            RawPrompt::Tokens(ids) => {
                if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
                    let message = format!("{id} is no token: there are {vocab}");
                    return Err(ApiError::field("prompt", message));
                }
                (model.tokenizer().decode(&ids), ids)
            }
        };
        let echo = echoes.then(|| Echo { text, first: ids.first().copied() });
        Ok((Prompt::from(ids), echo))
    };
    let prompts = prompt.take()?.into_iter().map(one).collect::<Result<_, _>>()?;
    wishes.of(app, prompts, &common)
}

/// How answers are to be written.
struct Wishes {
    sampling: SamplingParams,
    limit: usize,
    stop: Vec<String>,
    each: usize,
    log_probs: Option<usize>,
    grammar: Option<Grammar>,
}

impl Wishes {
    fn new(
        app: &App,
        common: &mut Common,
        limit: Option<Whole>,
        log_probs: Option<usize>,
    ) -> Result<Self, ApiError> {
        let model = app.engine.model();
        let vocab = model.weights().vocab();
        let mut wishes = Wishes {
            sampling: common.sampling(&app.sampling, app.seed, vocab)?,
            limit: common.limit(limit)?,
            stop: common.stops()?,
            each: common.choices()?,
            log_probs,
            grammar: None,
        };
        // What takes the longest comes last.
        if let Some(form) = common.form()? {
            let grammar = model.grammar(&form);
            let wrong = |e: GrammarError| ApiError::field("response_format", e.to_string());
            wishes.grammar = Some(grammar.map_err(wrong)?);
        }
        Ok(wishes)
    }

    /// Each answer has a seed of its own.
    fn of(
        self,
        app: &App,
        prompts: Vec<(Prompt, Option<Echo>)>,
        common: &Common,
    ) -> Result<Prepared, ApiError> {
        let each = self.each;
        // Before there are many of them.
        prompts.iter().try_for_each(|(prompt, _)| app.engine.check(prompt))?;
        let answers = prompts.len() * each;
        if answers > MOST_WAITING {
            return Err(Failure::TooMany { answers }.into());
        }
        let (mut asks, mut echoes) = (Vec::new(), Vec::new());
        for (prompt, echo) in prompts {
            for _ in 0..each {
                let mut sampling = self.sampling.clone();
                sampling.seed = sampling.seed.wrapping_add(asks.len() as u64);
                asks.push(Ask {
                    prompt: prompt.clone(),
                    sampling,
                    limit: self.limit,
                    stop: self.stop.clone(),
                    log_probs: self.log_probs,
                    score_prompt: echo.is_some() && self.log_probs.is_some(),
                    reuse: common.reuses(),
                    ignore_eos: common.ignores_eos(),
                    grammar: self.grammar.clone(),
                });
                echoes.push(echo.clone());
            }
        }
        Ok(Prepared {
            asks,
            echoes,
            each,
            streams: common.streams(),
            wants_usage: common.wants_usage(),
        })
    }
}

/// The rows of a picture file.
fn look(app: &App, file: Vec<u8>, gone: &Arc<AtomicBool>) -> Result<Vec<Arc<ImageRows>>, ApiError> {
    let Some(eyes) = &app.eyes else {
        let message = "the server was started without what looks at pictures";
        return Err(ApiError::field("messages", message));
    };
    let start = Instant::now();
    let (eyes, cancel) = (eyes.clone(), gone.clone());
    // Someone before may have panicked: it opens what it needs anew.
    let beside = eyes.lock().unwrap_or_else(|e| e.into_inner()).is_beside();
    let look = move || {
        let mut eyes = eyes.lock().unwrap_or_else(|e| e.into_inner());
        match cancel.load(Ordering::Relaxed) {
            true => Err(NotSeen::Failed("nobody waits for it any more".into())),
            false => eyes.look(&file, &cancel),
        }
    };
    let seen = if beside { app.engine.between(look)? } else { look() };
    let views = seen.map_err(|e| match e {
        NotSeen::Request(message) => ApiError::field("messages", message),
        NotSeen::Failed(message) => ApiError::new(Status::Internal, message),
    })?;
    let tokens = views.iter().map(|view| view.len()).sum();
    (app.log)(Note::Seen { tokens, took: start.elapsed() });
    Ok(views)
}
