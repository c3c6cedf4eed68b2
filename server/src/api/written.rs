//! Answers, whole and in chunks.

use std::time::Duration;

use runtime::sampler::LogProbs;
use runtime::tokenizer::{Kind as TokenKind, StreamDecoder, Tokenizer};
use serde_json::{Map, Value, json};

use crate::engine::{Done, Why};

/// Which interface an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Text,
}

/// What all parts of a response begin with.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    pub(crate) model: String,
    /// Chunks of a stream have a place for the usage, though only the last one has it.
    pub(crate) wants_usage: bool,
}

impl Head {
    fn with(&self, object: &str, choices: Vec<Value>) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("id".into(), self.id.clone().into());
        body.insert("object".into(), object.into());
        body.insert("created".into(), self.created.into());
        body.insert("model".into(), self.model.clone().into());
        body.insert(
            "system_fingerprint".into(),
            concat!("lapidary-", env!("CARGO_PKG_VERSION")).into(),
        );
        body.insert("choices".into(), choices.into());
        body
    }

    /// A whole response, with `n` answers to each prompt.
    pub(crate) fn whole(&self, choices: &[Choice], n: usize, tokenizer: &Tokenizer) -> Value {
        let object = if self.kind == Kind::Chat { "chat.completion" } else { "text_completion" };
        let list =
            choices.iter().enumerate().map(|(i, c)| c.whole(self.kind, i, tokenizer)).collect();
        let mut body = self.with(object, list);
        body.insert(
            "usage".into(),
            Usage::of(choices.iter().filter_map(|c| c.done.as_ref()), n).json(),
        );
        if let [Choice { done: Some(done), .. }] = choices {
            body.insert("timings".into(), timings(done));
        }
        body.into()
    }

    /// A chunk of a stream: a piece of an answer.
    pub(crate) fn piece(&self, index: usize, text: &str, log_probs: Option<Value>) -> Value {
        let choice = match self.kind {
            Kind::Chat => json!({
                "index": index, "delta": {"content": text}, "logprobs": log_probs, "finish_reason": null
            }),
            Kind::Text => json!({
                "index": index, "text": text, "logprobs": log_probs, "finish_reason": null
            }),
        };
        self.chunk(vec![choice]).into()
    }

    /// The first chunk of an answer, which says who speaks.
    pub(crate) fn first(&self, index: usize) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        let choice =
            json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
        (self.kind == Kind::Chat).then(|| self.chunk(vec![choice]).into())
    }

    /// The last chunk of an answer.
    pub(crate) fn last(&self, index: usize, done: &Done) -> Value {
        let mut choice =
            json!({"index": index, "logprobs": null, "finish_reason": reason(done.why)});
        match self.kind {
            Kind::Chat => choice["delta"] = json!({}),
            Kind::Text => choice["text"] = json!(""),
        }
        let mut body = self.chunk(vec![choice]);
        body.insert("timings".into(), timings(done));
        body.into()
    }

    /// The chunk after the last ones.
    pub(crate) fn usage(&self, usage: Usage) -> Value {
        let mut body = self.chunk(Vec::new());
        body.insert("usage".into(), usage.json());
        body.into()
    }

    fn chunk(&self, choices: Vec<Value>) -> Map<String, Value> {
        let object =
            if self.kind == Kind::Chat { "chat.completion.chunk" } else { "text_completion" };
        let mut body = self.with(object, choices);
        if self.wants_usage {
            body.insert("usage".into(), Value::Null);
        }
        body
    }
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::Stop => "stop",
        Why::Length => "length",
    }
}

/// A prompt that an answer begins with.
#[derive(Clone, Debug)]
pub(crate) struct Echo {
    pub(crate) text: String,
    /// Its first token, which nothing goes before.
    pub(crate) first: Option<u32>,
}

/// An answer, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    text: String,
    /// Makes text of its tokens, an echo's included: more than `text`, where some is held back.
    decoder: StreamDecoder,
    /// Characters of that.
    characters: usize,
    pub(crate) drawn: Vec<LogProb>,
    /// Were probabilities asked for?
    pub(crate) wants_log_probs: bool,
    pub(crate) done: Option<Done>,
}

/// A token, and what was likely in its place.
#[derive(Debug)]
pub(crate) struct LogProb {
    token: u32,
    /// Characters of the answer before it.
    offset: usize,
    /// `None`: nothing goes before it.
    log_probs: Option<LogProbs>,
}

impl Choice {
    /// Nothing yet, but for a prompt that it begins with.
    pub(crate) fn new(wants_log_probs: bool, echo: Option<Echo>, tokenizer: &Tokenizer) -> Self {
        let mut choice = Choice { wants_log_probs, ..Choice::default() };
        if let Some(echo) = echo {
            choice.text = echo.text;
            if let Some(token) = echo.first.filter(|_| wants_log_probs) {
                choice.note(token, None, tokenizer);
            }
        }
        choice
    }

    /// The answer so far, an echo included.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Goes on.
    pub(crate) fn push(
        &mut self,
        text: &str,
        drawn: Option<(u32, LogProbs)>,
        tokenizer: &Tokenizer,
    ) {
        self.text.push_str(text);
        if let Some((token, log_probs)) = drawn {
            self.note(token, Some(log_probs), tokenizer);
        }
    }

