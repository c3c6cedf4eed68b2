//! What an adapter offers beyond WebGPU's least, and what of it is used.

use std::fmt;

use shaders::{Few, Format, Many, Matmul, Needs, Reduce, WholeLayer};

use super::error::GpuError;

/// The environment variable that says what of an adapter is used.
pub(super) const VARIABLE: &str = "LAPIDARY_GPU_FEATURES";

/// What an adapter offers beyond WebGPU's least, as far as there are kernels for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Smallest and largest subgroup, where operations across one are there.
    pub subgroups: Option<(u32, u32)>,
    /// Arithmetic in half precision.
    pub f16: bool,
    /// Does one instruction multiply four bytes by four and add up (`dot4I8Packed`), as far as the
    /// driver says? Elsewhere it is made of others.
    pub dot4: bool,
    /// Does a workgroup see what another one of the same dispatch stores? Not through DirectX 12, where
    /// naga makes a plain read of `atomicLoad`, which a cache may answer.
    pub messages: bool,
    /// Sides (8, 16) of cooperative matrices that multiply f16 by f16 and add up in f32.
    pub matrices: Vec<u32>,
    /// Invocations that a workgroup may have.
    pub invocations: u32,
    /// Bytes of memory that a workgroup may have.
    pub workgroup_bytes: u32,
    /// Has an invocation 128 registers, where most have twice as many? On Intel's it has.
    pub few_registers: bool,
    /// Is it a piece of hardware?
    pub real: bool,
}

/// What of an adapter is used: which kernels run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Sums of neighbouring invocations are made within subgroups, which have at least so many.
    pub subgroup: Option<u32>,
    /// Many rows are multiplied in bytes where the weights are Q4_0 or Q8_0.
    pub dot4: bool,
    /// Many rows are multiplied from f16 in workgroup memory, except with F32 weights.
    pub f16: bool,
    /// The same, by cooperative matrices of this side in workgroups of so many invocations.
    pub matrix: Option<(u32, u32)>,
    /// A single token's layers are all one dispatch, where that passes a trial and is faster.
    pub layers: bool,
    /// Less is asked for at once, as an invocation has 128 registers.
    pub few_registers: bool,
}

impl Features {
    /// Nothing beyond WebGPU's least.
    pub const PLAIN: Features = Features {
        subgroup: None,
        dot4: false,
        f16: false,
        matrix: None,
        layers: false,
        few_registers: false,
    };

    /// What is used where nobody says otherwise.
    ///
    /// Products of bytes only where the driver says that it has an instruction for them: made of
    /// others they cost more than they save. Cooperative matrices where they pass a trial when the
    /// device is opened.
    pub fn of(offers: &Offers) -> Self {
        Features {
            subgroup: offers.subgroups.map(|(least, _)| least),
            dot4: offers.dot4,
            f16: offers.f16,
            matrix: offers.matrix(),
            // A program that plays a GPU has only a few workgroups at work at the same time.
            layers: offers.real && offers.layers() && offers.dot4,
            few_registers: offers.few_registers,
        }
    }

    /// What `words` asks for: `plain`, or some of `subgroup`, `dot4`, `f16`, `matrix` and `layers` with
    /// commas between them; `auto`, alone or with some of these, for what is used anyway, as nothing at all is.
    ///
    /// # Errors
    /// [`GpuError::Feature`] where a word is none of these, or names what the adapter has not.
    pub fn parse(words: &str, offers: &Offers, device: &str) -> Result<Self, GpuError> {
        let refuse = |word: &str, why: &str| GpuError::Feature {
            device: device.into(),
            word: word.into(),
            why: why.into(),
        };
        let words: Vec<&str> = words.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
        let mut found = match words.is_empty() || words.contains(&"auto") {
            true => Self::of(offers),
            false => Features { few_registers: offers.few_registers, ..Features::PLAIN },
        };
        for &word in &words {
            match word {
                "auto" => {}
                "plain" if words.len() == 1 => {}
                "plain" => return Err(refuse(word, "it stands alone")),
                "subgroup" => match offers.subgroups {
                    Some((least, _)) => found.subgroup = Some(least),
                    None => return Err(refuse(word, "it has no operations across subgroups")),
                },
                "dot4" => found.dot4 = true,
                "f16" if offers.f16 => found.f16 = true,
                "f16" => return Err(refuse(word, "it has no half precision")),
                "matrix" => match offers.matrix() {
                    Some(matrix) => found.matrix = Some(matrix),
                    None => {
                        let why = "it has no cooperative matrices of f16 that add up in f32";
                        return Err(refuse(word, why));
                    }
                },
                "layers" if offers.layers() => found.layers = true,
                "layers" => {
                    let why = match offers.messages {
                        true => "it has no subgroups of 8 or more",
                        false => "its workgroups can't wait for each other",
                    };
                    return Err(refuse(word, why));
                }
                _ => return Err(refuse(word, "there is no such feature")),
            }
        }
        if found.layers && (found.subgroup.is_none() || !found.dot4) {
            return Err(refuse("layers", "it takes subgroup and dot4 as well"));
        }
        Ok(found)
    }

