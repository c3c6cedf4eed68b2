//! Which rows go through the model together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use runtime::{Batch, Prompt, PromptSlice, Row, RuntimeError, Session};

use super::place::{Place, place};
use super::slot::{Slot, Work};
use super::{Event, Failure, Job, Order, Shared};

/// Seconds that a pass with a part of a prompt takes while others write, about, by what the last one took: they
/// wait so long for their next token.
const WAIT: f64 = 0.25;
/// Rows in such a pass at least: fewer take longer each.
const FEWEST: usize = 32;
/// More than any batch has.
const MOST: usize = 1 << 20;
/// Rows in such a pass when nothing is known yet.
const FIRST: usize = 128;

/// The state of the engine's thread.
pub(super) struct Schedule {
    session: Session,
    slots: Vec<Slot>,
    queue: VecDeque<Job>,
    orders: Receiver<Order>,
    shared: Arc<Shared>,
    batch: Batch,
    /// Rows of prompts in a batch while others write.
    beside: usize,
    /// Answers begun, and ended.
    begun: u64,
    ended: u64,
}

/// So many rows of a prompt whose logits are all wanted: 64 MiB of them in a vocabulary of 262144.
const SCORED: usize = 64;

/// So many rows of a sequence are in the batch.
struct Share {
    seq: usize,
    rows: usize,
    /// The logits of so many of them, the last ones, are wanted.
    wanted: usize,
}

impl Schedule {
    pub(super) fn new(session: Session, orders: Receiver<Order>, shared: Arc<Shared>) -> Self {
        let slots = (0..session.cache().sequences()).map(|_| Slot::default()).collect();
        Schedule {
            session,
            slots,
            queue: VecDeque::new(),
            orders,
            shared,
            batch: Batch::default(),
            beside: FIRST,
            begun: 0,
            ended: 0,
        }
    }

    /// Until it is told to stop, or nobody is left to ask.
    pub(super) fn run(mut self) {
        while self.hear() {
            self.drop_unwanted();
            self.begin();
            self.pass();
        }
        while let Ok(order) = self.orders.try_recv() {
            if let Order::Answer(job) = order {
                self.queue.push_back(*job);
            }
        }
        let working = self.slots.iter_mut().filter_map(|slot| Some(slot.work.take()?.job));
        for job in self.queue.drain(..).chain(working) {
            job.tell(Event::Failed(Failure::Stopping));
        }
    }

