//! From requests to prompts.

use std::sync::Arc;
use std::time::Instant;

use runtime::Prompt;
use runtime::chat::{Message, Part};
use runtime::grammar::Grammar;
use runtime::sampler::SamplingParams;
use runtime::tokenizer::Special;
use runtime::vision::ImageRows;

use super::App;
use crate::api::chat::{ChatRequest, Sent};
use crate::api::completions::{CompletionRequest, RawPrompt};
use crate::api::{ApiError, Common, Echo, Status, picture};
use crate::engine::Ask;
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
pub(super) fn of_chat(app: &Arc<App>, request: ChatRequest) -> Result<Prepared, ApiError> {
    request.check()?;
    let log_probs = request.log_probs()?;
    let ChatRequest { messages, common, max_completion_tokens, .. } = request;
    // What is wrong with the numbers is said before pictures are looked at.
    let wishes = Wishes::new(app, &common, max_completion_tokens, log_probs)?;
    let messages: Vec<_> = messages.into_iter().map(|m| m.take()).collect::<Result<_, _>>()?;
    let mut views = Vec::new();
    let mut said = Vec::new();
    for (role, sent) in messages {
        let mut parts = Vec::new();
        for part in sent {
            parts.push(match part {
                Sent::Text(text) => Part::Text(text),
                Sent::Image(url) => {
                    let seen = look(app, picture(&url)?)?;
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
    Ok(wishes.of(vec![(prompt, None)], &common))
}

/// Texts or tokens, as they are.
pub(super) fn of_completions(
    app: &Arc<App>,
    request: CompletionRequest,
) -> Result<Prepared, ApiError> {
    request.check()?;
    let (log_probs, echoes) = (request.log_probs()?, request.echoes());
    let CompletionRequest { prompt, common, .. } = request;
    let wishes = Wishes::new(app, &common, None, log_probs)?;
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
    Ok(wishes.of(prompts, &common))
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
        common: &Common,
        limit: Option<i64>,
        log_probs: Option<usize>,
    ) -> Result<Self, ApiError> {
        let model = app.engine.model();
        let vocab = model.weights().vocab();
        let form = common.form()?;
        let grammar = form.map(|form| model.grammar(&form)).transpose();
        let grammar = grammar.map_err(|e| ApiError::field("response_format", e.to_string()))?;
        Ok(Wishes {
            grammar,
            sampling: common.sampling(&app.sampling, app.seed, vocab)?,
            limit: common.limit(limit),
            stop: common.stops()?,
            each: common.choices()?,
            log_probs,
        })
    }

    /// Each answer has a seed of its own.
    fn of(self, prompts: Vec<(Prompt, Option<Echo>)>, common: &Common) -> Prepared {
        let each = self.each;
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
                    ignore_eos: common.ignores_eos(),
                    grammar: self.grammar.clone(),
                });
                echoes.push(echo.clone());
            }
        }
        Prepared {
            asks,
            echoes,
            each,
            streams: common.streams(),
            wants_usage: common.wants_usage(),
        }
    }
}

/// The rows of a picture file.
fn look(app: &Arc<App>, file: Vec<u8>) -> Result<Vec<Arc<ImageRows>>, ApiError> {
    let Some(eyes) = &app.eyes else {
        return Err(ApiError::field(
            "messages",
            "the server was started without what looks at pictures",
        ));
    };
    let start = Instant::now();
    // Someone before may have panicked: it opens what it needs anew.
    let lock = || eyes.lock().unwrap_or_else(|e| e.into_inner());
    let seen = if lock().is_beside() {
        let app = app.clone();
        app.clone().engine.between(move || {
            let eyes = app.eyes.as_ref()?;
            Some(eyes.lock().unwrap_or_else(|e| e.into_inner()).look(&file))
        })?
    } else {
        Some(lock().look(&file))
    };
    let views = match seen {
        Some(Ok(views)) => views,
        Some(Err(NotSeen::Request(message))) => return Err(ApiError::field("messages", message)),
        Some(Err(NotSeen::Failed(message))) => {
            return Err(ApiError::new(Status::Internal, message));
        }
        None => return Err(ApiError::new(Status::Internal, "there are no eyes")),
    };
    let tokens = views.iter().map(|view| view.len()).sum();
    (app.log)(Note::Seen { tokens, took: start.elapsed() });
    Ok(views)
}
