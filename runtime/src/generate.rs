//! Prompt in, text out: the loop around forward pass, sampler and decoder.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::RuntimeError;
use crate::lookup::Lookup;
use crate::prompt::{Prompt, PromptSlice};
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

/// What is known of the next token.
enum Next<'a> {
    /// It, drawn.
    Token(u32),
    /// The logits after the last token that is no draft, and after each that is.
    Logits(&'a [f32]),
}

/// Appends `pending`, whose end is `draft`. After one token, without drafts, a GPU helps to choose the
/// next one.
fn next<'s>(
    session: &'s mut Session,
    sampler: &mut Sampler,
    pending: &Prompt,
    draft: &[u32],
    drafts: bool,
    cancel: &AtomicBool,
) -> Result<Next<'s>, RuntimeError> {
    let alone = !drafts && pending.as_slice().images().next().is_none();
    if let (true, [token]) = (alone, pending.tokens())
        && let Some(next) = session.draw_next(0, *token, sampler, cancel)?
    {
        return Ok(Next::Token(next));
    }
    session.append_tail(0, pending, draft.len() + 1, cancel).map(Next::Logits)
}

/// A session with one sequence, which remembers what the cache holds: a prompt that begins like
/// the last one (a conversation that went on) costs only its new tokens.
pub struct Generator {
    session: Session,
    cached: Prompt,
    lookup: Option<Lookup>,
}

impl Generator {
    /// Takes a session whose sequence 0 is empty.
    pub fn new(session: Session) -> Self {
        Generator { session, cached: Prompt::new(), lookup: None }
    }

    /// Drafts tokens by [`Lookup`]: the same text, sooner where it repeats what was said.
    pub fn with_lookup(mut self) -> Self {
        self.lookup = Some(Lookup::default());
        self
    }

    /// Tokens drafted so far, and how many of them were right.
    pub fn lookup_counts(&self) -> Option<(usize, usize)> {
        self.lookup.as_ref().map(Lookup::counts)
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Reads `prompt` (token ids, BOS included, and images), then generates up to `limit` tokens.
    /// `piece` gets the text as it comes, never half a character, and can end the generation.
    ///
    /// # Errors
    /// Those of [`Session::append`] and of the sampler. When `cancel` becomes true the outcome is
    /// [`Stop::Cancelled`], not an error.
    pub fn generate<'p>(
        &mut self,
        prompt: impl Into<PromptSlice<'p>>,
        sampler: &mut Sampler,
        limit: usize,
        cancel: &AtomicBool,
        mut piece: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated, RuntimeError> {
        let start = Instant::now();
        let prompt = prompt.into();
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
        sampler.begin(prompt.tokens());

        let vocab = model.weights().vocab();
        let mut decoder = StreamDecoder::new();
        // Tokens to go through the model next, the draft at their end.
        let mut pending = Prompt::new();
        pending.extend(prompt.split_at(reused).1);
        let mut draft: Vec<u32> = Vec::new();
        'answer: while done.tokens.len() < limit {
            if cancel.load(Ordering::Relaxed) {
                done.stop = Stop::Cancelled;
                break;
            }
            if self.cached.len() + pending.len() > context {
                done.stop = Stop::ContextFull;
                break;
            }
            let (rows, pass) = (pending.len(), Instant::now());
            let drafts = self.lookup.is_some();
            let next = match next(&mut self.session, sampler, &pending, &draft, drafts, cancel) {
                Ok(next) => next,
                Err(RuntimeError::Cancelled) => {
                    // Whole batches were read: remember which. (Fewer than before, where they had
                    // to be read again.)
                    let len = self.session.cache().len(0);
                    match len.checked_sub(self.cached.len()) {
                        Some(read) => self.cached.extend(pending.as_slice().split_at(read).0),
                        None => self.cached.truncate(len),
                    }
                    done.stop = Stop::Cancelled;
                    break;
                }
                Err(e) => return Err(e),
            };
            let took = pass.elapsed();
            if done.prompt_time.is_zero() {
                done.prompt_time = start.elapsed();
            }
            // What follows the token before the draft, then as long as the draft was right, what
            // follows each of its tokens.
            pending.truncate(pending.len() - draft.len());
            self.cached.extend(&pending);
            pending.truncate(0);
            let mut right = 0;
            let last = loop {
                let next = match &next {
                    Next::Token(token) => *token,
                    Next::Logits(logits) => sampler.sample(&logits[right * vocab..][..vocab])?,
                };
                sampler.accept(next);
                if tokenizer.is_eos(next) {
                    done.stop = Stop::Eos;
                    break None;
                }
                done.tokens.push(next);
                let text = decoder.push(tokenizer, next);
                if !text.is_empty() && piece(&text).is_break() {
                    done.stop = Stop::Cancelled;
                    break None;
                }
                if done.tokens.len() >= limit || draft.get(right) != Some(&next) {
                    break Some(next);
                }
                self.cached.push(next);
                right += 1;
            };
            if let Some(lookup) = self.lookup.as_mut().filter(|_| rows == draft.len() + 1) {
                lookup.learn(draft.len(), right, took);
            }
            self.session.truncate(0, self.cached.len());
            let Some(next) = last else { break 'answer };
            pending.push(next);
            draft.clear();
            if let Some(lookup) = &mut self.lookup {
                let free = context.saturating_sub(self.cached.len() + 1);
                // The draft and the token before it are one batch.
                let batch = self.session.cpu().max_rows() - 1;
                let room = free.min(limit - done.tokens.len()).min(batch);
                self.cached.push(next);
                lookup.draft(self.cached.tokens(), room, &mut draft);
                self.cached.truncate(self.cached.len() - 1);
                pending.extend(&draft);
            }
        }
        let text = decoder.finish();
        if !text.is_empty() {
            let _ = piece(&text);
        }
        done.decode_time = start.elapsed().saturating_sub(done.prompt_time);
        Ok(done)
    }

    /// Cuts the cache back to what it has in common with `prompt`, at least one position short of
    /// it (the last one's logits are needed), before an image rather than within it. Returns how
    /// many positions are left.
    fn rewind(&mut self, prompt: PromptSlice<'_>) -> usize {
        let common = self.cached.as_slice().common(prompt);
        let keep = prompt.whole(common.min(prompt.len().saturating_sub(1)));
        let left = self.session.truncate(0, keep);
        self.cached.truncate(left);
        left
    }
}
