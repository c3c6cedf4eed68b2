//! The tower that belongs to a model.

use std::path::{Path, PathBuf};

/// The tower's file for the model at `model`: `mmproj-NAME.gguf` beside `NAME.gguf`, where
/// `lapidary convert` puts it; else the only `mmproj*.gguf` in that folder. `None` when there is
/// none, or more than one and none of that name.
pub fn find_mmproj(model: &Path) -> Option<PathBuf> {
    let name = model.file_name()?;
    let folder = match model.parent() {
        Some(p) if p != Path::new("") => p,
        _ => Path::new("."),
    };
    let mut own = std::ffi::OsString::from("mmproj-");
    own.push(name);
    let own = model.with_file_name(own);
    if own.is_file() {
        return Some(own);
    }
    let mut found = None;
    for entry in std::fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name().to_string_lossy().to_ascii_lowercase();
        if name.starts_with("mmproj") && name.ends_with(".gguf") {
            if found.is_some() {
                return None;
            }
            found = Some(entry.path());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_own_or_the_only_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let model = at("gemma.gguf");
        assert_eq!(find_mmproj(&model), None);
        std::fs::write(at("mmproj-model-f16.gguf"), b"").unwrap();
        assert_eq!(find_mmproj(&model), Some(at("mmproj-model-f16.gguf")));
        std::fs::write(at("mmproj-other.gguf"), b"").unwrap();
        assert_eq!(find_mmproj(&model), None);
        std::fs::write(at("mmproj-gemma.gguf"), b"").unwrap();
        assert_eq!(find_mmproj(&model), Some(at("mmproj-gemma.gguf")));
        assert_eq!(find_mmproj(Path::new("/")), None);
        assert_eq!(find_mmproj(&at("no/folder.gguf")), None);
    }
}
