//! Attention's share of a thread's work: who goes over which part of the cache.
//!
//! SAFETY of the shared accesses: as in [`worker`](super::worker).

use std::ops::Range;

use super::ahead::Between;
use super::attention::Attention;
use super::worker::Worker;
use crate::kv_cache::KeyOrValue;
use crate::weights::Layer;

/// Query rows that go over the cache together, when there are many: keys and values are prepared once for
/// them all, but threads want several claims each.
const QUERIES: [usize; 2] = [64, 256];
/// Bytes of keys, and of values, that are asked for while the matmul before attention ends.
const AHEAD: usize = 16 << 10;
/// Claims that a thread finds, where there are more rows than that.
const CLAIMS: usize = 4;

impl Worker<'_> {
    /// The positions that batch row `row` sees in this layer: its own the last, unless it is part
    /// of an image. A window ends with the row's own position there too; what it sees of the image
    /// after that comes on top (Transformers: AND(window, OR(causal, same image))).
    pub(super) fn sees(&self, row: usize, layer: &Layer) -> Range<usize> {
        let after = self.pass.batch.rows[row].pos + 1;
        let from = layer.config.window.map_or(0, |w| after.saturating_sub(w));
        from..self.pass.batch.sees_to(row)
    }

    /// The positions of a row that this thread goes over, where threads share them.
    pub(super) fn part(&self, sees: &Range<usize>) -> Range<usize> {
        let step = sees.len().div_ceil(self.cpu.threads).next_multiple_of(32);
        let from = (sees.start + self.index * step).min(sees.end);
        from..(from + step).min(sees.end)
    }

    /// What this thread begins attention with, for the first row.
    pub(super) fn before_attention(&self, layer: &Layer) -> Between {
        let Some(&row) = self.active.first() else { return Between::default() };
        let (cache, part) = (self.pass.cache, self.part(&self.sees(row, layer)));
        let rows = part.len().min(cache.run(layer.index, part.start)).min(AHEAD / cache.row_bytes);
        let first = |of| {
            let seq = self.pass.batch.rows[row].seq;
            let from = cache.offset(layer.index, of, seq, 0, part.start);
            cache.memory.place(from..from + rows * cache.row_bytes)
        };
        Between::default().with(first(KeyOrValue::Key)).with(first(KeyOrValue::Value))
    }

    /// Few rows: every thread takes a part of the cache for each row and KV head, then the parts
    /// are put together.
    pub(super) fn attend_split(&mut self, layer: &Layer) {
        let c = self.pass.config;
        let (pad, group, threads) =
            (self.pass.cache.head_pad, c.heads / c.kv_heads, self.cpu.threads);
        let part = pad + 2;
        for (t, &row) in self.active.iter().enumerate() {
            let sees = self.sees(row, layer);
            let range = self.part(&sees);
            for kv_head in 0..c.kv_heads {
                self.visible.clear();
                self.visible.resize(group, sees.clone());
                let at = (row * c.heads + kv_head * group) * pad;
                let q = match self.pass.batch.rows.len() {
                    1 => &self.queries[at..at + group * pad], // its own, all of them
                    // SAFETY: queries were written before the last barrier.
                    _ => unsafe { self.cpu.shared.q.read(at..at + group * pad) },
                };
                let job = Attention {
                    cache: self.pass.cache,
                    layer: layer.index,
                    seq: self.pass.batch.rows[row].seq,
                    kv_head,
                    q,
                    visible: self.visible,
                    range: range.clone(),
                    softcap: c.attn_softcap,
                };
                job.run(&self.cpu.kernels, self.attention);
                for g in 0..group {
                    let at = ((t * c.heads + kv_head * group + g) * threads + self.index) * part;
                    // SAFETY: this thread's own part.
                    let out = unsafe { self.cpu.shared.parts.write(at..at + part) };
                    out[..pad].copy_from_slice(&self.attention.acc[g * pad..][..pad]);
                    out[pad] = self.attention.sum[g];
                    out[pad + 1] = self.attention.max[g];
                }
            }
        }
        self.cpu.barrier.wait();
        for t in self.my_rows() {
            // SAFETY: parts were written before the barrier; row t is this thread's.
            let (parts, a) = unsafe {
                let at = t * c.heads * threads * part;
                (
                    self.cpu.shared.parts.read(at..at + c.heads * threads * part),
                    self.rows.a.write(t * c.q_dim()..(t + 1) * c.q_dim()),
                )
            };
            for (parts, out) in
                parts.chunks_exact(threads * part).zip(a.chunks_exact_mut(c.head_dim))
            {
                merge(parts, pad, out);
            }
        }
    }

    /// Many rows: threads claim blocks of queries, and each goes over all that its block sees.
    pub(super) fn attend_blocks(&mut self, layer: &Layer) {
        let c = self.pass.config;
        let (pad, group) = (self.pass.cache.head_pad, c.heads / c.kv_heads);
        let rows = self.active.len() * c.heads / (self.cpu.threads * CLAIMS);
        let tokens = (rows.clamp(QUERIES[0], QUERIES[1]) / group).max(1);
        let mut blocks: Vec<Range<usize>> = Vec::new();
        for (t, &row) in self.active.iter().enumerate() {
            let seq = self.pass.batch.rows[row].seq;
            match blocks.last_mut() {
                Some(b)
                    if b.len() < tokens
                        && self.pass.batch.rows[self.active[b.start]].seq == seq =>
                {
                    b.end = t + 1;
                }
                _ => blocks.push(t..t + 1),
            }
        }
        // The last blocks see the most: hand them out first, so that threads finish together.
        for claim in self.claim(blocks.len() * c.kv_heads, 1).flatten() {
            let block = blocks[blocks.len() - 1 - claim / c.kv_heads].clone();
            let kv_head = claim % c.kv_heads;
            self.queries.clear();
            self.visible.clear();
            for t in block.clone() {
                let row = self.active[t];
                let at = (row * c.heads + kv_head * group) * pad;
                // SAFETY: queries were written before the last barrier.
                self.queries
                    .extend_from_slice(unsafe { self.cpu.shared.q.read(at..at + group * pad) });
                let sees = self.sees(row, layer);
                self.visible.resize(self.visible.len() + group, sees);
            }
            let from = self.visible.iter().map(|v| v.start).min().unwrap_or(0);
            let to = self.visible.iter().map(|v| v.end).max().unwrap_or(0);
            let job = Attention {
                cache: self.pass.cache,
                layer: layer.index,
                seq: self.pass.batch.rows[self.active[block.start]].seq,
                kv_head,
                q: self.queries,
                visible: self.visible,
                range: from..to,
                softcap: c.attn_softcap,
            };
            job.run(&self.cpu.kernels, self.attention);
            for (i, t) in block.enumerate() {
                let at = t * c.q_dim() + kv_head * group * c.head_dim;
                // SAFETY: these rows and heads belong to the claim.
                let a = unsafe { self.rows.a.write(at..at + group * c.head_dim) };
                for (g, out) in a.chunks_exact_mut(c.head_dim).enumerate() {
                    let r = i * group + g;
                    let inv = 1.0 / self.attention.sum[r];
                    for (o, v) in out.iter_mut().zip(&self.attention.acc[r * pad..]) {
                        *o = v * inv;
                    }
                }
            }
        }
        self.cpu.barrier.wait();
    }
}

/// Puts together what the threads found of one head: each part is `pad` sums, then Σe and max.
fn merge(parts: &[f32], pad: usize, out: &mut [f32]) {
    let parts = parts.chunks_exact(pad + 2);
    let max = parts.clone().fold(f32::NEG_INFINITY, |m, p| m.max(p[pad + 1]));
    let weight = |p: &[f32]| if p[pad] > 0.0 { (p[pad + 1] - max).exp() } else { 0.0 };
    let total: f32 = parts.clone().map(|p| p[pad] * weight(p)).sum();
    out.fill(0.0);
    for p in parts {
        let w = weight(p) / total;
        if w > 0.0 {
            out.iter_mut().zip(p).for_each(|(o, v)| *o += w * v);
        }
    }
}
