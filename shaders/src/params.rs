//! The structs that kernels take, each written once: the macro makes the Rust struct, its fields'
//! offsets, and the WGSL text of the same struct. `tests/` has naga compute WGSL's layout of that
//! text and compares.

use bytemuck::{Pod, Zeroable};

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $ty:ident,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
            #[repr(C)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $ty,)*
            }

            impl $name {
                /// The struct in WGSL.
                pub const WGSL: &'static str = concat!(
                    "struct ", stringify!($name), " {",
                    $(stringify!($field), ": ", stringify!($ty), ", ",)*
                    "}"
                );
                /// Name and byte offset of each field.
                pub const FIELDS: &'static [(&'static str, usize)] =
                    &[$((stringify!($field), std::mem::offset_of!($name, $field)),)*];
            }
        )*

        /// Every struct: name, size in bytes, fields, WGSL text.
        #[allow(clippy::type_complexity)]
        pub const ALL: &[(&str, usize, &[(&str, usize)], &str)] =
            &[$((stringify!($name), size_of::<$name>(), $name::FIELDS, $name::WGSL),)*];
    };
}

params! {
    /// What changes from pass to pass: how many rows there are and where they begin.
    Pass {
        /// Rows.
        n: u32,
        /// The first row of the input.
        first: u32,
        /// Parts that attention splits the positions into.
        splits: u32,
        /// Nothing: uniform structs are multiples of 16 bytes.
        unused: u32,
    }
    /// One row of a batch.
    Row {
        /// Its sequence.
        seq: u32,
        /// Its position.
        pos: u32,
        /// It sees positions before this one.
        end: u32,
        /// Its place in the batch.
        place: u32,
    }
    /// A matrix, or a shard of one: `y = x · Wᵀ`.
    Mat {
        /// Output features of this shard.
        rows: u32,
        /// 16-byte pieces in a row.
        pieces: u32,
        /// Groups of four floats from one row of `x` to the next.
        x_stride: u32,
        /// Floats from one row of `y` to the next.
        y_stride: u32,
        /// Where this shard's features begin in a row of `y`.
        y_offset: u32,
        /// The first row of the whole matrix that is in this shard.
        first_row: u32,
        /// Results become `c · tanh(y / c)`, where not 0; for embeddings the factor √hidden.
        scale: f32,
        /// A power of two: in f16, weights are kept times this, so that the largest is about 1.
        factor: f32,
    }
    /// Root mean square norms over rows.
    Norm {
        /// Features of a row.
        cols: u32,
        /// Groups of four floats from one row to the next.
        stride: u32,
        /// ε
        eps: f32,
        /// Nothing.
        unused: u32,
    }
    /// A layer's queries, keys and values on their way to attention.
    Rope {
        /// Query heads.
        heads: u32,
        /// Key and value heads.
        kv_heads: u32,
        /// Slots of each head and sequence in the cache.
        slots: u32,
        /// Which of the two tables of angles.
        table: u32,
        /// ε of the norms.
        eps: f32,
        /// Queries are multiplied by this.
        query_scale: f32,
        /// Nothing.
        unused0: u32,
        /// Nothing.
        unused1: u32,
    }
    /// Rows of floats, as a vision tower has them.
    Rows {
        /// Features of a row.
        cols: u32,
        /// Floats from one row to the next.
        stride: u32,
        /// ε
        eps: f32,
        /// Nothing.
        unused: u32,
    }
    /// The best of many items.
    Top {
        /// Items.
        count: u32,
        /// How many of each slice.
        k: u32,
        /// Nothing.
        unused0: u32,
        /// Nothing.
        unused1: u32,
    }
    /// Whole layers in one dispatch.
    Whole {
        /// Features of a row of x.
        cols: u32,
        /// Layers.
        layers: u32,
        /// Is there something to be added to x before the first, from a layer before it?
        residual: u32,
        /// Only find out how many workgroups run at the same time.
        probe: u32,
        /// ε of all norms.
        eps: f32,
        /// Queries are multiplied by this.
        query_scale: f32,
        /// Scores become `c · tanh(s / c)`, where not 0.
        softcap: f32,
        /// Nothing.
        unused: u32,
    }
    /// One of these layers.
    Stage {
        /// Slots of each head and sequence in the cache.
        slots: u32,
        /// A row sees so many positions, itself included; 0 for all.
        window: u32,
        /// Which of the two tables of angles.
        table: u32,
        /// By it, values are known to be there (`WholeLayer::phases`).
        phase: u32,
        /// Where its rows in the cache begin.
        cache_row: u32,
        /// Nothing.
        unused0: u32,
        /// Nothing.
        unused1: u32,
        /// Nothing.
        unused2: u32,
    }
    /// A layer's attention.
    Attend {
        /// Query heads.
        heads: u32,
        /// Key and value heads.
        kv_heads: u32,
        /// Slots of each head and sequence in the cache.
        slots: u32,
        /// A row sees so many positions, itself included; 0 for all.
        window: u32,
        /// Floats from one row of the output to the next.
        stride: u32,
        /// Scores become `c · tanh(s / c)`, where not 0.
        softcap: f32,
        /// Nothing.
        unused0: u32,
        /// Nothing.
        unused1: u32,
    }
}
