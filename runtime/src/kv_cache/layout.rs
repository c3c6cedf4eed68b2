//! Where the rows of a cache lie in its memory.
//!
//! `[seq][segment][layer][keys, values][kv_head][slot]`: what all layers keep of some neighbouring slots lies
//! together, in a segment of a few large pages. A short context then lies in few pages, whatever its model's
//! number of layers, and a cache takes memory from the system as it is filled, in pages of any size.

/// The fewest slots of a segment: as many positions as attention takes at once.
const SLOTS: usize = 32;
/// Bytes that a segment has at least, where slots are small: a large page.
pub(super) const SEGMENT: usize = 2 << 20;

/// See the module.
pub(super) struct Layout {
    row_bytes: usize,
    /// Slots of a segment, a power of two.
    slots: usize,
    /// Bytes of a layer's keys in one segment, as well as of its values.
    part: usize,
    layers: Vec<Place>,
    /// Bytes of a segment's layers that have all slots; they come first.
    whole: usize,
    /// Bytes of its rings, which only the first [`Layout::with_rings`] segments have.
    rings: usize,
    with_rings: usize,
    /// Bytes of a sequence.
    seq: usize,
}

#[derive(Clone, Copy)]
struct Place {
    /// Slots of the layer.
    slots: usize,
    /// Bytes from the begin of a segment to its keys.
    at: usize,
}

impl Layout {
    /// For layers with so many slots, none of them without, and rows of `row_bytes` bytes for each of `kv_heads`
    /// keys and values, in segments of at least `segment` bytes. `None` where that is more than an address can say.
    pub(super) fn new(
        slots_of: &[usize],
        kv_heads: usize,
        row_bytes: usize,
        segment: usize,
    ) -> Option<Self> {
        let most = slots_of.iter().copied().max()?;
        let head = row_bytes.checked_mul(kv_heads)?;
        let slot = head.checked_mul(2)?.checked_mul(slots_of.len())?;
        let slots = segment.div_ceil(slot.max(1)).max(SLOTS).next_power_of_two();
        let slots = slots.min(most.checked_next_power_of_two()?);
        let part = head.checked_mul(slots)?;
        let layer = part.checked_mul(2)?;
        let all = slots_of.iter().filter(|&&s| s == most).count();
        let whole = all.checked_mul(layer)?;
        let (mut next_whole, mut next_ring) = (0, whole);
        let layers = slots_of.iter().map(|&slots| {
            let next = if slots == most { &mut next_whole } else { &mut next_ring };
            let place = Place { slots, at: *next };
            *next = next.checked_add(layer)?;
            Some(place)
        });
        let layers = layers.collect::<Option<Vec<_>>>()?;
        let rings = next_ring - whole;
        let ring = slots_of.iter().copied().filter(|&s| s < most).max().unwrap_or(0);
        let with_rings = ring.div_ceil(slots);
        let seq = whole.checked_mul(most.div_ceil(slots))?;
        let seq = seq.checked_add(rings.checked_mul(with_rings)?)?;
        Some(Layout { row_bytes, slots, part, layers, whole, rings, with_rings, seq })
    }

    /// Bytes of one sequence.
    pub(super) fn seq_bytes(&self) -> usize {
        self.seq
    }

    /// Slots of a layer.
    pub(super) fn slots(&self, layer: usize) -> usize {
        self.layers[layer].slots
    }

    /// Where the key of `pos` is; the value is [`Layout::to_value`] further on.
    pub(super) fn key(&self, layer: usize, seq: usize, head: usize, pos: usize) -> usize {
        let place = self.layers[layer];
        let slot = pos % place.slots;
        let (segment, slot) = (slot / self.slots, slot % self.slots);
        seq * self.seq
            + segment * self.whole
            + segment.min(self.with_rings) * self.rings
            + place.at
            + (head * self.slots + slot) * self.row_bytes
    }

    /// Bytes from a key to its value.
    pub(super) fn to_value(&self) -> usize {
        self.part
    }

    /// How many positions from `pos` on lie one after the other.
    pub(super) fn run(&self, layer: usize, pos: usize) -> usize {
        let slots = self.layers[layer].slots;
        let slot = pos % slots;
        (slots - slot).min(self.slots - slot % self.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of every layer, sequence and head is somewhere of its own, inside; runs are runs.
    #[test]
    fn rows_have_places_of_their_own() {
        // Alone, with rings, with rings of two kinds; segments of 32 slots (large rows), and of all.
        for (slots_of, heads, row) in [
            (vec![40; 3], 2, 64),
            (vec![14, 100, 14], 1, 64),
            (vec![70, 40, 100, 100], 2, 16 << 10),
            (vec![1], 1, 2),
        ] {
            let layout = Layout::new(&slots_of, heads, row, SEGMENT).unwrap();
            let seqs = 2;
            let mut taken = vec![false; seqs * layout.seq_bytes() / row];
            for (layer, &slots) in slots_of.iter().enumerate() {
                assert_eq!(layout.slots(layer), slots);
                for (seq, head) in (0..seqs).flat_map(|s| (0..heads).map(move |h| (s, h))) {
                    for pos in 0..slots {
                        let key = layout.key(layer, seq, head, pos);
                        assert_eq!(key, layout.key(layer, seq, head, pos + slots), "rings wrap");
                        for at in [key, key + layout.to_value()] {
                            assert_eq!(at % row, 0);
                            assert!(!std::mem::replace(&mut taken[at / row], true));
                        }
                        let run = layout.run(layer, pos);
                        assert!(run >= 1 && pos + run <= slots);
                        let last = layout.key(layer, seq, head, pos + run - 1);
                        assert_eq!(last, key + (run - 1) * row);
                    }
                }
            }
        }
    }

    /// What is filled first lies in front, in few pages.
    #[test]
    fn a_short_context_lies_together() {
        // Gemma 3 1B: 26 layers, every sixth of them global.
        let slots_of: Vec<_> = (1..=26).map(|l| if l % 6 == 0 { 32768 } else { 1024 }).collect();
        let layout = Layout::new(&slots_of, 1, 512, SEGMENT).unwrap();
        let ends = (0..26).map(|l| layout.key(l, 0, 0, 127) + layout.to_value() + 512);
        assert_eq!(ends.max().unwrap(), 26 * 2 * 128 * 512);
        assert_eq!(layout.seq_bytes(), 2 * 512 * (22 * 1024 + 4 * 32768));
    }

    #[test]
    fn what_no_address_can_say() {
        assert!(Layout::new(&[usize::MAX], 1, 64, SEGMENT).is_none());
        assert!(Layout::new(&[1 << 50, 10], 1 << 10, 1 << 10, SEGMENT).is_none());
    }
}
