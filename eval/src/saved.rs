//! A reference's logits, saved once so that it need not run again.
//!
//! ```text
//! magic     "LAPILOGI", then the format's version, u32
//! length    of the description, u32
//! JSON      the description: model, its hash, vocabulary, windows
//! tokens    u32 each, as many as the description says
//! hash      u64, XXH64 of all before it
//! rows      of one window: ln p of the correct token, f64; range r, f32; u16 for each token
//! hash      u64, of the window's rows; and so on, window after window
//! ```
//!
//! All little-endian. A logit z is stored as its distance x = z_max - z from the row's largest:
//! u = √(x / r) · 65535, rounded, r being the largest distance. The square root makes steps finest
//! where probabilities are large (at x = 1 of r = 30, 1.7e-4; at x = 0.01, 1.7e-5) without cutting
//! the tail; llama.cpp's linear steps over 16 nats are 2.4e-4 everywhere. What the rounding adds to
//! a divergence is of the order of a step's square, and stays below 1e-7.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::hash::Xxh64;
use crate::text::{Scheme, Text, Window};
use crate::{EvalError, softmax};

const MAGIC: &[u8; 8] = b"LAPILOGI";
const VERSION: u32 = 1;
/// No description comes near this.
const MAX_DESCRIPTION: u32 = 1 << 16;

/// What the logits were computed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The model's file name, for people.
    pub model: String,
    /// XXH64 of the model's file, in hexadecimal.
    pub model_hash: String,
    /// Storage of its KV cache.
    pub kv: String,
    /// Logits a row.
    pub vocab: usize,
    /// Tokens of the text.
    pub tokens: usize,
    /// Tokens a window.
    pub ctx: usize,
    /// The stride; 0 for second halves.
    pub stride: usize,
    /// Windows saved.
    pub windows: usize,
}

impl Description {
    /// How the text was cut.
    pub fn scheme_number(scheme: Scheme) -> usize {
        match scheme {
            Scheme::SecondHalf => 0,
            Scheme::Stride(n) => n,
        }
    }
}

/// Writes saved logits. The file appears whole, under its name, when it is finished.
#[derive(Debug)]
pub struct Writer {
    out: BufWriter<File>,
    partial: PathBuf,
    target: PathBuf,
    hash: Xxh64,
    bytes: Vec<u8>,
    finished: bool,
}

impl Writer {
    /// Begins a file at `path`; whatever is there is replaced in the end.
    ///
    /// # Errors
    /// [`EvalError::Io`].
    pub fn create(path: &Path, description: &Description, text: &Text) -> Result<Self, EvalError> {
        // What a link leads to is replaced, not the link; and no device, nor a pipe.
        let target = match std::fs::metadata(path) {
            Ok(there) if !there.is_file() => {
                let why = std::io::Error::other("this is no file that could be replaced");
                return Err(EvalError::io("create", path)(why));
            }
            Ok(_) => path.canonicalize().map_err(EvalError::io("create", path))?,
            Err(_) => path.to_owned(),
        };
        let mut partial = target.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(EvalError::io("create", &partial))?;
        let mut w = Writer {
            out: BufWriter::with_capacity(1 << 20, file),
            partial,
            target,
            hash: Xxh64::default(),
            bytes: Vec::new(),
            finished: false,
        };
        let json = serde_json::to_vec(description)
            .map_err(|e| EvalError::Saved { path: path.to_owned(), why: e.to_string() })?;
        let mut head = MAGIC.to_vec();
        head.extend(VERSION.to_le_bytes());
        head.extend((json.len() as u32).to_le_bytes());
        head.extend(json);
        head.extend(text.ids.iter().flat_map(|t| t.to_le_bytes()));
        w.write(&head)?;
        w.seal()?;
        Ok(w)
    }

