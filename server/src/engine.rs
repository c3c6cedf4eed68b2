//! Many answers at once, from one session: what is asked goes in, pieces of text come out.
//!
//! A thread owns the session. In each pass every answer that is being written goes on by a token, and
//! prompts are read in the same batch (Yu et al. 2022, Orca, call it iteration-level scheduling), so that
//! one reading of the weights serves all of them. Each sequence of the cache is a [`Slot`] that remembers
//! what it holds when its answer is done: a conversation that goes on costs only its new tokens.

mod place;
mod schedule;
mod slot;
mod stops;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use runtime::grammar::Grammar;
use runtime::sampler::{LogProbs, SamplingParams};
use runtime::{Model, Prompt, Session};
use tokio::sync::mpsc::UnboundedSender;

use schedule::Schedule;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What the answer follows, at least one token.
    pub prompt: Prompt,
    /// How to draw.
    pub sampling: SamplingParams,
    /// At most this many tokens. With none the prompt is read and that is all.
    pub limit: usize,
    /// Texts that end the answer, and are no part of it.
    pub stop: Vec<String>,
    /// Probabilities are wanted, and of so many of the likeliest tokens as well.
    pub log_probs: Option<usize>,
    /// They are wanted of the prompt's tokens too, but for the first: these come first, each as a [`Piece`]
    /// without text. All of the prompt is then read, whatever the cache holds.
    pub score_prompt: bool,
    /// What the cache holds of the prompt's beginning is used. Else all of it is read, and a sampler draws the
    /// same each time: rounding depends on how many tokens are read together.
    pub reuse: bool,
    /// The model's own end of an answer does not end it. (With a grammar it does.)
    pub ignore_eos: bool,
    /// What the answer must be, if anything; see [`Model::grammar`].
    pub grammar: Option<Grammar>,
}

impl Ask {
    /// An answer as long as the model wants, drawn in this way.
    pub fn new(prompt: impl Into<Prompt>, sampling: SamplingParams) -> Self {
        Ask {
            prompt: prompt.into(),
            sampling,
            limit: usize::MAX,
            stop: Vec::new(),
            log_probs: None,
            score_prompt: false,
            reuse: true,
            ignore_eos: false,
            grammar: None,
        }
    }
}

/// Something about an answer.
#[derive(Debug)]
pub enum Event {
    /// It goes on.
    Piece(Piece),
    /// It is done.
    Done(Done),
    /// It can't be done, or not to the end.
    Failed(Failure),
}

/// A token, and the text that is certain with it: none while it may be half a character, or the
/// beginning of a text that ends the answer.
#[derive(Debug, Default)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// The token and what was likely there, where that was asked for.
    pub drawn: Option<(u32, LogProbs)>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The model was done, or one of [`Ask::stop`] came.
    Stop,
    /// As many tokens as were asked for, or as fit.
    Length,
}

/// How an answer came about.
#[derive(Clone, Debug)]
pub struct Done {
    /// Why it ended.
    pub why: Why,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that the cache held already.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub tokens: usize,
    /// From being asked to being begun.
    pub waited: Duration,
    /// From then to the first token.
    pub prompt_time: Duration,
    /// From there to the end.
    pub decode_time: Duration,
}

/// Why an answer can't be had.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum Failure {
    #[error("{0}")]
    Model(String),
    #[error("{0}")]
    Form(String),
    #[error("the prompt is empty")]
    NoPrompt,
    #[error(
        "the prompt has {tokens} tokens, and prompt and answer together have room for {context}; \
         start the server with a larger --ctx, or shorten it"
    )]
    TooLong { tokens: usize, context: usize },
    #[error(
        "an image of {rows} positions does not fit a batch of {batch}; start the server with a larger --ctx"
    )]
    ImageTooLong { rows: usize, batch: usize },
    #[error("{answers} answers are wanted; {MOST_WAITING} at a time are the most")]
    TooMany { answers: usize },
    #[error(
        "{waiting} answers are waited for already, and {MOST_WAITING} are the most; try again later"
    )]
    Busy { waiting: usize },
    #[error("the server is stopping")]
    Stopping,
}

/// Where events of an answer go: its number, and what happened. When the other end is dropped, the
/// answers that it was for are ended.
pub type Events = UnboundedSender<(usize, Event)>;

/// An answer to be had.
struct Job {
    ask: Ask,
    index: usize,
    events: Events,
    asked: std::time::Instant,
}

