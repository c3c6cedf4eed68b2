//! Keys and values of past positions, for many sequences.
//!
//! A global layer holds one slot per position. A sliding layer holds a ring: position `p` lies in
//! slot `p % capacity`, with room for the window and for one batch more, so that a whole batch can
//! be stored before any of its rows attends.

mod layout;

use crate::config::GemmaConfig;
use crate::cpu::shared::SharedBuf;
use crate::error::RuntimeError;
use layout::Layout;

/// Bytes of a segment of the cache, at least; small in tests, so that theirs have several.
const SEGMENT: usize = if cfg!(test) { 1 } else { layout::SEGMENT };

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// Half precision.
    #[default]
    F16,
    /// Single precision: for comparing with a reference.
    F32,
    /// Int8 blocks of 32 with an f16 scale (the blocks of GGUF's Q8_0).
    Q8_0,
}

impl KvType {
    /// Bytes of one head's key or value; `head_dim` is already padded.
    fn row_bytes(self, head_dim: usize) -> usize {
        match self {
            KvType::F32 => head_dim * 4,
            KvType::F16 => head_dim * 2,
            KvType::Q8_0 => head_dim / 32 * 34,
        }
    }
}

/// Heads are padded to a multiple of this many features, with zeros, so that vectors need no tails.
pub(crate) const HEAD_PAD: usize = 16;

/// Which of the two rows of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyOrValue {
    Key,
    Value,
}

/// The cache of a session.
pub struct KvCache {
    pub(crate) kv_type: KvType,
    pub(crate) row_bytes: usize,
    pub(crate) head_pad: usize,
    pub(crate) kv_heads: usize,
    /// Keys and values of all layers.
    pub(crate) memory: SharedBuf<u8>,
    layout: Layout,
    windows: Vec<Option<usize>>,
    context: usize,
    /// Per sequence: positions stored, and the highest number of positions it ever had since it was
    /// last emptied (what a ring has overwritten depends on that).
    seqs: Vec<(usize, usize)>,
}

impl KvCache {
    /// A cache of `seqs` sequences of up to `context` positions, for batches of up to `batch` rows.
    ///
    /// Memory is reserved here and taken from the system only as positions are filled.
    ///
    /// # Errors
    /// [`RuntimeError::KvType`] or [`RuntimeError::Memory`].
    pub fn new(
        config: &GemmaConfig,
        kv_type: KvType,
        seqs: usize,
        context: usize,
        batch: usize,
    ) -> Result<Self, RuntimeError> {
        if kv_type == KvType::Q8_0 && !config.head_dim.is_multiple_of(32) {
            return Err(RuntimeError::KvType { head_dim: config.head_dim });
        }
        let head_pad = config.head_dim.next_multiple_of(HEAD_PAD);
        let row_bytes = kv_type.row_bytes(head_pad);
        let windows: Vec<_> = config.layers.iter().map(|l| l.window).collect();
        let slots = |w: &Option<usize>| w.map_or(context, |w| w.saturating_add(batch).min(context));
        let slots: Vec<_> = windows.iter().map(slots).collect();
        let layout = Layout::new(&slots, config.kv_heads, row_bytes, SEGMENT);
        let bytes = layout.as_ref().and_then(|l| l.seq_bytes().checked_mul(seqs));
        let memory = bytes.and_then(SharedBuf::zeroed);
        let (Some(layout), Some(memory)) = (layout, memory) else {
            let bytes = bytes.unwrap_or(usize::MAX);
            return Err(RuntimeError::Memory { what: "the KV cache", bytes });
        };
        Ok(KvCache {
            kv_type,
            row_bytes,
            head_pad,
            kv_heads: config.kv_heads,
            memory,
            layout,
            windows,
            context,
            seqs: vec![(0, 0); seqs],
        })
    }

