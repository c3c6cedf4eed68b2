//! How many threads are worth it: one a physical core, and on CPUs with big and small cores one a
//! big core. Threads meet at barriers hundreds of times a token, so a slow one holds up all; the
//! second thread of a core adds nothing to reading memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// How many threads to use when nobody says.
///
/// Never more than the CPUs that this process may use: the standard library knows of affinity and
/// of cgroup quotas.
pub fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, |n| n.get());
    match big_cores(Path::new("/")) {
        Some(cores) => allowed.min(cores).max(1),
        None => allowed,
    }
}

/// The physical cores of the largest kind among the CPUs that this process may run on, as Linux
/// tells in `/proc` and `/sys` under `root`; `None` where it does not.
fn big_cores(root: &Path) -> Option<usize> {
    let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?;
    // (package, core) -> how capable it is
    let mut cores = BTreeMap::<(u64, u64), u64>::new();
    for cpu in parse_list(list.trim())? {
        let dir = root.join(format!("sys/devices/system/cpu/cpu{cpu}"));
        let number = |name: &str| -> Option<u64> {
            fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
        };
        let core = (number("topology/physical_package_id")?, number("topology/core_id")?);
        let capable = number("cpu_capacity").or_else(|| number("cpufreq/cpuinfo_max_freq"));
        let entry = cores.entry(core).or_default();
        *entry = (*entry).max(capable.unwrap_or(0));
    }
    // Cores of one kind differ by a few percent (favoured cores boost higher); kinds by far more.
    let most = cores.values().copied().max()?;
    Some(cores.values().filter(|&&c| c * 10 >= most * 7).count())
}

/// The numbers of a list such as `0-3,8,10-11`.
fn parse_list(list: &str) -> Option<Vec<usize>> {
    /// More CPUs than Linux can be built for.
    const MANY: usize = 1 << 16;
    let mut out = Vec::new();
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        if to >= MANY {
            return None;
        }
        out.extend(from..=to);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of `(core, capacity)`s.
    fn machine(allowed: &str, cpus: &[(u64, Option<u64>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let proc = root.path().join("proc/self");
        fs::create_dir_all(&proc).unwrap();
        fs::write(proc.join("status"), format!("Name:\tx\nCpus_allowed_list:\t{allowed}\n"))
            .unwrap();
        for (i, (core, capacity)) in cpus.iter().enumerate() {
            let cpu = root.path().join(format!("sys/devices/system/cpu/cpu{i}"));
            fs::create_dir_all(cpu.join("topology")).unwrap();
            fs::write(cpu.join("topology/physical_package_id"), "0\n").unwrap();
            fs::write(cpu.join("topology/core_id"), format!("{core}\n")).unwrap();
            if let Some(capacity) = capacity {
                fs::write(cpu.join("cpu_capacity"), format!("{capacity}\n")).unwrap();
            }
        }
        root
    }

    #[test]
    fn second_threads_of_a_core_do_not_count() {
        let m = machine("0-3", &[(0, None), (1, None), (0, None), (1, None)]);
        assert_eq!(big_cores(m.path()), Some(2));
    }

    #[test]
    fn small_cores_do_not_count() {
        let cpus =
            [(0, Some(1024)), (0, Some(1024)), (1, Some(1008)), (8, Some(600)), (9, Some(600))];
        let m = machine("0-4", &cpus);
        assert_eq!(big_cores(m.path()), Some(2));
        // Confined to the small ones, these are the largest there are.
        let m = machine("3-4", &cpus);
        assert_eq!(big_cores(m.path()), Some(2));
    }

    #[test]
    fn an_unknown_machine_is_left_to_the_standard_library() {
        assert_eq!(big_cores(Path::new("/nonexistent")), None);
        assert_eq!(parse_list("0-99999999999"), None);
        assert_eq!(parse_list("0-2,7"), Some(vec![0, 1, 2, 7]));
        assert!(default_threads() >= 1);
    }
}