    /// Takes what was ordered; waits for it when there is nothing else to do. Says whether to go on.
    fn hear(&mut self) -> bool {
        loop {
            if self.shared.stop.load(Ordering::Relaxed) {
                return false;
            }
            let idle = self.queue.is_empty() && self.slots.iter().all(|slot| slot.work.is_none());
            let order = if idle {
                self.orders.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.orders.try_recv()
            };
            match order {
                Ok(Order::Answer(job)) => self.queue.push_back(*job),
                Ok(Order::Between(work)) => {
                    work();
                    if !idle {
                        // Not two of them in a row: others wait for their next token.
                        return true;
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return !idle,
            }
        }
    }

    /// Ends what nobody waits for any more.
    fn drop_unwanted(&mut self) {
        let before = self.queue.len();
        self.queue.retain(|job| !job.events.is_closed());
        self.shared.waiting.fetch_sub(before - self.queue.len(), Ordering::Relaxed);
        for seq in 0..self.slots.len() {
            if self.slots[seq].work.as_ref().is_some_and(|work| !work.is_wanted()) {
                self.end(seq);
            }
        }
    }

    /// Begins answers, in the order in which they were asked for, as far as there are slots.
    fn begin(&mut self) {
        let mut next = 0;
        while let Some(job) = self.queue.get(next) {
            let Some(place) = place(&self.slots, &self.session, &job.ask) else { return };
            let Place::At { slot, from, keep } = place else {
                next += 1;
                continue;
            };
            let Some(job) = self.queue.remove(next) else { return };
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            let kept = match from == slot {
                true => self.session.truncate(slot, keep),
                false => self.session.copy(from, slot, keep),
            };
            let mut cached = Prompt::new();
            cached.extend(job.ask.prompt.as_slice().split_at(kept).0);
            self.slots[slot].cached = cached;
            self.begun += 1;
            self.slots[slot].work = Work::new(job, kept, self.begun);
            let works = usize::from(self.slots[slot].work.is_some());
            self.shared.busy.fetch_add(works, Ordering::Relaxed);
        }
    }

    /// The answer in a slot is over. What the cache holds of it stays.
    fn end(&mut self, seq: usize) {
        self.ended += 1;
        self.slots[seq].used = self.ended;
        if self.slots[seq].work.take().is_some() {
            self.shared.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes everything that there is to do a step further.
    fn pass(&mut self) {
        if self.alone() {
            return;
        }
        let shares = self.fill();
        if shares.is_empty() {
            return;
        }
        let Schedule { session, slots, batch, beside, .. } = self;
        let (rows, start) = (batch.rows.len(), Instant::now());
        let model = session.model().clone();
        let (vocab, context) = (model.weights().vocab(), session.cache().context());
        let mut over = Vec::new();
        match session.forward(batch) {
            Ok(mut logits) => {
                if rows >= FEWEST {
                    let in_time = rows as f64 * WAIT / start.elapsed().as_secs_f64();
                    *beside = (in_time as usize).clamp(FEWEST, MOST);
                }
                for share in &shares {
                    let slot = &mut slots[share.seq];
                    let Some(work) = &mut slot.work else { continue };
                    let pending = std::mem::take(&mut work.pending);
                    let (read, rest) = pending.as_slice().split_at(share.rows);
                    slot.cached.extend(read);
                    work.pending.extend(rest);
                    let wanted;
                    (wanted, logits) = logits.split_at(share.wanted * vocab);
                    if work.scores() {
                        let after = &pending.tokens()[1..pending.len().min(share.rows + 1)];
                        if let Err(e) = work.score(after, &wanted[..after.len() * vocab]) {
                            work.fail(&e);
                            over.push(share.seq);
                            continue;
                        }
                    }
                    let room = context - slot.cached.len();
                    let last = wanted.len().saturating_sub(vocab);
                    if rest.is_empty() && work.draw(&model, &wanted[last..], room) {
                        over.push(share.seq);
                    }
                }
            }
            Err(e) => {
                for share in &shares {
                    self.fail(share.seq, &e);
                }
            }
        }
        over.into_iter().for_each(|seq| self.end(seq));
    }

    /// A step of the only answer there is, where a GPU can draw the token itself. Says whether there was
    /// one.
    fn alone(&mut self) -> bool {
        let Schedule { session, slots, .. } = self;
        let mut working = slots
            .iter_mut()
            .enumerate()
            .filter_map(|(seq, s)| Some((seq, &mut s.cached, s.work.as_mut()?)));
        let (Some((seq, cached, work)), None) = (working.next(), working.next()) else {
            return false;
        };
        let [token] = *work.pending.tokens() else { return false };
        if !work.writes() || work.job.ask.log_probs.is_some() {
            return false;
        }
        let model = session.model().clone();
        match session.draw_next(seq, token, &mut work.sampler, &AtomicBool::new(false)) {
            Ok(None) => return false,
            Ok(Some(next)) => {
                cached.push(token);
                let room = session.cache().context() - cached.len();
                if work.accept(&model, next, None, room) {
                    self.end(seq);
                }
            }
            Err(e) => self.fail(seq, &e),
        }
        true
    }

    /// What is in a slot can't go on, and what the cache holds of it is not certain.
    fn fail(&mut self, seq: usize, e: &RuntimeError) {
        if let Some(work) = &mut self.slots[seq].work {
            work.fail(e);
        }
        self.end(seq);
        self.session.truncate(seq, 0);
        self.slots[seq] = Slot { used: self.slots[seq].used, ..Slot::default() };
    }

    /// Makes the next batch: a row for each answer that is being written, then as much of the prompts as
    /// there is room for, those that were begun first before others.
    fn fill(&mut self) -> Vec<Share> {
        self.batch.clear();
        let mut working: Vec<_> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(seq, s)| Some((seq, s.work.as_ref()?)))
            .collect();
        working.sort_by_key(|(_, work)| (!work.writes(), work.number));
        let max = self.session.cpu().max_rows();
        let writing = working.iter().filter(|(_, work)| work.writes()).count();
        let aim = if writing == 0 { max } else { max.min(writing + self.beside) };
        let mut shares = Vec::new();
        for (seq, work) in working {
            let pending = work.pending.as_slice();
            let taken = self.batch.rows.len();
            let rows = match pending.whole(aim.saturating_sub(taken)) {
                // An image goes in whole.
                0 => match pending.images().next() {
                    Some((0, image)) if taken < aim && image.len() <= max - taken => image.len(),
                    _ => continue,
                },
                rows => rows,
            };
            let rows = if work.scores() { pending.whole(rows.min(SCORED)) } else { rows };
            let (part, rest) = pending.split_at(rows);
            let wanted = if work.scores() { rows } else { usize::from(rest.is_empty()) };
            let start = self.session.cache().len(seq);
            push(&mut self.batch, part, seq, start, wanted);
            shares.push(Share { seq, rows, wanted });
        }
        shares
    }
}

/// Adds a part of a sequence to a batch; the logits of its last `wanted` rows are.
fn push(batch: &mut Batch, part: PromptSlice<'_>, seq: usize, start: usize, wanted: usize) {
    let mut images = part.images().peekable();
    for (i, &token) in part.tokens().iter().enumerate() {
        batch.push(Row { token, seq, pos: start + i }, i + wanted >= part.len());
        if let Some((_, image)) = images.next_if(|(at, image)| at + image.len() == i + 1) {
            batch.place_image(image.clone());
        }
    }
}