    /// Adds a row and ln p of the token that it should have predicted.
    ///
    /// # Errors
    /// [`EvalError::Io`].
    pub fn row(&mut self, logits: &[f32], ln_p: f64) -> Result<(), EvalError> {
        let (low, max) = logits
            .iter()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(l, m), &z| (l.min(z), m.max(z)));
        let range = max - low;
        let scale = if range > 0.0 { 65535.0 / range.sqrt() } else { 0.0 };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.extend(ln_p.to_le_bytes());
        bytes.extend(range.to_le_bytes());
        bytes.extend(
            logits.iter().flat_map(|z| (((max - z).sqrt() * scale + 0.5) as u16).to_le_bytes()),
        );
        let result = self.write(&bytes);
        self.bytes = bytes;
        result
    }

    /// Ends a window: writes the hash of what came since the last.
    ///
    /// # Errors
    /// [`EvalError::Io`].
    pub fn seal(&mut self) -> Result<(), EvalError> {
        let hash = std::mem::take(&mut self.hash).finish();
        self.out.write_all(&hash.to_le_bytes()).map_err(EvalError::io("write", &self.partial))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`EvalError::Io`].
    pub fn finish(mut self) -> Result<(), EvalError> {
        self.out.flush().map_err(EvalError::io("write", &self.partial))?;
        std::fs::rename(&self.partial, &self.target)
            .map_err(EvalError::io("rename the finished file to", &self.target))?;
        self.finished = true;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), EvalError> {
        self.hash.update(bytes);
        self.out.write_all(bytes).map_err(EvalError::io("write", &self.partial))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing half-written stays; if it cannot be removed there is nothing more to do.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Reads saved logits, window by window.
#[derive(Debug)]
pub struct Reader {
    input: BufReader<File>,
    path: PathBuf,
    description: Description,
    tokens: Vec<u32>,
    hash: Xxh64,
    bytes: Vec<u8>,
}

impl Reader {
    /// Opens a file and checks its beginning.
    ///
    /// # Errors
    /// [`EvalError::Io`] or [`EvalError::Saved`].
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        let file = File::open(path).map_err(EvalError::io("open", path))?;
        let len = file.metadata().map_err(EvalError::io("read", path))?.len();
        let wrong = |why: &str| EvalError::Saved { path: path.to_owned(), why: why.to_owned() };
        let mut r = Reader {
            input: BufReader::with_capacity(1 << 20, file),
            path: path.to_owned(),
            description: Description {
                model: String::new(),
                model_hash: String::new(),
                kv: String::new(),
                vocab: 0,
                tokens: 0,
                ctx: 0,
                stride: 0,
                windows: 0,
            },
            tokens: Vec::new(),
            hash: Xxh64::default(),
            bytes: Vec::new(),
        };
        if r.take(8)? != MAGIC {
            return Err(wrong("these are not logits saved by lapidary eval"));
        }
        let version = r.u32()?;
        if version != VERSION {
            return Err(wrong(&format!(
                "its format is version {version}, this program reads {VERSION}"
            )));
        }
        let n = r.u32()?;
        if n > MAX_DESCRIPTION {
            return Err(wrong("its description is damaged"));
        }
        let json = r.take(n as usize)?.to_vec();
        r.description = serde_json::from_slice(&json)
            .map_err(|e| wrong(&format!("its description is damaged ({e})")))?;
        if r.description.tokens as u64 > len / 4 || r.description.vocab as u64 > len {
            return Err(wrong("it is cut short"));
        }
        let tokens = r.take(r.description.tokens * 4)?;
        r.tokens = tokens.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        r.check_seal()?;
        Ok(r)
    }

    /// What the logits were computed with.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Fails unless these logits are for this text, cut like this.
    ///
    /// # Errors
    /// [`EvalError::Saved`] saying what differs.
    pub fn check(
        &self,
        text: &Text,
        ctx: usize,
        scheme: Scheme,
        windows: usize,
        vocab: usize,
    ) -> Result<(), EvalError> {
        let d = &self.description;
        let stride = Description::scheme_number(scheme);
        let differs = |what: &str, saved: usize, now: usize| {
            Err(self.wrong(&format!("its logits are for {what} {saved}, not {now}")))
        };
        if d.vocab != vocab {
            return differs("a vocabulary of", d.vocab, vocab);
        }
        if d.ctx != ctx {
            return differs("--ctx", d.ctx, ctx);
        }
        if d.stride != stride {
            return differs("--stride", d.stride, stride);
        }
        if let Some(at) = (0..text.ids.len().max(self.tokens.len()))
            .find(|&i| text.ids.get(i) != self.tokens.get(i))
        {
            return Err(self.wrong(&format!(
                "its logits are for another text or tokenizer (they part at token {at})"
            )));
        }
        if d.windows < windows {
            return differs("a number of windows of", d.windows, windows);
        }
        Ok(())
    }

    /// Reads the rows of one batch: `out` gets the logits, less the largest of each row;
    /// `ln_p` what the rows gave the correct tokens.
    ///
    /// # Errors
    /// [`EvalError::Io`] or [`EvalError::Saved`].
    pub fn rows(
        &mut self,
        n: usize,
        out: &mut Vec<f32>,
        ln_p: &mut Vec<f64>,
    ) -> Result<(), EvalError> {
        let vocab = self.description.vocab;
        out.clear();
        ln_p.clear();
        for _ in 0..n {
            let bytes = self.take(12 + vocab * 2)?;
            let (head, values) = bytes.split_at(12);
            let word = |at: usize| -> [u8; 4] { std::array::from_fn(|i| head[at + i]) };
            let bits = [word(0), word(4)].map(|w| u64::from(u32::from_le_bytes(w)));
            let step = f32::from_le_bytes(word(8)).sqrt() / 65535.0;
            ln_p.push(f64::from_bits(bits[0] | bits[1] << 32));
            out.extend(values.as_chunks::<2>().0.iter().map(|u| {
                let root = f32::from(u16::from_le_bytes(*u)) * step;
                -(root * root)
            }));
        }
        Ok(())
    }

    /// Ends a window.
    ///
    /// # Errors
    /// [`EvalError::Saved`] when the rows read since the last are damaged.
    pub fn check_seal(&mut self) -> Result<(), EvalError> {
        let found = std::mem::take(&mut self.hash).finish();
        let mut stored = [0; 8];
        self.input.read_exact(&mut stored).map_err(|e| self.short(e))?;
        if found != u64::from_le_bytes(stored) {
            return Err(self.wrong("it is damaged: a checksum does not match"));
        }
        Ok(())
    }

    fn take(&mut self, n: usize) -> Result<&[u8], EvalError> {
        self.bytes.resize(n, 0);
        let mut bytes = std::mem::take(&mut self.bytes);
        let result = self.input.read_exact(&mut bytes);
        self.bytes = bytes;
        result.map_err(|e| self.short(e))?;
        self.hash.update(&self.bytes);
        Ok(&self.bytes)
    }

    fn u32(&mut self) -> Result<u32, EvalError> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().rev().fold(0, |v, b| v << 8 | u32::from(*b)))
    }

    fn short(&self, e: std::io::Error) -> EvalError {
        if e.kind() == std::io::ErrorKind::UnexpectedEof {
            return self.wrong("it is cut short");
        }
        EvalError::io("read", &self.path)(e)
    }

    fn wrong(&self, why: &str) -> EvalError {
        EvalError::Saved { path: self.path.clone(), why: why.to_owned() }
    }
}

