//! Which instruction sets there are, which of them this CPU has, and the tokens that prove it.
//!
//! A token ([`Avx512Vnni`], …) can only be made by detection, so whoever holds one may call the
//! `#[target_feature]` functions of that set: that is the whole safety argument of the kernels'
//! entry points.

use std::fmt;

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Portable Rust: the oracle, and the last resort.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C: `vpmaddubsw` stands in for the missing int8 dot product.
    Avx2,
    /// The same with 256-bit `vpdpbusd`: AVX-VNNI (Alder Lake, Zen 5 and later), or its AVX-512 form.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI (Cascade Lake, Ice Lake, Zen 4 and later).
    /// VBMI is not asked for: the blocks' quants lie at even offsets, so that word permutes do.
    Avx512Vnni,
    /// The same with AVX-512 BF16 and VBMI and a matrix unit that multiplies bf16 (AMX: Sapphire Rapids and later), for
    /// many tokens.
    AmxBf16,
    /// 64-bit Arm with `sdot`/`udot` (Armv8.2 dotprod).
    NeonDotprod,
    /// 64-bit Arm with `smmla`/`usdot` (Armv8.6 i8mm) besides.
    NeonI8mm,
}

impl Isa {
    /// All of them, best first within an architecture.
    pub const ALL: [Isa; 7] = [
        Isa::AmxBf16,
        Isa::Avx512Vnni,
        Isa::AvxVnni,
        Isa::Avx2,
        Isa::NeonI8mm,
        Isa::NeonDotprod,
        Isa::Scalar,
    ];

