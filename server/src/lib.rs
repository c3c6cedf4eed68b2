//! A Gemma model for many: an [`Engine`] that writes several answers at a time, and a server for it that
//! speaks OpenAI's interface over HTTP.
//!
//! Programs that need no HTTP can use the engine alone:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use lapidary_server::{Ask, Engine, Event};
//! use runtime::{Model, Session, SessionOptions, chat::Message};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Arc::new(Model::open("gemma-1b.gguf")?);
//! let options = SessionOptions { sequences: 4, ..SessionOptions::default() };
//! let engine = Engine::start(Session::new(model.clone(), &options)?, ())?;
//! let asks = ["Three names for a cat?", "Three names for a dog?"].map(|text| {
//!     let ids = model.template().render(model.tokenizer(), &[Message::user(text)], true);
//!     Ask::new(ids, model.sampling().clone())
//! });
//! let (events, mut answers) = tokio::sync::mpsc::unbounded_channel();
//! engine.answer(asks.into(), &events)?;
//! drop(events);
//! while let Some((index, event)) = answers.blocking_recv() {
//!     match event {
//!         Event::Piece(piece) => println!("{index}: {}", piece.text),
//!         Event::Done(done) => println!("{index}: {} tokens", done.tokens),
//!         Event::Failed(failure) => return Err(failure.into()),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod api;
mod engine;
mod http;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use runtime::sampler::SamplingParams;
use runtime::vision::ImageRows;

pub use engine::{Ask, Done, Engine, Event, Events, Failure, Piece, Why};

/// How a server is set up.
pub struct Settings {
    /// What the model is called.
    pub name: String,
    /// How to draw where a request says nothing; see [`Settings::seed`] for the seed.
    pub sampling: SamplingParams,
    /// The seed of requests that name none. `None`: each has another.
    pub seed: Option<u64>,
    /// What clients must know, if anything.
    pub api_key: Option<String>,
    /// Web pages from here may use the server, besides those of this machine; `*` for all.
    pub origins: Vec<String>,
    /// What looks at pictures. `None`: nothing does.
    pub eyes: Option<Box<dyn Look>>,
    /// Is told what happens, on the thread that serves: it must not wait for anything.
    pub log: Box<dyn Fn(Note<'_>) + Send + Sync>,
}

/// Looks at pictures for a model.
pub trait Look: Send {
    /// The rows of a picture file: of the whole, then of its parts. They are of no use any more when
    /// `cancel` becomes true.
    ///
    /// # Errors
    /// [`NotSeen`].
    fn look(&mut self, file: &[u8], cancel: &AtomicBool) -> Result<Vec<Arc<ImageRows>>, NotSeen>;

    /// Does it use what the session uses, so that it must run between two passes?
    fn is_beside(&self) -> bool {
        false
    }
}

/// Why there are no rows of a picture.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation of their fields
pub enum NotSeen {
    /// It is no picture, or the model is blind.
    #[error("{0}")]
    Request(String),
    /// It should have worked.
    #[error("{0}")]
    Failed(String),
}

/// Something that happened.
#[derive(Debug)]
pub enum Note<'a> {
    /// A picture was looked at.
    Seen {
        /// Positions that it takes.
        tokens: usize,
        /// How long that took.
        took: std::time::Duration,
    },
    /// An answer is done.
    Answered(&'a Done),
    /// A request was not served, or not to the end.
    Refused {
        /// What HTTP says of it.
        status: u16,
        /// Why.
        message: &'a str,
    },
}

/// Serves until `stop` becomes true: answers that are being written are then ended.
///
/// # Errors
/// When the listener can't be used, or the engine's thread has ended by itself.
pub fn serve(
    listener: TcpListener,
    session: runtime::Session,
    settings: Settings,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    http::serve(listener, session, settings, stop)
}
