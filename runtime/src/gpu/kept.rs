//! Compiled pipelines, kept from run to run where the backend can hand them out (Vulkan): a file
//! for each kind of device in the user's cache folder.
//!
//! Drivers check hardly more than the version of what they are given back, so the file says how long
//! its data is and what they hash to: what was cut off or damaged is not used. Against forgery stand
//! the file's permissions: it is used where nobody else can have written it.
//!
//! ```text
//! byte  0..8   "LAPIPE", 0, 1
//! byte  8..16  bytes of the data, u64 little-endian
//! byte 16..24  their FNV-1a hash, u64 little-endian
//! byte 24..    the data, as wgpu hands them out
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const MAGIC: [u8; 8] = *b"LAPIPE\0\x01";
const HEADER: usize = 24;
/// A file longer than this is nobody's pipelines (some megabytes at most) and not read.
const MOST: u64 = 64 << 20;

/// The cache that a device compiles through, and its file.
pub(super) struct Kept {
    pub(super) cache: wgpu::PipelineCache,
    path: PathBuf,
    /// Hash of what the file holds, as far as is known.
    saved: Mutex<Option<u64>>,
}

impl Kept {
    /// For a device that has the feature; `path` is its own file.
    pub(super) fn open(device: &wgpu::Device, path: PathBuf) -> Self {
        let data = read(&path);
        // SAFETY: the data are what `get_data` gave, as far as can be known: their hash is right and
        // only this user can have written them. wgpu checks that they are of this adapter and
        // driver, and starts an empty cache where they are not.
        let cache = unsafe {
            device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                label: Some("pipelines"),
                data: data.as_deref(),
                fallback: true,
            })
        };
        Kept { cache, path, saved: Mutex::new(data.as_deref().map(hash)) }
    }

    /// Writes the file where there is something new. A cache that can't be written is none: the next
    /// run compiles again.
    pub(super) fn save(&self) {
        let Some(data) = self.cache.get_data() else { return };
        let (new, mut saved) = (hash(&data), self.saved.lock().unwrap_or_else(|e| e.into_inner()));
        if *saved != Some(new) && data.len() as u64 <= MOST - HEADER as u64 {
            *saved = write(&self.path, &data).ok().map(|()| new);
        }
    }
}