    /// How sums of neighbouring invocations are made.
    pub(crate) fn reduce(self) -> Reduce {
        if self.subgroup.is_some() { Reduce::Subgroup } else { Reduce::Workgroup }
    }

    /// How few rows are multiplied by weights that lie in `format`: in f32 or in bytes.
    pub(crate) fn few(self, format: Format) -> Many {
        if self.dot4 && format.scaled() { Many::Int8 } else { Many::Float }
    }

    /// How a kernel for few rows shares its work out, as far as this device's registers go.
    pub(crate) fn share(self, few: Few) -> Few {
        match self.few_registers {
            true => Few { at_once: few.at_once.min(Few::AT_ONCE_OF_FEW), ..few },
            false => few,
        }
    }

    /// How many rows are multiplied by weights that lie in `format`.
    pub(crate) fn many(self, format: Format) -> Many {
        match self {
            _ if format == Format::F32 => Many::Float,
            Features { matrix: Some((size, workgroup)), .. } => {
                let tile = (Matmul::TILE, Matmul::TILE);
                Many::Matrix { size: size as usize, workgroup: workgroup as usize, tile }
            }
            Features { dot4: true, .. } if format.symmetric() => Many::Int8,
            Features { f16: true, .. } => Many::Half,
            _ => Many::Float,
        }
    }

    /// What kernels may need of a device opened for this.
    pub(super) fn needs(self) -> Needs {
        let matrices = self.matrix.is_some();
        Needs {
            subgroups: self.subgroup.is_some() || matrices,
            f16: self.f16 || matrices,
            matrices,
        }
    }
}

impl Offers {
    /// What a whole layer in one dispatch asks for.
    fn layers(&self) -> bool {
        let large = |(least, _)| least as usize >= WholeLayer::SUBGROUP;
        self.messages && self.subgroups.is_some_and(large)
    }

    /// The largest matrices, and workgroups of four subgroups for them: one for each quarter of a
    /// tile. Where subgroups turn out smaller some are idle, which is not wrong.
    fn matrix(&self) -> Option<(u32, u32)> {
        let (_, largest) = self.subgroups.filter(|_| self.f16)?;
        let size = *self.matrices.iter().max()?;
        let workgroup = (4 * largest).clamp(64, 256).min(self.invocations);
        // Two tiles of 64 rows of 40 halves and four matrices of results; for those of 16 the largest
        // kernel is attention's with heads of 256.
        let bytes = if size == 8 { 2 * 64 * 40 * 2 + 4 * 64 * 4 } else { 32768 };
        (bytes <= self.workgroup_bytes).then_some((size, workgroup))
    }
}

impl fmt::Display for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subgroups {
            Some((least, most)) if least == most => write!(f, "subgroups of {least}, ")?,
            Some((least, most)) => write!(f, "subgroups of {least} to {most}, ")?,
            None => write!(f, "no subgroup operations, ")?,
        }
        write!(f, "{}, ", if self.f16 { "f16" } else { "no f16" })?;
        let dot4 = if self.dot4 { "products of bytes" } else { "no products of bytes" };
        write!(f, "{dot4}, ")?;
        match &self.matrices[..] {
            [] => write!(f, "no cooperative matrices"),
            sides => {
                let sides: Vec<_> = sides.iter().map(|s| format!("{s} × {s}")).collect();
                write!(f, "cooperative matrices of {}", sides.join(" and "))
            }
        }
    }
}

