//! JSON files that people and many versions of Transformers have written: read with a size
//! bound, and asked for numbers within bounds.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::ConvertError;

/// No sidecar file but the tokenizer's comes near this.
const MAX_BYTES: u64 = 256 << 20;

/// The file's bytes; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, ConvertError> {
    let len = match std::fs::metadata(path) {
        Ok(m) => m.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(ConvertError::io("read", path)(e)),
    };
    if len > MAX_BYTES {
        let message = format!("{len} bytes are more than any file of this kind has");
        return Err(ConvertError::Config { path: path.into(), message });
    }
    let bytes = std::fs::read(path).map_err(ConvertError::io("read", path))?;
    refuse_pointer(path, &bytes)?;
    Ok(Some(bytes))
}

/// Fails when `bytes`, which `path` holds, are the few lines that git leaves in place of a large
/// file that was not downloaded.
pub(crate) fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<(), ConvertError> {
    if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Err(ConvertError::LfsPointer { path: path.into() });
    }
    Ok(())
}

/// `bytes` without the byte order mark that some editors put before UTF-8.
pub(crate) fn skip_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// A JSON object read from a file, and the file's name for messages.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub path: PathBuf,
    pub map: Map<String, Value>,
}

impl Object {
    /// Reads `path`; `None` when there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, ConvertError> {
        let Some(bytes) = read(path)? else { return Ok(None) };
        Self::parse(path, &bytes).map(Some)
    }

    /// Parses `bytes`, which `path` holds.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ConvertError> {
        match serde_json::from_slice(skip_mark(bytes)) {
            Ok(map) => Ok(Object { path: path.into(), map }),
            Err(source) => Err(ConvertError::Json { path: path.into(), source }),
        }
    }

    /// The value of `key`; `None` when it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// The object under `key` as one of its own, if it is one.
    pub(crate) fn object(&self, key: &str) -> Option<Object> {
        let map = self.get(key)?.as_object()?.clone();
        Some(Object { path: self.path.clone(), map })
    }

    /// The string under `key`, if it is one.
    pub(crate) fn str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// True or false, if the key is there.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ConvertError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_bool() {
            Some(flag) => Ok(Some(flag)),
            None => Err(self.wrong(key, value, "true or false is needed")),
        }
    }

    /// An integer within `1..=max`, or `default` when the key is absent.
    pub(crate) fn count(&self, key: &str, default: u32, max: u32) -> Result<u32, ConvertError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_u64().and_then(|v| u32::try_from(v).ok()) {
            Some(n) if (1..=max).contains(&n) => Ok(n),
            _ => Err(self.wrong(key, value, format!("an integer from 1 to {max} is needed"))),
        }
    }

    /// A finite number above zero, if the key is there.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<f64>, ConvertError> {
        self.number(key, |x| x > 0.0, "a number above zero is needed")
    }

    /// A finite number, zero or above, if the key is there.
    pub(crate) fn not_negative(&self, key: &str) -> Result<Option<f64>, ConvertError> {
        self.number(key, |x| x >= 0.0, "zero or a number above it is needed")
    }

    /// A finite number that is `right`, if the key is there.
    pub(crate) fn number(
        &self,
        key: &str,
        right: impl Fn(f64) -> bool,
        expected: &str,
    ) -> Result<Option<f64>, ConvertError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(x) if x.abs() <= f64::from(f32::MAX) && right(x) => Ok(Some(x)),
            _ => Err(self.wrong(key, value, expected)),
        }
    }

    /// The error for a value that cannot be used.
    pub(crate) fn wrong(
        &self,
        key: &str,
        value: &Value,
        expected: impl Into<String>,
    ) -> ConvertError {
        let mut value = value.to_string();
        if value.len() > 80 {
            let cut = (0..=77).rev().find(|&i| value.is_char_boundary(i)).unwrap_or(0);
            value.truncate(cut);
            value.push_str("...");
        }
        ConvertError::ConfigValue {
            path: self.path.clone(),
            key: key.into(),
            value,
            expected: expected.into(),
        }
    }
}