impl Job {
    /// Says something; whoever asked may be gone.
    fn tell(&self, event: Event) {
        let _ = self.events.send((self.index, event));
    }
}

enum Order {
    Answer(Box<Job>),
    Between(Box<dyn FnOnce() + Send>),
}

/// What the thread and those that ask it share.
#[derive(Default)]
struct Shared {
    /// Answers that wait for a slot.
    waiting: AtomicUsize,
    /// Answers that are being written.
    busy: AtomicUsize,
    stop: AtomicBool,
}

/// Asks the thread that owns the session. It ends when the last of these is dropped.
#[derive(Clone)]
pub struct Engine {
    orders: Sender<Order>,
    shared: Arc<Shared>,
    model: Arc<Model>,
    context: usize,
    batch: usize,
    slots: usize,
}

/// So many answers may wait: more would only time out.
pub(crate) const MOST_WAITING: usize = 256;
/// Bytes of the thread's stack: forms of answers may be deep.
const STACK: usize = 64 << 20;

impl Engine {
    /// Starts the thread. All sequences of the session must be empty. `ended` is dropped when the thread
    /// ends, for whatever reason.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<T: Send + 'static>(session: Session, ended: T) -> std::io::Result<Engine> {
        let (orders, receiver) = channel();
        let shared = Arc::new(Shared::default());
        let engine = Engine {
            orders,
            shared: shared.clone(),
            model: session.model().clone(),
            context: session.cache().context(),
            batch: session.cpu().max_rows(),
            slots: session.cache().sequences(),
        };
        let schedule = Schedule::new(session, receiver, shared);
        let thread = std::thread::Builder::new().name("engine".into()).stack_size(STACK);
        thread.spawn(move || {
            let _ended = ended;
            schedule.run();
        })?;
        Ok(engine)
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Positions of a prompt and its answer together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Answers that can be written at the same time.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Answers that are being written, and those that wait for it.
    pub fn load(&self) -> (usize, usize) {
        let of = |n: &AtomicUsize| n.load(Ordering::Relaxed);
        (of(&self.shared.busy), of(&self.shared.waiting))
    }

    /// Can such a prompt be answered?
    ///
    /// # Errors
    /// [`Failure::NoPrompt`], [`Failure::TooLong`], [`Failure::ImageTooLong`].
    pub fn check(&self, prompt: &Prompt) -> Result<(), Failure> {
        let (tokens, context) = (prompt.len(), self.context);
        if tokens == 0 {
            return Err(Failure::NoPrompt);
        }
        if tokens > context {
            return Err(Failure::TooLong { tokens, context });
        }
        let images = prompt.as_slice().images().map(|(_, image)| image.len());
        match images.max().filter(|&rows| rows > self.batch) {
            Some(rows) => Err(Failure::ImageTooLong { rows, batch: self.batch }),
            None => Ok(()),
        }
    }

    /// Asks for answers, whose events come with their number.
    ///
    /// # Errors
    /// As [`Engine::check`]; [`Failure::TooMany`], [`Failure::Busy`] when too many wait, and
    /// [`Failure::Stopping`]. None of them is then written.
    pub fn answer(&self, asks: Vec<Ask>, events: &Events) -> Result<(), Failure> {
        asks.iter().try_for_each(|ask| self.check(&ask.prompt))?;
        let n = asks.len();
        if n > MOST_WAITING {
            return Err(Failure::TooMany { answers: n });
        }
        let more = |waiting: usize| Some(waiting + n).filter(|&all| all <= MOST_WAITING);
        let waiting = &self.shared.waiting;
        if let Err(waiting) = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            return Err(Failure::Busy { waiting });
        }
        let asked = std::time::Instant::now();
        for (index, ask) in asks.into_iter().enumerate() {
            let job = Box::new(Job { ask, index, events: events.clone(), asked });
            self.orders.send(Order::Answer(job)).map_err(|_| Failure::Stopping)?;
        }
        Ok(())
    }

    /// Runs `work` on the engine's thread, between two passes, and returns what it does.
    ///
    /// # Errors
    /// [`Failure::Stopping`].
    pub fn between<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (done, result) = channel();
        let work = Box::new(move || {
            let _ = done.send(work());
        });
        self.orders.send(Order::Between(work)).map_err(|_| Failure::Stopping)?;
        result.recv().map_err(|_| Failure::Stopping)
    }

    /// Ends all answers, and the thread.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // It may be asleep.
        let _ = self.orders.send(Order::Between(Box::new(|| ())));
    }
}
