//! Files that appear whole or not at all: written beside their target, then renamed over it.

use std::fs::File;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::{ConvertError, io};

/// A file on its way. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Staged {
    temp: NamedTempFile,
    target: PathBuf,
    force: bool,
}

impl Staged {
    /// Fails when `target` exists and `force` is not given, or is no file that could be replaced.
    pub(crate) fn check(target: &Path, force: bool) -> Result<(), ConvertError> {
        // A link that leads nowhere exists as well.
        if std::fs::symlink_metadata(target).is_err() {
            return Ok(());
        }
        if std::fs::metadata(target).is_ok_and(|m| !m.is_file()) {
            return Err(ConvertError::NotAFile { path: target.into() });
        }
        if force { Ok(()) } else { Err(ConvertError::Exists { path: target.into() }) }
    }

    /// Creates the file that will become `target`, in the same folder so that it can be renamed.
    pub(crate) fn create(target: &Path, force: bool) -> Result<Self, ConvertError> {
        Self::check(target, force)?;
        let folder = match target.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let mut builder = Builder::new();
        builder.prefix(".lapidary-").suffix(".part");
        #[cfg(unix)]
        {
            // Temporary files are private by default; this one becomes an ordinary file, so the
            // umask decides.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let temp = builder.tempfile_in(folder).map_err(ConvertError::io("write in", folder))?;
        Ok(Staged { temp, target: target.into(), force })
    }

    /// The file to write to.
    pub(crate) fn file(&self) -> &File {
        self.temp.as_file()
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), ConvertError> {
        io::write_all_at(self.file(), bytes, offset)
            .map_err(ConvertError::io("write", &self.target))
    }

    /// Renames the finished file to its target.
    pub(crate) fn persist(self) -> Result<(), ConvertError> {
        // It may have come to exist while this one was written.
        Self::check(&self.target, self.force)?;
        if self.target.exists() {
            // A good file is given up only for one that would survive a power failure.
            let failed = ConvertError::io("write", &self.target);
            self.file().sync_all().map_err(failed)?;
        }
        match self.temp.persist(&self.target) {
            Ok(_) => Ok(()),
            Err(e) => Err(ConvertError::io("rename the finished file to", self.target)(e.error)),
        }
    }
}