    /// How keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Positions that a sequence can hold.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.seqs.len()
    }

    /// Positions stored of a sequence.
    pub fn len(&self, seq: usize) -> usize {
        self.seqs[seq].0
    }

    /// Is nothing stored of a sequence?
    pub fn is_empty(&self, seq: usize) -> bool {
        self.len(seq) == 0
    }

    /// Bytes that the cache takes when every slot is filled.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// Bytes of keys and values that a token at `position` reads.
    pub fn bytes_read(&self, position: usize) -> usize {
        let seen = |w: &Option<usize>| w.map_or(position + 1, |w| w.min(position + 1));
        self.windows.iter().map(seen).sum::<usize>() * self.kv_heads * self.row_bytes * 2
    }

    /// Forgets the positions of a sequence from `len` on. Where a ring no longer holds what the
    /// positions before `len` would need, everything is forgotten. Returns what is left.
    pub fn truncate(&mut self, seq: usize, len: usize) -> usize {
        let left = self.kept(seq, len);
        self.seqs[seq] = if left == 0 { (0, 0) } else { (left, self.seqs[seq].1) };
        left
    }

    /// What [`KvCache::truncate`] would leave.
    pub fn kept(&self, seq: usize, len: usize) -> usize {
        let (now, high) = self.seqs[seq];
        if len >= now {
            return now;
        }
        let intact = self.rings().all(|(window, slots)| {
            // The next position sees `window - 1` before it; the ring holds the last `slots` of
            // the `high` positions ever written.
            high <= slots || (len + 1).saturating_sub(window) >= high - slots
        });
        if intact { len } else { 0 }
    }

    /// Has sequence `to` hold the first `len` positions of `from`, which must be
    /// [`kept`](KvCache::kept), in place of what it held.
    ///
    /// # Panics
    /// When there are no such sequences.
    pub(crate) fn copy(&mut self, from: usize, to: usize, len: usize) {
        assert!(from < self.seqs.len() && to < self.seqs.len(), "{from} to {to}");
        debug_assert_eq!(self.kept(from, len), len);
        if from == to {
            return;
        }
        let high = self.seqs[from].1;
        self.seqs[to] = (len, high);
        let bytes = self.memory.get_mut();
        for layer in 0..self.windows.len() {
            for head in 0..self.kv_heads {
                // Of a ring that has gone round, all of it.
                let slots = self.layout.slots(layer);
                let (mut pos, end) = (0, if high <= slots { len } else { slots });
                while pos < end {
                    let n = self.layout.run(layer, pos).min(end - pos);
                    for part in [0, self.layout.to_value()] {
                        let [from, to] =
                            [from, to].map(|seq| self.layout.key(layer, seq, head, pos) + part);
                        bytes.copy_within(from..from + n * self.row_bytes, to);
                    }
                    pos += n;
                }
            }
        }
    }

    /// Positions from `len` on that may be stored though they may not stay: none that `len` itself, or a
    /// batch from there on, would see is lost by that.
    #[cfg(feature = "gpu")]
    pub(crate) fn spare(&self, len: usize) -> usize {
        let rings = self.rings().filter(|&(_, slots)| slots < self.context);
        let spare = rings.map(|(window, slots)| slots - window);
        spare.min().unwrap_or(usize::MAX).min(self.context - len)
    }

    /// Says that a sequence now holds `len` positions.
    pub(crate) fn set_len(&mut self, seq: usize, len: usize) {
        let (_, high) = self.seqs[seq];
        self.seqs[seq] = (len, high.max(len));
    }

    /// Window and slots of each sliding layer.
    fn rings(&self) -> impl Iterator<Item = (usize, usize)> {
        let layers = self.windows.iter().enumerate();
        layers.filter_map(|(layer, window)| Some(((*window)?, self.slots(layer))))
    }

    /// Positions that a layer holds.
    pub(crate) fn slots(&self, layer: usize) -> usize {
        self.layout.slots(layer)
    }

    /// Where in the memory the row of `pos` is, of the keys or the values.
    pub(crate) fn offset(
        &self,
        layer: usize,
        of: KeyOrValue,
        seq: usize,
        head: usize,
        pos: usize,
    ) -> usize {
        let key = self.layout.key(layer, seq, head, pos);
        key + if of == KeyOrValue::Value { self.layout.to_value() } else { 0 }
    }

    /// How many positions from `pos` on have rows one after the other.
    pub(crate) fn run(&self, layer: usize, pos: usize) -> usize {
        self.layout.run(layer, pos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Arch, LayerConfig, Rope};

    fn config() -> GemmaConfig {
        let rope = Rope { base: 1e4, scale: 1.0 };
        GemmaConfig {
            arch: Arch::Gemma3,
            hidden: 64,
            ffn: 64,
            heads: 2,
            kv_heads: 1,
            head_dim: 32,
            context_length: 1000,
            rms_eps: 1e-6,
            embed_scale: 8.0,
            query_scale: 1.0,
            attn_softcap: None,
            final_softcap: None,
            qk_norm: true,
            layers: vec![
                LayerConfig { window: Some(10), rope },
                LayerConfig { window: None, rope },
            ],
        }
    }

    #[test]
    fn rings_are_small_and_wrap() {
        let c = KvCache::new(&config(), KvType::F16, 2, 1000, 4).unwrap();
        assert_eq!((c.slots(0), c.slots(1)), (14, 1000));
        let key = |layer, pos| c.offset(layer, KeyOrValue::Key, 0, 0, pos);
        assert_eq!(key(0, 15), key(0, 1));
        assert_ne!(key(1, 15), key(1, 1));
        // In whole segments of 32 slots.
        assert_eq!(c.bytes(), 2 * 2 * (32 + 1024) * 64);
    }

    #[test]
    fn truncation_keeps_what_the_rings_still_hold() {
        let mut c = KvCache::new(&config(), KvType::F16, 1, 1000, 4).unwrap();
        c.set_len(0, 14);
        assert_eq!(c.truncate(0, 2), 2, "nothing was overwritten yet");
        c.set_len(0, 100);
        // Position 95 sees 86..=95, and the ring holds 86..100.
        assert_eq!(c.truncate(0, 95), 95);
        // Position 94 would see 85, which is gone.
        assert_eq!(c.truncate(0, 94), 0);
        assert_eq!(c.truncate(0, 0), 0);
    }

    /// Every row that is copied is in the other sequence, none of a third is touched, and as much can be
    /// forgotten of the copy.
    #[test]
    fn copies_hold_what_was_held() {
        for (held, len) in [(1, 1), (13, 9), (14, 14), (40, 40), (100, 97), (100, 100)] {
            let mut c = KvCache::new(&config(), KvType::F16, 3, 1000, 4).unwrap();
            c.memory.get_mut().iter_mut().zip(0u32..).for_each(|(b, i)| *b = (i % 251) as u8);
            c.set_len(0, held);
            c.set_len(1, 500);
            let before = c.memory.get().to_vec();
            c.copy(0, 1, len);
            let after = c.memory.get().to_vec();
            assert_eq!((c.len(1), c.kept(1, len / 2)), (len, c.kept(0, len / 2)));
            for (layer, pos) in (0..2).flat_map(|l| (0..len).map(move |p| (l, p))) {
                if pos + c.slots(layer) < held {
                    continue; // overwritten since
                }
                for of in [KeyOrValue::Key, KeyOrValue::Value] {
                    let row = |bytes: &[u8], seq| {
                        let at = c.offset(layer, of, seq, 0, pos);
                        bytes[at..at + c.row_bytes].to_vec()
                    };
                    assert_eq!(row(&after, 1), row(&before, 0), "{len}: {layer} {pos}");
                    assert_eq!(row(&after, 0), row(&before, 0));
                    assert_eq!(row(&after, 2), row(&before, 2));
                }
            }
        }
    }

    #[test]
    fn q8_0_needs_whole_blocks() {
        let mut c = config();
        c.head_dim = 48;
        assert!(KvCache::new(&c, KvType::Q8_0, 1, 10, 1).is_err());
        assert!(KvCache::new(&c, KvType::F32, 1, 10, 1).is_ok());
        assert!(matches!(
            KvCache::new(&c, KvType::F32, 1, usize::MAX, 1),
            Err(RuntimeError::Memory { .. })
        ));
    }
}
