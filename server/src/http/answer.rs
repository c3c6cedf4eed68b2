//! Answers as they come, or whole.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event as Line, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use runtime::sampler::SamplingParams;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::prompts::Prepared;
use super::{App, now, reply};
use crate::Note;
use crate::api::{ApiError, Choice, Head, Kind, LogProb, Status, Usage};
use crate::engine::{Done, Event, Failure};

/// While a prompt is read nothing is said for so long at most, so that nobody in between gives up.
const ALIVE: Duration = Duration::from_secs(10);

/// Answers a request.
///
/// # Errors
/// What the engine refuses, or can't do.
pub(super) async fn answer(
    app: &Arc<App>,
    kind: Kind,
    prepared: Prepared,
) -> Result<Response, ApiError> {
    let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
    let id = format!("{prefix}-{:016x}", SamplingParams::fresh_seed());
    let head = Head {
        kind,
        id,
        created: now(),
        model: app.name.clone(),
        wants_usage: prepared.wants_usage,
    };
    let (events, receiver) = unbounded_channel();
    let Prepared { asks, echoes, each, streams, .. } = prepared;
    let wants_log_probs = asks.first().is_some_and(|ask| ask.log_probs.is_some());
    app.engine.answer(asks, &events)?;
    drop(events);
    let tokenizer = app.engine.model().tokenizer();
    let choices = echoes.into_iter().map(|echo| Choice::new(wants_log_probs, echo, tokenizer));
    let choices = choices.collect();
    let written = Written { app: app.clone(), head, each, choices, receiver };
    match streams {
        true => Ok(written.stream()),
        false => written.whole().await,
    }
}

/// Answers to one request.
struct Written {
    app: Arc<App>,
    head: Head,
    /// Answers to each prompt.
    each: usize,
    choices: Vec<Choice>,
    receiver: UnboundedReceiver<(usize, Event)>,
}

/// Something new about a choice.
enum News {
    /// Text, and tokens from this one on.
    Piece(String, usize),
    Done(Done),
}

impl Written {
    /// What comes next, which is noted; `None` when all is said.
    async fn next(&mut self) -> Result<Option<(usize, News)>, Failure> {
        if self.choices.iter().all(|choice| choice.done.is_some()) {
            return Ok(None);
        }
        // The engine's thread ends all that it has begun.
        let Some((index, event)) = self.receiver.recv().await else {
            return Err(Failure::Stopping);
        };
        let model = self.app.engine.model();
        let choice = &mut self.choices[index];
        match event {
            Event::Piece(piece) => {
                let from = choice.drawn.len();
                choice.push(&piece.text, piece.drawn, model.tokenizer());
                Ok(Some((index, News::Piece(piece.text, from))))
            }
            Event::Done(done) => {
                (self.app.log)(Note::Answered(&done));
                choice.end(done.clone());
                Ok(Some((index, News::Done(done))))
            }
            Event::Failed(failure) => Err(failure),
        }
    }

    /// In one piece.
    async fn whole(mut self) -> Result<Response, ApiError> {
        while self.next().await?.is_some() {}
        // Many answers with many probabilities are megabytes.
        let write = move || {
            let tokenizer = self.app.engine.model().tokenizer();
            reply(200, &self.head.whole(&self.choices, self.each, tokenizer))
        };
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|e| ApiError::new(Status::Internal, e.to_string()))
    }

    /// As server-sent events (HTML standard, 9.2), as they come.
    fn stream(self) -> Response {
        let first = self.choices.iter().enumerate().filter_map(|(index, choice)| {
            let echo = || (!choice.text().is_empty()).then(|| self.piece(index, choice.text(), 0));
            self.head.first(index).or_else(echo)
        });
        let lines: VecDeque<String> = first.map(|line| line.to_string()).collect();
        let lines =
            unfold((self, lines, false), move |(mut written, mut lines, mut over)| async move {
                while lines.is_empty() && !over {
                    over = written.write(&mut lines).await;
                }
                let line = Line::default().data(lines.pop_front()?);
                Some((Ok::<_, Infallible>(line), (written, lines, over)))
            });
        Sse::new(lines).keep_alive(KeepAlive::new().interval(ALIVE)).into_response()
    }

    /// A chunk with a text of a choice, and its tokens from this one on.
    fn piece(&self, index: usize, text: &str, from: usize) -> Value {
        let choice = &self.choices[index];
        let tokenizer = self.app.engine.model().tokenizer();
        let list = || LogProb::list(&choice.drawn[from..], self.head.kind, tokenizer);
        self.head.piece(index, text, choice.wants_log_probs.then(list))
    }

    /// The lines of what comes next. Says whether they are the last.
    async fn write(&mut self, lines: &mut VecDeque<String>) -> bool {
        match self.next().await {
            Ok(Some((index, News::Piece(text, from)))) => {
                lines.push_back(self.piece(index, &text, from).to_string());
                false
            }
            Ok(Some((index, News::Done(done)))) => {
                lines.push_back(self.head.last(index, &done).to_string());
                false
            }
            Ok(None) => {
                if self.head.wants_usage {
                    let done = self.choices.iter().filter_map(|choice| choice.done.as_ref());
                    lines.push_back(self.head.usage(Usage::of(done, self.each)).to_string());
                }
                lines.push_back("[DONE]".into());
                true
            }
            Err(failure) => {
                let e = ApiError::from(failure);
                (self.app.log)(Note::Refused { status: e.status.code(), message: e.message() });
                lines.push_back(e.json().to_string());
                true
            }
        }
    }
}
