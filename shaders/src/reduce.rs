//! How sums over several invocations are made.

use crate::compose::{Needs, Parts};

/// How sums over several invocations are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduce {
    /// In halves through workgroup memory: runs everywhere.
    Workgroup,
    /// Within subgroups first, of whatever size they turn out to be, then through workgroup memory.
    Subgroup,
}

impl Reduce {
    /// Both.
    pub const ALL: [Reduce; 2] = [Reduce::Workgroup, Reduce::Subgroup];

    fn needs(self) -> Needs {
        Needs { subgroups: self == Reduce::Subgroup, ..Needs::default() }
    }

    /// `main`, which calls `run(workgroup, i)`, and `reduce`: sums over groups of LANES invocations.
    pub(crate) fn groups(self, parts: Parts) -> Parts {
        let parts = parts.needs(self.needs());
        match self {
            Reduce::Workgroup => parts.snippet("", include_str!("../wgsl/reduce_workgroup.wgsl")),
            Reduce::Subgroup => {
                parts.snippet("subgroups", include_str!("../wgsl/reduce_subgroup.wgsl"))
            }
        }
    }

    /// `main`, which calls `run(workgroup, i)`, and `total`: the sum over a workgroup of 256.
    pub(crate) fn total(self, parts: Parts) -> Parts {
        let parts = parts.needs(self.needs());
        match self {
            Reduce::Workgroup => parts.snippet("", include_str!("../wgsl/total_workgroup.wgsl")),
            Reduce::Subgroup => {
                parts.snippet("subgroups", include_str!("../wgsl/total_subgroup.wgsl"))
            }
        }
    }
}
