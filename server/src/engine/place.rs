//! In which sequence of the cache an answer is written.

use runtime::Session;

use super::Ask;
use super::slot::Slot;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In this slot, with so many positions of what `from` holds.
    At { slot: usize, from: usize, keep: usize },
    /// Not yet: a prompt that begins alike is being read.
    Later,
}

/// So many positions more are worth waiting for.
const WORTH: usize = 64;

/// The place for an answer; `None` when no slot is free.
///
/// A conversation that goes on is found by what its slot holds. Another one takes the slot that was used
/// the longest ago, and has what it shares with any of them (instructions, say) copied from there.
pub(super) fn place(slots: &[Slot], session: &Session, ask: &Ask) -> Option<Place> {
    let rest = ask.prompt.as_slice();
    // The last position's logits are needed, or those of all.
    let most = if ask.score_prompt || !ask.reuse { 0 } else { rest.len() - 1 };
    let held = |seq: usize| {
        let common = slots[seq].cached.as_slice().common(rest);
        let keep = rest.whole(common.min(most));
        if session.cache().kept(seq, keep) == keep { keep } else { 0 }
    };
    let free = || (0..slots.len()).filter(|&seq| slots[seq].work.is_none());
    let oldest = free().min_by_key(|&seq| slots[seq].used)?;
    let (own, kept) = free().map(|seq| (seq, held(seq))).max_by_key(|&(_, kept)| kept)?;
    // It goes on where most of it is, and what is lost of another conversation can't be much.
    let goes_on = kept > 0 && 2 * kept >= slots[own].cached.len();
    let (from, keep) = match session.copies() {
        true => (0..slots.len()).map(|seq| (seq, held(seq))).max_by_key(|&(_, kept)| kept)?,
        false => (oldest, held(oldest)),
    };
    let at = match goes_on && kept >= keep {
        true => Place::At { slot: own, from: own, keep: kept },
        false => Place::At { slot: oldest, from, keep },
    };
    let soon = || {
        let reading = slots.iter().filter_map(|slot| Some((slot, slot.work.as_ref()?)));
        let reading = reading.filter(|(_, work)| !work.writes());
        let common = reading.map(|(_, work)| work.job.ask.prompt.as_slice().common(rest));
        rest.whole(common.max().unwrap_or(0).min(most))
    };
    let now = if let Place::At { keep, .. } = at { keep } else { 0 };
    if session.copies() && soon() >= now + WORTH {
        return Some(Place::Later);
    }
    Some(at)
}
