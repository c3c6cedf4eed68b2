//! A sequence of the cache, and the answer that is written in it.

use std::time::{Duration, Instant};

use rayon::prelude::*;
use runtime::sampler::{LogProbs, Sampler, SamplingError};
use runtime::tokenizer::StreamDecoder;
use runtime::{Model, Prompt, RuntimeError};

use super::stops::Stops;
use super::{Done, Event, Failure, Job, Piece, Why};

/// A sequence of the cache.
#[derive(Default)]
pub(super) struct Slot {
    /// What the cache holds of it.
    pub(super) cached: Prompt,
    pub(super) work: Option<Work>,
    /// When its last answer ended, in answers.
    pub(super) used: u64,
}

/// An answer that is being written.
pub(super) struct Work {
    pub(super) job: Job,
    /// What goes through the model next: what is left of the prompt, then the latest token.
    pub(super) pending: Prompt,
    /// Its place in the order of beginning.
    pub(super) number: u64,
    pub(super) sampler: Sampler,
    decoder: StreamDecoder,
    stops: Stops,
    done: Done,
    began: Instant,
    first: Option<Instant>,
}

impl Work {
    /// An answer to `job`, of whose prompt the cache holds the first `cached` positions. `None`, and that
    /// is told, when the parameters of the sampler are out of their ranges.
    pub(super) fn new(mut job: Job, cached: usize, number: u64) -> Option<Work> {
        let sampler = Sampler::new(job.ask.sampling.clone());
        let told = |e| job.tell(Event::Failed(Failure::Model(e)));
        let mut sampler = sampler.map_err(|e| told(e.to_string())).ok()?;
        if let Some(grammar) = job.ask.grammar.take() {
            sampler = sampler.with_grammar(grammar);
            job.ask.ignore_eos = false;
        }
        sampler.begin(job.ask.prompt.tokens());
        let mut pending = Prompt::new();
        pending.extend(job.ask.prompt.as_slice().split_at(cached).1);
        let began = Instant::now();
        let done = Done {
            why: Why::Length,
            prompt_tokens: job.ask.prompt.len(),
            cached_tokens: cached,
            tokens: 0,
            waited: began.duration_since(job.asked),
            prompt_time: Duration::ZERO,
            decode_time: Duration::ZERO,
        };
        Some(Work {
            stops: Stops::new(std::mem::take(&mut job.ask.stop)),
            job,
            pending,
            number,
            sampler,
            decoder: StreamDecoder::new(),
            done,
            began,
            first: None,
        })
    }

    /// Is the prompt read?
    pub(super) fn writes(&self) -> bool {
        self.done.tokens > 0
    }

    /// Is whoever asked still there?
    pub(super) fn is_wanted(&self) -> bool {
        !self.job.events.is_closed()
    }

    /// Are the logits of all of the prompt wanted?
    pub(super) fn scores(&self) -> bool {
        self.job.ask.score_prompt && !self.writes()
    }

    /// Tells the probabilities of tokens of the prompt; `logits`: those before each of them,
    /// `[tokens, vocab]`.
    ///
    /// # Errors
    /// When a logit is no number.
    pub(super) fn score(&self, tokens: &[u32], logits: &[f32]) -> Result<(), RuntimeError> {
        if tokens.is_empty() {
            return Ok(());
        }
        let top = self.job.ask.log_probs.unwrap_or(0);
        let rows = tokens.par_iter().zip(logits.par_chunks_exact(logits.len() / tokens.len()));
        let scored = rows.map(|(&token, row)| LogProbs::new(row, token, top).map(|p| (token, p)));
        for drawn in scored.collect::<Result<Vec<_>, _>>()? {
            self.job.tell(Event::Piece(Piece { text: String::new(), drawn: Some(drawn) }));
        }
        Ok(())
    }

    /// Goes on by the next token, drawn from these logits. Says whether the answer is over; `room`:
    /// positions of the sequence that are free.
    pub(super) fn draw(&mut self, model: &Model, logits: &[f32], room: usize) -> bool {
        if self.job.ask.limit == 0 {
            self.done.prompt_time = self.began.elapsed();
            return self.close(Why::Length);
        }
        let drawn = self.sampler.sample(logits).and_then(|token| {
            let top = self.job.ask.log_probs;
            Ok((token, top.map(|n| LogProbs::new(logits, token, n)).transpose()?))
        });
        match drawn {
            Ok((token, log_probs)) => self.accept(model, token, log_probs, room),
            Err(e) => self.fail(&e.into()),
        }
    }

    /// Goes on by the next token. Says whether the answer is over.
    pub(super) fn accept(
        &mut self,
        model: &Model,
        token: u32,
        log_probs: Option<LogProbs>,
        room: usize,
    ) -> bool {
        let tokenizer = model.tokenizer();
        let first = *self.first.get_or_insert_with(Instant::now);
        self.done.prompt_time = first.duration_since(self.began);
        self.sampler.accept(token);
        if tokenizer.is_eos(token) && !self.job.ask.ignore_eos {
            return self.end(Why::Stop);
        }
        self.done.tokens += 1;
        let (text, stops) = self.stops.push(&self.decoder.push(tokenizer, token));
        let drawn = log_probs.map(|log_probs| (token, log_probs));
        if !text.is_empty() || drawn.is_some() {
            self.job.tell(Event::Piece(Piece { text, drawn }));
        }
        if stops {
            return self.close(Why::Stop);
        }
        if self.done.tokens >= self.job.ask.limit || room == 0 {
            return self.end(Why::Length);
        }
        self.pending = vec![token].into();
        false
    }

    /// The answer is over: what was held back is text, but for a text that ends it.
    fn end(&mut self, why: Why) -> bool {
        let (mut text, stops) = self.stops.push(&self.decoder.finish());
        text += &self.stops.finish();
        if !text.is_empty() {
            self.job.tell(Event::Piece(Piece { text, drawn: None }));
        }
        self.close(if stops { Why::Stop } else { why })
    }

    fn close(&mut self, why: Why) -> bool {
        self.done.why = why;
        self.done.decode_time = self.first.map_or(Duration::ZERO, |first| first.elapsed());
        self.job.tell(Event::Done(self.done.clone()));
        true
    }

    /// The answer is over, as it can't go on.
    pub(super) fn fail(&mut self, e: &RuntimeError) -> bool {
        let failure = match e {
            RuntimeError::Sampling(SamplingError::Grammar(e)) => Failure::Form(e.to_string()),
            e => Failure::Model(e.to_string()),
        };
        self.job.tell(Event::Failed(failure));
        true
    }
}