/// 64-bit FNV-1a (Fowler, Noll, Vo).
fn hash(data: &[u8]) -> u64 {
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
    data.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The data in a file, if it is whole and could only be written by this user.
fn read(path: &Path) -> Option<Vec<u8>> {
    // Before it is opened: opening a pipe waits for somebody who writes.
    let about = fs::metadata(path).ok()?;
    if !about.is_file() || about.len() > MOST || !is_own(&about) {
        return None;
    }
    let mut bytes = Vec::new();
    // It may have grown since.
    File::open(path).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    let (header, data) = bytes.split_at_checked(HEADER)?;
    let number = |at: usize| header[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    let whole =
        header[..8] == MAGIC && number(8)? == data.len() as u64 && number(16)? == hash(data);
    whole.then(|| data.to_vec())
}

/// Is this a file of the user that the process runs as, which others can't write?
#[cfg(unix)]
fn is_own(about: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    // Linux tells through its own folder whose the process is; elsewhere the mode must do.
    let own = match cfg!(target_os = "linux") {
        true => fs::metadata("/proc/self").is_ok_and(|me| me.uid() == about.uid()),
        false => true,
    };
    own && about.mode() & 0o022 == 0
}

/// Windows' profile folders are their user's.
#[cfg(not(unix))]
fn is_own(_about: &fs::Metadata) -> bool {
    true
}

/// Writes beside `path` and renames, so that nobody ever reads half a file.
fn write(path: &Path, data: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let mut new = OpenOptions::new();
    new.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut new, 0o600);
    // What a killed process of the same number left.
    let _ = fs::remove_file(&part);
    let written = new.open(&part).and_then(|mut file| {
        file.write_all(&MAGIC)?;
        file.write_all(&(data.len() as u64).to_le_bytes())?;
        file.write_all(&hash(data).to_le_bytes())?;
        file.write_all(data)
    });
    let done = written.and_then(|()| fs::rename(&part, path));
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    done
}

fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Where this user's cache for Lapidary is: what `LAPIDARY_PIPELINE_CACHE` names, nowhere where that
/// is `off` or empty, else the platform's folder (`$XDG_CACHE_HOME/lapidary` or `~/.cache/lapidary`,
/// `~/Library/Caches/lapidary`, `%LOCALAPPDATA%\lapidary`).
pub fn pipeline_folder() -> Option<PathBuf> {
    folder_of(|name| std::env::var_os(name))
}

fn folder_of(var: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    // Relative paths are to be ignored, says the XDG specification.
    let absolute = |name: &str| var(name).map(PathBuf::from).filter(|p| p.is_absolute());
    match var("LAPIDARY_PIPELINE_CACHE") {
        Some(off) if off.is_empty() || off == "off" => return None,
        Some(folder) => return Some(folder.into()),
        None => {}
    }
    let base = if cfg!(windows) {
        absolute("LOCALAPPDATA")?
    } else if cfg!(target_vendor = "apple") {
        absolute("HOME")?.join("Library/Caches")
    } else {
        absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?
    };
    Some(base.join("lapidary"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/pipelines");
        assert_eq!(read(&path), None, "there is none yet");
        for data in [&b""[..], b"one", &[7; 100_000]] {
            write(&path, data).unwrap();
            assert_eq!(read(&path).as_deref(), Some(data));
        }
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "only the file itself: {left:?}");

        // Cut anywhere, longer, any bit of the first bytes or of some others flipped.
        let good = fs::read(&path).unwrap();
        let put = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read(&path)
        };
        assert!(put(&good).is_some());
        for len in [0, 7, 23, 24, 25, good.len() - 1] {
            assert_eq!(put(&good[..len]), None, "{len} bytes");
        }
        assert_eq!(put(&[&good[..], &[0]].concat()), None);
        for at in (0..HEADER + 8).chain([5000, good.len() - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(put(&bad), None, "byte {at}");
        }
        // Longer than anything that would be read: a file with a hole takes no room.
        File::create(&path).unwrap().set_len(MOST + 1).unwrap();
        assert_eq!(read(&path), None);
        // A folder in its place is neither read nor replaced.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(read(&path), None);
        assert!(write(&path, b"x").is_err());
        let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "no part of a file is left");
    }

    #[test]
    #[cfg(unix)]
    fn a_file_that_others_could_have_written_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipelines");
        write(&path, b"data").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(read(&path), None);
    }

    #[test]
    fn the_folder_is_the_users() {
        let with = |vars: &[(&str, &str)]| {
            let vars: Vec<_> = vars.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            folder_of(|name| vars.iter().find(|(k, _)| k == name).map(|(_, v)| v.into()))
        };
        let absolute = if cfg!(windows) { "C:\\x" } else { "/x" };
        let home = [("HOME", absolute), ("XDG_CACHE_HOME", absolute), ("LOCALAPPDATA", absolute)];
        assert!(with(&home).unwrap().ends_with("lapidary"));
        assert_eq!(with(&[]), None);
        for off in ["", "off"] {
            let off = [&home[..], &[("LAPIDARY_PIPELINE_CACHE", off)]].concat();
            assert_eq!(with(&off), None);
        }
        let named = [&home[..], &[("LAPIDARY_PIPELINE_CACHE", "here")]].concat();
        assert_eq!(with(&named), Some("here".into()));
        if cfg!(target_os = "linux") {
            assert_eq!(with(&[("HOME", "/h")]), Some("/h/.cache/lapidary".into()));
            let relative = [("HOME", "/h"), ("XDG_CACHE_HOME", "c")];
            assert_eq!(with(&relative), Some("/h/.cache/lapidary".into()));
        }
    }
}
