//! Prompt in, text out: the loop around forward pass, sampler and decoder.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::RuntimeError;
use crate::sampler::Sampler;
use crate::session::Session;
use crate::tokenizer::StreamDecoder;

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model said that it is done.
    Eos,
    /// As many tokens as were asked for.
    Limit,
    /// The context is full.
    ContextFull,
    /// The caller stopped it.
    Cancelled,
}

/// What a call of [`Generator::generate`] did.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The new tokens, the one that ended the answer left out.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
    /// Tokens of the prompt that were computed.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that the cache already held.
    pub reused_tokens: usize,
    /// Time spent on the prompt, up to the first token.
    pub prompt_time: Duration,
    /// Time spent after the first token.
    pub decode_time: Duration,
}

/// A session with one sequence, which remembers what the cache holds: a prompt that begins like
/// the last one (a conversation that went on) costs only its new tokens.
pub struct Generator {
    session: Session,
    cached: Vec<u32>,
}

impl Generator {
    /// Takes a session whose sequence 0 is empty.
    pub fn new(session: Session) -> Self {
        Generator { session, cached: Vec::new() }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Reads `prompt` (token ids, BOS included), then generates up to `limit` tokens. `piece` gets
    /// the text as it comes, never half a character, and can end the generation.
    ///
    /// # Errors
    /// Those of [`Session::append`] and of the sampler. When `cancel` becomes true the outcome is
    /// [`Stop::Cancelled`], not an error.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        sampler: &mut Sampler,
        limit: usize,
        cancel: &AtomicBool,
        mut piece: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated, RuntimeError> {
        let start = Instant::now();
        let model = self.session.model().clone();
        let (tokenizer, context) = (model.tokenizer(), self.session.cache().context());
        if prompt.len() > context {
            return Err(RuntimeError::ContextFull { needed: prompt.len(), capacity: context });
        }
        let reused = self.rewind(prompt);
        let mut done = Generated {
            tokens: Vec::new(),
            stop: Stop::Limit,
            prompt_tokens: prompt.len() - reused,
            reused_tokens: reused,
            prompt_time: Duration::ZERO,
            decode_time: Duration::ZERO,
        };
        sampler.forget();
        prompt.iter().for_each(|&t| sampler.accept(t));

        let mut decoder = StreamDecoder::new();
        let mut pending: Vec<u32> = prompt[reused..].to_vec();
        while done.tokens.len() < limit {
            if cancel.load(Ordering::Relaxed) {
                done.stop = Stop::Cancelled;
                break;
            }
            if self.cached.len() + pending.len() > context {
                done.stop = Stop::ContextFull;
                break;
            }
            let logits = match self.session.append(0, &pending, cancel) {
                Ok(logits) => logits,
                Err(RuntimeError::Cancelled) => {
                    // Whole batches were read: remember which.
                    let read = self.session.cache().len(0) - self.cached.len();
                    self.cached.extend_from_slice(&pending[..read]);
                    done.stop = Stop::Cancelled;
                    break;
                }
                Err(e) => return Err(e),
            };
            let next = sampler.sample(logits)?;
            self.cached.extend_from_slice(&pending);
            if done.prompt_time.is_zero() {
                done.prompt_time = start.elapsed();
            }
            sampler.accept(next);
            if tokenizer.is_eos(next) {
                done.stop = Stop::Eos;
                break;
            }
            done.tokens.push(next);
            pending.clear();
            pending.push(next);
            let text = decoder.push(tokenizer, next);
            if !text.is_empty() && piece(&text).is_break() {
                done.stop = Stop::Cancelled;
                break;
            }
        }
        let text = decoder.finish();
        if !text.is_empty() {
            let _ = piece(&text);
        }
        done.decode_time = start.elapsed().saturating_sub(done.prompt_time);
        Ok(done)
    }

    /// Cuts the cache back to what it has in common with `prompt`, at least one token short of it
    /// (the last token's logits are needed). Returns how many tokens are left.
    fn rewind(&mut self, prompt: &[u32]) -> usize {
        let common = self.cached.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let keep = common.min(prompt.len().saturating_sub(1));
        let left = self.session.truncate(0, keep);
        self.cached.truncate(left);
        left
    }
}
