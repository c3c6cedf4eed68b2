//! How large this CPU's caches are, as it says itself, and how it likes memory to be read.

use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

/// Bytes of the second-level cache that a core has for data; half a MiB where the CPU does not say.
pub(super) fn second_level() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| deterministic().unwrap_or(512 << 10))
}

/// Does one core read memory faster from a few places at once than from one? Intel's cores follow a stream
/// within its page of 4 KiB and go further ahead of several together; on AMD's, one stream was the fastest
/// (benches/README.md).
pub(super) fn has_many_streams() -> bool {
    static MANY: OnceLock<bool> = OnceLock::new();
    *MANY.get_or_init(|| made_by(b"GenuineIntel"))
}

/// Is this the name that the CPU gives its maker?
pub(super) fn made_by(name: &[u8; 12]) -> bool {
    let r = __cpuid(0);
    [r.ebx, r.edx, r.ecx].map(u32::to_le_bytes).as_flattened() == name
}

/// From the leaves that describe each cache (Intel's SDM, "Deterministic Cache Parameters"; AMD has the
/// same at another number).
fn deterministic() -> Option<usize> {
    const INTEL: u32 = 4;
    const AMD: u32 = 0x8000_001D;
    /// "Topology extensions", which say that the leaf is there.
    const AMD_EXTENSIONS: u32 = 1 << 22;
    let amd = __cpuid(0x8000_0000).eax >= AMD && __cpuid(0x8000_0001).ecx & AMD_EXTENSIONS != 0;
    let leaf = if amd { AMD } else { INTEL };
    if !amd && __cpuid(0).eax < INTEL {
        return None;
    }
    for i in 0..16 {
        let r = __cpuid_count(leaf, i);
        let (kind, level) = (r.eax & 31, r.eax >> 5 & 7);
        if kind == 0 {
            return None; // no more
        }
        // Data, or everything.
        if level == 2 && (kind == 1 || kind == 3) {
            let field = |from: u32, bits: u32| (r.ebx >> from & ((1 << bits) - 1)) as usize + 1;
            return Some(field(0, 12) * field(12, 10) * field(22, 10) * (r.ecx as usize + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn of_a_size_that_caches_have() {
        let bytes = super::second_level();
        assert!((128 << 10..=256 << 20).contains(&bytes) && bytes.is_multiple_of(1024), "{bytes}");
    }
}