    /// Takes note of a token and where it is in the text.
    fn note(&mut self, token: u32, log_probs: Option<LogProbs>, tokenizer: &Tokenizer) {
        // With it comes what it adds, after bytes that were no character yet.
        let more = self.decoder.push(tokenizer, token);
        let own = match tokenizer.kind(token) {
            TokenKind::Byte | TokenKind::Control | TokenKind::Unknown => 0,
            _ => String::from_utf8_lossy(&tokenizer.token_bytes(token)).chars().count(),
        };
        self.characters += more.chars().count();
        let offset = self.characters.saturating_sub(own);
        self.drawn.push(LogProb { token, offset, log_probs });
    }

    /// It is done. Tokens of a text that ended it, and is no part of it, are none of it either.
    pub(crate) fn end(&mut self, done: Done) {
        let all = self.text.chars().count();
        if done.why == Why::Stop {
            self.drawn.retain(|d| d.offset < all);
        }
        self.done = Some(done);
    }

    fn whole(&self, kind: Kind, index: usize, tokenizer: &Tokenizer) -> Value {
        let reason = self.done.as_ref().map(|done| reason(done.why));
        let log_probs = self.wants_log_probs.then(|| LogProb::list(&self.drawn, kind, tokenizer));
        match kind {
            Kind::Chat => json!({
                "index": index,
                "message": {"role": "assistant", "content": self.text},
                "logprobs": log_probs,
                "finish_reason": reason,
            }),
            Kind::Text => json!({
                "index": index, "text": self.text, "logprobs": log_probs, "finish_reason": reason,
            }),
        }
    }
}

impl LogProb {
    /// As each interface has them.
    pub(crate) fn list(drawn: &[LogProb], kind: Kind, tokenizer: &Tokenizer) -> Value {
        // JSON knows no infinity.
        let finite = |x: f32| x.max(-9999.0);
        // A part of a character has no text; OpenAI writes its bytes.
        let text = |id| match String::from_utf8(tokenizer.token_bytes(id)) {
            Ok(text) => text,
            Err(e) => e.as_bytes().iter().fold("bytes:".into(), |s, b| format!("{s}\\x{b:02x}")),
        };
        match kind {
            Kind::Chat => {
                let entry = |id: u32, log_prob: f32| {
                    let bytes = tokenizer.token_bytes(id);
                    json!({"token": text(id), "logprob": finite(log_prob), "bytes": bytes})
                };
                let one = |d: &LogProb| {
                    let p = d.log_probs.as_ref()?;
                    let mut one = entry(d.token, p.token);
                    one["top_logprobs"] = p.top.iter().map(|&(id, p)| entry(id, p)).collect();
                    Some(one)
                };
                json!({"content": drawn.iter().filter_map(one).collect::<Vec<_>>()})
            }
            Kind::Text => {
                // Of the likeliest, and of the token itself.
                let top = |d: &LogProb| {
                    let p = d.log_probs.as_ref()?;
                    let all = p.top.iter().copied().chain([(d.token, p.token)]);
                    Some(all.map(|(id, p)| (text(id), finite(p).into())).collect::<Map<_, _>>())
                };
                let own = |d: &LogProb| Some(finite(d.log_probs.as_ref()?.token));
                json!({
                    "tokens": drawn.iter().map(|d| text(d.token)).collect::<Vec<_>>(),
                    "token_logprobs": drawn.iter().map(own).collect::<Vec<_>>(),
                    "top_logprobs": drawn.iter().map(top).collect::<Vec<_>>(),
                    "text_offset": drawn.iter().map(|d| d.offset).collect::<Vec<_>>(),
                })
            }
        }
    }
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    prompt: usize,
    cached: usize,
    answers: usize,
}

impl Usage {
    /// Of answers, each `n` of which are to the same prompt, which counts once.
    pub(crate) fn of<'a>(done: impl Iterator<Item = &'a Done>, n: usize) -> Self {
        done.enumerate().fold(Usage::default(), |u, (i, done)| {
            let first = usize::from(i % n == 0);
            Usage {
                prompt: u.prompt + first * done.prompt_tokens,
                cached: u.cached + first * done.cached_tokens,
                answers: u.answers + done.tokens,
            }
        })
    }

    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.answers,
            "total_tokens": self.prompt + self.answers,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        })
    }
}

/// How long it took, in the words of llama.cpp's server.
pub(crate) fn timings(done: &Done) -> Value {
    let prompt = done.prompt_tokens - done.cached_tokens;
    // The first token comes with the prompt.
    let decoded = done.tokens.saturating_sub(1);
    let milliseconds = |d: Duration| d.as_secs_f64() * 1e3;
    let each = |n: usize, d: Duration| (n > 0).then(|| milliseconds(d) / n as f64);
    let rate = |n: usize, d: Duration| (!d.is_zero()).then(|| n as f64 / d.as_secs_f64());
    json!({
        "cache_n": done.cached_tokens,
        "prompt_n": prompt,
        "prompt_ms": milliseconds(done.prompt_time),
        "prompt_per_token_ms": each(prompt, done.prompt_time),
        "prompt_per_second": rate(prompt, done.prompt_time),
        "predicted_n": done.tokens,
        "predicted_ms": milliseconds(done.decode_time),
        "predicted_per_token_ms": each(decoded, done.decode_time),
        "predicted_per_second": rate(decoded, done.decode_time),
    })
}
