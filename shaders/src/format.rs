//! How numbers lie in device buffers.

/// How a weight matrix lies on the device: rows of 16-byte pieces, and for the quantized ones a
/// second plane with their scales: f16, two in a `u32`, or for the K types what [`Format::scales`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Single precision, 4 in a piece.
    F32,
    /// Half precision, 8 in a piece.
    F16,
    /// bfloat16, 8 in a piece.
    Bf16,
    /// A block's nibbles in a piece: weight `j` in the low half of byte `j`, `j + 16` in the high.
    Q4_0,
    /// Half a block's bytes in a piece.
    Q8_0,
    /// 32 nibbles in a piece, as in Q4_0, but from 0 on; they are multiplied by a scale, then a minimum is added.
    Q4K,
    /// A K type or IQ4_XS as signed bytes, 16 in a piece with a scale and a minimum, which is the same for both
    /// pieces of 32 weights.
    KBytes,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 7] = [
        Format::F32,
        Format::F16,
        Format::Bf16,
        Format::Q4_0,
        Format::Q8_0,
        Format::Q4K,
        Format::KBytes,
    ];

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::F16 => "f16",
            Format::Bf16 => "bf16",
            Format::Q4_0 => "q4_0",
            Format::Q8_0 => "q8_0",
            Format::Q4K => "q4_k",
            Format::KBytes => "k_bytes",
        }
    }

    /// Weights in a 16-byte piece.
    pub fn piece(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::Bf16 => 8,
            Format::Q8_0 | Format::KBytes => 16,
            Format::Q4_0 | Format::Q4K => 32,
        }
    }

    /// Is there a plane of scales?
    pub fn scaled(self) -> bool {
        self.symmetric() || self.is_k()
    }

    /// Is a weight an integer times its block's scale, and nothing else? Such are multiplied in bytes by many
    /// rows as well, and by whole layers.
    pub fn symmetric(self) -> bool {
        matches!(self, Format::Q4_0 | Format::Q8_0)
    }

    /// Has it the scales of the K types?
    pub fn is_k(self) -> bool {
        matches!(self, Format::Q4K | Format::KBytes)
    }

    /// 16-bit words of scales for `cols` weights, a multiple of 32, or for the K types of 256.
    ///
    /// Those of 256 weights of a K type are two f16, by which scales and minimums are multiplied, then a pair of signed
    /// bytes for each piece: its scale and its minimum.
    pub fn scales(self, cols: usize) -> usize {
        match self {
            _ if self.is_k() => cols / 256 * (2 + 256 / self.piece()),
            _ if self.scaled() => cols / 32,
            _ => 0,
        }
    }

    /// The function that multiplies a piece by bytes.
    pub(crate) fn products(self) -> &'static str {
        match self {
            Format::Q4_0 => include_str!("../wgsl/products_q4_0.wgsl"),
            Format::Q8_0 | Format::KBytes => include_str!("../wgsl/products_q8_0.wgsl"),
            Format::Q4K => include_str!("../wgsl/products_q4_k.wgsl"),
            _ => panic!("{} has no blocks", self.name()),
        }
    }

    /// The function that takes scales into account after that.
    pub(crate) fn product(self) -> &'static str {
        match self.is_k() {
            true => include_str!("../wgsl/product_k.wgsl"),
            false => include_str!("../wgsl/product_plain.wgsl"),
        }
    }

    /// The function that makes signed bytes of it, for products of bytes of many rows.
    pub(crate) fn bytes(self) -> &'static str {
        match self {
            Format::Q4_0 => include_str!("../wgsl/bytes_q4_0.wgsl"),
            Format::Q8_0 => include_str!("../wgsl/bytes_q8_0.wgsl"),
            _ => panic!("{} has no blocks", self.name()),
        }
    }

    /// The function that decodes it to half precision.
    pub(crate) fn half(self) -> &'static str {
        match self {
            Format::Q4_0 => include_str!("../wgsl/half_q4_0.wgsl"),
            Format::Q8_0 => include_str!("../wgsl/half_q8_0.wgsl"),
            Format::Q4K => include_str!("../wgsl/half_q4_k.wgsl"),
            Format::KBytes => include_str!("../wgsl/half_k_bytes.wgsl"),
            _ => include_str!("../wgsl/half_other.wgsl"),
        }
    }

    /// The functions that make weights of what was decoded and its scale.
    pub(crate) fn scale(self) -> &'static str {
        match self.is_k() {
            true => include_str!("../wgsl/scale_k.wgsl"),
            false => include_str!("../wgsl/scale_plain.wgsl"),
        }
    }

    /// The functions that decode it.
    pub(crate) fn wgsl(self) -> &'static str {
        match self {
            Format::F32 => include_str!("../wgsl/decode_f32.wgsl"),
            Format::F16 => include_str!("../wgsl/decode_f16.wgsl"),
            Format::Bf16 => include_str!("../wgsl/decode_bf16.wgsl"),
            Format::Q4_0 => include_str!("../wgsl/decode_q4_0.wgsl"),
            Format::Q8_0 => include_str!("../wgsl/decode_q8_0.wgsl"),
            Format::Q4K => include_str!("../wgsl/decode_q4_k.wgsl"),
            Format::KBytes => include_str!("../wgsl/decode_k_bytes.wgsl"),
        }
    }
}