    /// Lower-case name, as [`Isa::from_name`] reads it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::AmxBf16 => "amx-bf16",
            Isa::NeonDotprod => "neon-dotprod",
            Isa::NeonI8mm => "neon-i8mm",
        }
    }

    /// The set with this name.
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Those that this CPU runs, best first; the last is always [`Isa::Scalar`].
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|&isa| Active::new(isa).is_some()).collect()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Declares a token: a zero-sized proof that the listed features were detected.
macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $detect:ident, [$($feature:tt),+]) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(());

        impl $name {
            /// The token, if this CPU (and its operating system) has the features.
            pub fn new() -> Option<Self> {
                ($(std::arch::$detect!($feature))&&+).then_some(Self(()))
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod tokens {
    use std::arch::x86_64::__cpuid;

    use crate::kernels::cache::made_by;

    token!(
        /// Proof of AVX2, FMA and F16C.
        Avx2, is_x86_feature_detected, ["avx2", "fma", "f16c"]
    );
    /// How a CPU encodes 256-bit `vpdpbusd`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::kernels) enum Encoding {
        /// As AVX-VNNI has it.
        Vex,
        /// As AVX-512 VNNI with VL has it.
        Evex,
    }

    /// Proof of AVX2, FMA, F16C and 256-bit `vpdpbusd` in the encoding that it names.
    #[derive(Clone, Copy, Debug)]
    pub struct AvxVnni(Encoding);

    impl AvxVnni {
        /// The token, if this CPU (and its operating system) has the features.
        pub fn new() -> Option<Self> {
            Avx2::new()?;
            AvxVnni::all().next()
        }

        /// Those of both encodings, as far as this CPU has them.
        pub(in crate::kernels) fn all() -> impl Iterator<Item = Self> {
            let vex = is_x86_feature_detected!("avxvnni");
            let evex =
                is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl");
            let all = [(vex, Encoding::Vex), (evex, Encoding::Evex)];
            all.into_iter().filter(|(there, _)| *there).map(|(_, encoding)| AvxVnni(encoding))
        }

        pub(in crate::kernels) fn encoding(self) -> Encoding {
            self.0
        }
    }

    /// How many strips of rows a tile of many tokens has, and how few tokens go through the weights.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::kernels) enum Tiling {
        /// One, and as many tokens as the registers hold: the fewest instructions.
        OneStrip,
        /// Two, which share what is read of the tokens: the fewest reads.
        TwoStrips,
    }

    impl Tiling {
        /// What suits this CPU. Zen 5 multiplies 512 bits twice a cycle and reads them no more often than that, so
        /// that reads are what its tiles wait for; Zen 4 multiplies once, and Intel's cores wait for instructions.
        fn detect() -> Self {
            // AMD's Processor Programming References: the family is the sum of two fields of CPUID 1.
            let signature = __cpuid(1).eax;
            let family = (signature >> 8 & 0xF) + (signature >> 20 & 0xFF);
            match made_by(b"AuthenticAMD") && family >= 0x1A {
                true => Tiling::TwoStrips,
                false => Tiling::OneStrip,
            }
        }

        /// Do two to four tokens go through the weights row by row, as one does? A tenth faster than strips of
        /// rows on a Zen 5. Not measured elsewhere; where one token reads four rows side by side, registers
        /// would be short.
        pub(in crate::kernels) fn has_rows_for_few(self) -> bool {
            self == Tiling::TwoStrips
        }
    }

    /// Proof of AVX-512 F, BW, DQ, VL and VNNI (and of AVX2, FMA and F16C), with the tiling that suits this CPU.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx512Vnni(Tiling);

    impl Avx512Vnni {
        /// The token, if this CPU (and its operating system) has the features.
        pub fn new() -> Option<Self> {
            Avx2::new()?;
            let there = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            there.then(|| Avx512Vnni(Tiling::detect()))
        }

        pub(in crate::kernels) fn tiling(self) -> Tiling {
            self.0
        }

        /// The same with another tiling: every CPU runs both.
        #[cfg(test)]
        pub(in crate::kernels) fn with_tiling(self, tiling: Tiling) -> Self {
            Avx512Vnni(tiling)
        }
    }

    /// Proof of AMX with BF16 that this process may use, and of AVX-512 BF16 and VBMI besides
    /// [`Avx512Vnni`].
    #[derive(Clone, Copy, Debug)]
    pub struct AmxBf16(Avx512Vnni);

    impl AmxBf16 {
        /// The token, if this CPU has the features, and the operating system lets the process use them.
        pub fn new() -> Option<Self> {
            let avx512 = Avx512Vnni::new()?;
            let more =
                is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vbmi");
            (more && crate::kernels::amx::available()).then_some(AmxBf16(avx512))
        }

        /// It includes AVX-512 with VNNI.
        pub fn avx512(self) -> Avx512Vnni {
            self.0
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod tokens {
    token!(
        /// Proof of NEON with the int8 dot products.
        NeonDotprod, is_aarch64_feature_detected, ["neon", "dotprod"]
    );
    token!(
        /// Proof of NEON with the int8 dot and matrix products.
        NeonI8mm, is_aarch64_feature_detected, ["neon", "dotprod", "i8mm"]
    );
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub use tokens::*;

#[cfg(target_arch = "x86_64")]
impl AvxVnni {
    /// It includes AVX2.
    pub fn avx2(self) -> Avx2 {
        Avx2::new().expect("AVX-VNNI was detected together with AVX2")
    }
}

/// An instruction set together with the proof that it is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Active {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    AmxBf16(AmxBf16),
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(NeonDotprod),
    #[cfg(target_arch = "aarch64")]
    NeonI8mm(NeonI8mm),
}

impl Active {
    pub(super) fn new(isa: Isa) -> Option<Active> {
        match isa {
            Isa::Scalar => Some(Active::Scalar),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::new().map(Active::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => AvxVnni::new().map(Active::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => Avx512Vnni::new().map(Active::Avx512Vnni),
            #[cfg(target_arch = "x86_64")]
            Isa::AmxBf16 => AmxBf16::new().map(Active::AmxBf16),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => NeonDotprod::new().map(Active::NeonDotprod),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => NeonI8mm::new().map(Active::NeonI8mm),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }

    pub(super) fn isa(self) -> Isa {
        match self {
            Active::Scalar => Isa::Scalar,
            #[cfg(target_arch = "x86_64")]
            Active::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Active::AvxVnni(_) => Isa::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            Active::Avx512Vnni(_) => Isa::Avx512Vnni,
            #[cfg(target_arch = "x86_64")]
            Active::AmxBf16(_) => Isa::AmxBf16,
            #[cfg(target_arch = "aarch64")]
            Active::NeonDotprod(_) => Isa::NeonDotprod,
            #[cfg(target_arch = "aarch64")]
            Active::NeonI8mm(_) => Isa::NeonI8mm,
        }
    }

    /// The same without a matrix unit: for what is done with vectors.
    pub(super) fn vectors(self) -> Active {
        match self {
            #[cfg(target_arch = "x86_64")]
            Active::AmxBf16(isa) => Active::Avx512Vnni(isa.avx512()),
            other => other,
        }
    }

    /// The next best set on this CPU: what a format is multiplied with that this set has no kernel
    /// for. `None` after scalar, which has them all.
    pub(super) fn next(self) -> Option<Active> {
        let isa = match self.isa() {
            Isa::AmxBf16 => Isa::Avx512Vnni,
            Isa::Avx512Vnni | Isa::AvxVnni => Isa::Avx2,
            Isa::NeonI8mm => Isa::NeonDotprod,
            Isa::Avx2 | Isa::NeonDotprod => Isa::Scalar,
            Isa::Scalar => return None,
        };
        Active::new(isa).or(Some(Active::Scalar))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()), Some(isa));
        }
        assert_eq!(Isa::from_name("sse2"), None);
    }

    #[test]
    fn every_set_falls_back_to_scalar() {
        for isa in Isa::available() {
            let mut active = Active::new(isa).expect("available");
            assert_eq!(active.isa(), isa);
            for _ in 0..Isa::ALL.len() {
                active = active.next().unwrap_or(active);
            }
            assert_eq!(active.isa(), Isa::Scalar);
        }
    }
}