/// Bytes that saved logits take: so that a person can be told before a disk is full.
pub fn size(vocab: usize, windows: &[Window]) -> u64 {
    let rows: u64 = windows.iter().map(|w| w.scored() as u64).sum();
    rows * (12 + 2 * vocab as u64)
}

/// The largest error of a probability that saving brings for this row, for tests and reports.
pub fn worst_ln_p_error(logits: &[f32], read: &[f32]) -> f64 {
    match (softmax::Row::new(logits), softmax::Row::new(read)) {
        (Some(a), Some(b)) => (0..logits.len() as u32)
            .map(|t| a.ln_p(t).exp() - b.ln_p(t).exp())
            .fold(0.0, |m: f64, d| m.max(d.abs())),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: usize = 301;

    fn rows() -> Vec<Vec<f32>> {
        let z =
            |r: usize, i: usize| 12.0 * ((i * 37 + r * 11) as f32 * 0.37).sin() - i as f32 * 0.02;
        (0..6).map(|r| (0..VOCAB).map(|i| z(r, i)).collect()).collect()
    }

    fn text() -> Text {
        Text::from_ids((0..20).collect(), Some(2))
    }

    fn description(windows: usize) -> Description {
        Description {
            model: "reference.gguf".into(),
            model_hash: "0123456789abcdef".into(),
            kv: "f32".into(),
            vocab: VOCAB,
            tokens: 20,
            ctx: 8,
            stride: 0,
            windows,
        }
    }

    fn write(path: &Path) {
        let mut w = Writer::create(path, &description(2), &text()).unwrap();
        for (i, row) in rows().iter().enumerate() {
            w.row(row, -(i as f64) - 0.1).unwrap();
            if i % 3 == 2 {
                w.seal().unwrap();
            }
        }
        assert!(!path.exists(), "nothing is there before it is whole");
        w.finish().unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logits");
        write(&path);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let mut r = Reader::open(&path).unwrap();
        assert_eq!(r.description(), &description(2));
        r.check(&text(), 8, Scheme::SecondHalf, 2, VOCAB).unwrap();
        let (mut z, mut ln_p) = (Vec::new(), Vec::new());
        for w in 0..2 {
            r.rows(3, &mut z, &mut ln_p).unwrap();
            for k in 0..3 {
                let want = &rows()[w * 3 + k];
                let got = &z[k * VOCAB..(k + 1) * VOCAB];
                assert_eq!(ln_p[k], -((w * 3 + k) as f64) - 0.1);
                assert!(worst_ln_p_error(want, got) < 3e-5);
                let (a, b) = (softmax::Row::new(want).unwrap(), softmax::Row::new(got).unwrap());
                assert!(b.divergence(&a) < 2e-7, "{}", b.divergence(&a));
                assert_eq!(a.top(), b.top());
            }
            r.check_seal().unwrap();
        }
    }

    #[test]
    fn other_texts_and_cuts_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logits");
        write(&path);
        let r = Reader::open(&path).unwrap();
        let check = |t: &Text, ctx, s, n, v| r.check(t, ctx, s, n, v).unwrap_err().to_string();
        assert!(check(&text(), 16, Scheme::SecondHalf, 2, VOCAB).contains("--ctx 8, not 16"));
        assert!(check(&text(), 8, Scheme::Stride(4), 2, VOCAB).contains("--stride"));
        assert!(check(&text(), 8, Scheme::SecondHalf, 3, VOCAB).contains("windows"));
        assert!(check(&text(), 8, Scheme::SecondHalf, 2, 300).contains("vocabulary"));
        let other = Text::from_ids((0..19).chain([7]).collect(), Some(2));
        assert!(check(&other, 8, Scheme::SecondHalf, 2, VOCAB).contains("token 19"));
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logits");
        write(&path);
        let whole = std::fs::read(&path).unwrap();
        let read = |bytes: &[u8]| -> Result<(), EvalError> {
            std::fs::write(&path, bytes).unwrap();
            let mut r = Reader::open(&path)?;
            let (mut z, mut p) = (Vec::new(), Vec::new());
            for _ in 0..2 {
                r.rows(3, &mut z, &mut p)?;
                r.check_seal()?;
            }
            Ok(())
        };
        read(&whole).unwrap();
        for at in (0..whole.len()).step_by(37).chain([whole.len() - 1]) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert!(read(&bytes).is_err(), "byte {at}");
        }
        for len in [0, 7, 20, 100, whole.len() / 2, whole.len() - 1] {
            assert!(read(&whole[..len]).is_err(), "cut to {len}");
        }
    }
}
