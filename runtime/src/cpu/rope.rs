//! Queries, keys and values between their projections and attention: norms, RoPE, the cache.
//!
//! SAFETY of the shared accesses: as in [`worker`](super::worker).

use quant::DType;

use super::ops;
use super::worker::Worker;
use crate::kv_cache::{KeyOrValue, KvType};
use crate::weights::Layer;

impl Worker<'_> {
    /// Of several rows: the threads share the heads of them all, and wait for each other.
    pub(super) fn rope_store_shared(&mut self, layer: &Layer) {
        let (c, cache) = (self.pass.config, self.pass.cache);
        let (hd, pad) = (c.head_dim, cache.head_pad);
        let per_row = c.heads + 2 * c.kv_heads;
        let mut padded = std::mem::take(self.queries);
        padded.clear();
        padded.resize(pad, 0.0);
        for item in self.share(self.active.len() * per_row) {
            let (t, head) = (item / per_row, item % per_row);
            if head < c.heads {
                let at = (t * c.heads + head) * pad;
                // SAFETY: this row and head are this thread's item.
                self.turn(layer, t, head, unsafe { self.cpu.shared.q.write(at..at + hd) });
            } else {
                self.store(layer, t, head - c.heads, &mut padded);
            }
        }
        *self.queries = padded;
        self.cpu.barrier.wait();
    }

    /// Of a single token: every thread makes all queries for itself, and the one that goes over the newest part of
    /// the cache stores key and value there. Nobody waits for that.
    pub(super) fn rope_store_alone(&mut self, layer: &Layer) {
        let (c, pad) = (self.pass.config, self.pass.cache.head_pad);
        let mut queries = std::mem::take(self.queries);
        queries.clear();
        queries.resize((c.heads + 1) * pad, 0.0);
        let (of_heads, padded) = queries.split_at_mut(c.heads * pad);
        for (head, out) in of_heads.chunks_exact_mut(pad).enumerate() {
            self.turn(layer, 0, head, &mut out[..c.head_dim]);
        }
        if self.part(&self.sees(0, layer)).contains(&self.pass.batch.rows[0].pos) {
            for head in 0..2 * c.kv_heads {
                self.store(layer, 0, head, padded);
            }
        }
        *self.queries = queries;
    }

    /// Writes one head of row `t` as attention wants it, with its norm and rotated: a query or, behind them, a key;
    /// a value, behind those, as it is.
    fn turn(&self, layer: &Layer, t: usize, head: usize, out: &mut [f32]) {
        let (c, hd) = (self.pass.config, self.pass.config.head_dim);
        let (at, table) = (
            (t * (c.heads + 2 * c.kv_heads) + head) * hd,
            (t * 2 + self.cpu.rope_of_layer[layer.index]) * hd,
        );
        // SAFETY: projections and angles were written before the last barrier.
        let (from, angles) = unsafe {
            (self.cpu.shared.qkv.read(at..at + hd), self.cpu.shared.angles.read(table..table + hd))
        };
        let is_q = head < c.heads;
        match &layer.qk_norm {
            Some((q, k)) if head < c.heads + c.kv_heads => {
                let weight = if is_q { q } else { k };
                ops::rms_norm(&self.cpu.kernels, from, weight, c.rms_eps, out);
            }
            _ => out.copy_from_slice(from),
        }
        if head < c.heads + c.kv_heads {
            let (cos, sin) = angles.split_at(hd / 2);
            ops::rope(out, cos, sin, if is_q { c.query_scale } else { 1.0 });
        }
    }

    /// Stores a key of row `t`, or, behind the keys, a value; `padded` has `head_pad` numbers, zeros where no
    /// head has any.
    fn store(&self, layer: &Layer, t: usize, head: usize, padded: &mut [f32]) {
        let (c, cache, row) = (self.pass.config, self.pass.cache, self.pass.batch.rows[t]);
        self.turn(layer, t, c.heads + head, &mut padded[..c.head_dim]);
        let of = if head < c.kv_heads { KeyOrValue::Key } else { KeyOrValue::Value };
        let at = cache.offset(layer.index, of, row.seq, head % c.kv_heads, row.pos);
        // SAFETY: each row of the cache is one item of `rope_store`'s split; that of a single token is in the
        // part of one thread, which alone reads it until there was a barrier.
        let out = unsafe { cache.memory.write(at..at + cache.row_bytes) };
        match cache.kv_type {
            KvType::F16 => ops::to_f16(&self.cpu.kernels, padded, out),
            KvType::F32 => out.copy_from_slice(bytemuck::cast_slice(padded)),
            KvType::Q8_0 => quant::codec::encode_row(DType::Q8_0, padded, out),
        }
    }
}