impl fmt::Display for Features {
    /// As [`Features::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            ("subgroup", self.subgroup.is_some()),
            ("dot4", self.dot4),
            ("f16", self.f16),
            ("matrix", self.matrix.is_some()),
            ("layers", self.layers),
        ];
        let words: Vec<_> = all.into_iter().filter(|(_, on)| *on).map(|(word, _)| word).collect();
        f.write_str(if words.is_empty() { "plain".into() } else { words.join(",") }.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rich() -> Offers {
        Offers {
            subgroups: Some((32, 64)),
            f16: true,
            dot4: true,
            messages: true,
            matrices: vec![16],
            invocations: 1024,
            workgroup_bytes: 32768,
            few_registers: false,
            real: true,
        }
    }

    #[test]
    fn what_is_there_is_used() {
        let used = Features::of(&rich());
        assert_eq!(used.to_string(), "subgroup,dot4,f16,matrix,layers");
        assert!(matches!(used.many(Format::Q4_0), Many::Matrix { size: 16, .. }));
        assert_eq!(used.few(Format::Q4_0), Many::Int8);
        let used = Features { matrix: None, ..used };
        assert_eq!(used.many(Format::Q4_0), Many::Int8);
        let head = Few::new(1, 1 << 18, 320);
        assert_eq!(used.share(head), head);
        let intel = Features::of(&Offers { few_registers: true, ..rich() });
        assert!(intel.share(head).at_once < head.at_once);
        assert_eq!(used.many(Format::Bf16), Many::Half);
        assert_eq!(used.many(Format::F32), Many::Float, "f32 weights keep what they have");
        assert_eq!(Features::of(&Offers::default()), Features::PLAIN);
        assert_eq!(Features::PLAIN.many(Format::Q8_0), Many::Float);
    }

    #[test]
    fn words_are_read_and_refused_by_name() {
        let read = |words: &str, offers: &Offers| Features::parse(words, offers, "a card");
        assert_eq!(read("plain", &rich()).unwrap(), Features::PLAIN);
        let some = read("subgroup, f16", &rich()).unwrap();
        assert_eq!(some, Features { subgroup: Some(32), f16: true, ..Features::PLAIN });
        assert_eq!(read(&some.to_string(), &rich()).unwrap(), some);
        assert_eq!(read("auto", &rich()).unwrap(), Features::of(&rich()));
        assert_eq!(read(" ", &rich()).unwrap(), Features::of(&rich()));
        let software = Offers { real: false, ..rich() };
        assert_eq!(read("layers,auto", &software).unwrap(), Features::of(&rich()));
        assert!(read("auto,plain", &rich()).is_err());
        let matrix = read("matrix", &rich()).unwrap();
        assert_eq!(
            matrix.many(Format::Q4_0),
            Many::Matrix { size: 16, workgroup: 256, tile: (64, 64) }
        );
        assert!(matrix.needs().subgroups && matrix.needs().f16 && matrix.needs().matrices);
        for (words, poor) in [("f16", true), ("matrix", true), ("subgroup", true), ("dot8", false)]
        {
            let offers = if poor { Offers::default() } else { rich() };
            let message = read(words, &offers).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("a card"), "{message}");
            assert!(message.contains(VARIABLE), "{message}");
        }
        // Whole layers take what they take.
        for (words, offers) in [("layers", rich()), ("subgroup,dot4,layers", Offers::default())] {
            assert!(read(words, &offers).is_err(), "{words}");
        }
        let whole = read("subgroup,dot4,layers", &rich()).unwrap();
        assert!(whole.layers && whole.needs().subgroups);
        let software = Offers { real: false, ..rich() };
        assert!(!Features::of(&software).layers);
        let deaf = Offers { messages: false, ..rich() };
        assert!(!Features::of(&deaf).layers);
        let message = read("subgroup,dot4,layers", &deaf).unwrap_err().to_string();
        assert!(message.contains("wait for each other"), "{message}");
        // Products of bytes can be asked for where they are made of others.
        assert!(read("dot4", &Offers::default()).unwrap().dot4);
    }
}
