//! Files appear whole or not at all: cancelled anywhere, out of disk, or replacing an old one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quant::DType;

use crate::common::*;
use lapidary_convert::{ConvertError, Progress, convert};

/// Cancels after so many chunks.
struct CancelAfter<'a> {
    left: AtomicU64,
    cancel: &'a AtomicBool,
}

impl Progress for CancelAfter<'_> {
    fn begin(&self, _total: u64) {
        self.advance(0);
    }

    fn advance(&self, _bytes: u64) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.cancel.store(true, Ordering::SeqCst);
        }
    }
}

#[test]
fn cancelled_anywhere_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    let c = Checkpoint::multimodal();
    c.write(&model);
    let out = dir.path().join("out.gguf");
    std::fs::write(&out, "precious").unwrap();
    let mut options = options(&model, &out, DType::Q4_0);
    options.force = true;
    options.threads = std::num::NonZero::new(1);
    let before = listing(dir.path());
    for chunks in 1..=c.tensors.len() as u64 {
        let cancel = AtomicBool::new(false);
        let progress = CancelAfter { left: AtomicU64::new(chunks), cancel: &cancel };
        let e = convert(&options, &progress, &cancel).unwrap_err();
        assert!(matches!(e, ConvertError::Cancelled), "{chunks}: {e}");
        assert_eq!(listing(dir.path()), before, "{chunks}");
    }
    run(&options).unwrap();
    assert_eq!(listing(dir.path()).len(), 2);
}

/// Counts what it is told.
#[derive(Default)]
struct Count {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress for Count {
    fn begin(&self, total: u64) {
        self.total.store(total, Ordering::SeqCst);
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::SeqCst);
    }
}

#[test]
fn progress_adds_up() {
    let dir = tempfile::tempdir().unwrap();
    let c = Checkpoint::gemma3();
    c.write(&dir.path().join("model"));
    let count = Count::default();
    let options = options(&dir.path().join("model"), &dir.path().join("out.gguf"), DType::Q4_0);
    convert(&options, &count, &AtomicBool::new(false)).unwrap();
    let bytes: usize = c.tensors.values().map(|w| w.values.len() * 2).sum();
    assert_eq!(count.total.into_inner(), bytes as u64);
    assert_eq!(count.done.into_inner(), bytes as u64);
}

#[cfg(unix)]
#[test]
fn an_ordinary_file_with_ordinary_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, out, _) = converted(&Checkpoint::gemma3(), DType::Q4_0);
    let usual = dir.path().join("usual");
    std::fs::write(&usual, "").unwrap();
    let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode();
    assert_eq!(mode(&out), mode(&usual));
}

/// Runs the test below in a process whose files cannot grow past 16 KiB (32 where the shell counts
/// in KiB), with the signal for it
/// ignored, so that writes fail as they do on a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing() {
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(r#"trap "" XFSZ; ulimit -f 32; exec "$0" --exact safety::on_a_full_disk --ignored"#)
        .arg(std::env::current_exe().unwrap())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[cfg(unix)]
#[test]
#[ignore = "run by a_full_disk_leaves_nothing in a process of its own"]
fn on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    let c = Checkpoint::gemma3();
    // Each shard stays under the limit; what they convert to does not.
    c.write_sharded(&model, c.tensors.len());
    let e = refused_at(&options(&model, &dir.path().join("out.gguf"), DType::F32));
    assert!(matches!(e, ConvertError::Io { .. }), "{e}");
}