/// How keys and values lie on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheFormat {
    /// Half precision, two in a `u32`.
    F16,
    /// Single precision.
    F32,
    /// Int8, and after a head's features the f16 scales of its blocks of 32, padded to 8 bytes.
    Q8_0,
}

impl CacheFormat {
    /// Every one.
    pub const ALL: [CacheFormat; 3] = [CacheFormat::F16, CacheFormat::F32, CacheFormat::Q8_0];

    /// Can heads of so many features be kept in it?
    pub fn takes(self, head_dim: usize) -> bool {
        self != CacheFormat::Q8_0 || head_dim.is_multiple_of(32)
    }

    /// Bytes of one head's key or value.
    pub fn row_bytes(self, head_dim: usize) -> usize {
        let pad = head_dim.next_multiple_of(crate::HEAD_PAD);
        match self {
            CacheFormat::F16 => pad * 2,
            CacheFormat::F32 => pad * 4,
            CacheFormat::Q8_0 => pad + (pad / 32 * 2).next_multiple_of(8),
        }
    }

    /// What the buffers are arrays of where they are read.
    pub(crate) fn element(self) -> &'static str {
        match self {
            CacheFormat::F16 | CacheFormat::F32 => "array<vec4<u32>>",
            CacheFormat::Q8_0 => "array<vec2<u32>>",
        }
    }

    /// The functions that read it.
    pub(crate) fn wgsl(self) -> &'static str {
        match self {
            CacheFormat::F16 => include_str!("../wgsl/cache_f16.wgsl"),
            CacheFormat::F32 => concat!(
                include_str!("../wgsl/cache_f32.wgsl"),
                include_str!("../wgsl/cache_opened.wgsl")
            ),
            CacheFormat::Q8_0 => concat!(
                include_str!("../wgsl/cache_q8_0.wgsl"),
                include_str!("../wgsl/cache_opened.wgsl")
            ),
        }
    }

    /// The functions that write it.
    pub(crate) fn store(self) -> &'static str {
        match self {
            CacheFormat::F16 => include_str!("../wgsl/store_f16.wgsl"),
            CacheFormat::F32 => include_str!("../wgsl/store_f32.wgsl"),
            CacheFormat::Q8_0 => include_str!("../wgsl/store_q8_0.wgsl"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            CacheFormat::F16 => "cache_f16",
            CacheFormat::F32 => "cache_f32",
            CacheFormat::Q8_0 => "cache_q8_0",
        }
    }
}
