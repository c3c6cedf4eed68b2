//! How numbers lie in device buffers.

/// How a weight matrix lies on the device: rows of 16-byte pieces, and for the quantized ones a
/// second plane with their f16 scales, two in a `u32`.
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
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 5] =
        [Format::F32, Format::F16, Format::Bf16, Format::Q4_0, Format::Q8_0];

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::F16 => "f16",
            Format::Bf16 => "bf16",
            Format::Q4_0 => "q4_0",
            Format::Q8_0 => "q8_0",
        }
    }

    /// Weights in a 16-byte piece.
    pub fn piece(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::Bf16 => 8,
            Format::Q8_0 => 16,
            Format::Q4_0 => 32,
        }
    }

    /// Is there a plane of scales, one for 32 weights?
    pub fn scaled(self) -> bool {
        matches!(self, Format::Q4_0 | Format::Q8_0)
    }

    /// The function that multiplies a piece by bytes.
    pub(crate) fn products(self) -> &'static str {
        match self {
            Format::Q4_0 => include_str!("../wgsl/products_q4_0.wgsl"),
            Format::Q8_0 => include_str!("../wgsl/products_q8_0.wgsl"),
            _ => panic!("{} has no blocks", self.name()),
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
            _ => include_str!("../wgsl/half_other.wgsl"),
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
