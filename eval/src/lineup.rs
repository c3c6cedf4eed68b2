//! Models side by side over one text, window by window, each token scored as it comes.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use runtime::{Batch, Model, Row as BatchRow, Session, SessionOptions};

use crate::saved::{Description, Reader, Writer};
use crate::scores::{RefRow, Scores, TokenScore};
use crate::softmax::{Row, TOP};
use crate::text::{Scheme, Text, Window};
use crate::{EvalError, hash};

/// Logits that a batch may ask for: 128 MiB of them.
const LOGITS: usize = 32 << 20;

/// How models are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tokens a window.
    pub ctx: usize,
    /// How the text is cut.
    pub scheme: Scheme,
    /// Read no more windows than this.
    pub limit: Option<usize>,
    /// Threads, kernels; the KV type is chosen for each model.
    pub session: SessionOptions,
}

/// A model that is run.
struct Runner {
    name: String,
    session: Session,
    batch: Batch,
}

impl Runner {
    fn new(
        name: &str,
        model: Arc<Model>,
        kv: runtime::KvType,
        o: &Options,
    ) -> Result<Self, EvalError> {
        let options = SessionOptions {
            context: Some(o.ctx),
            kv_type: kv,
            sequences: 1,
            batch: o.session.batch.min(o.ctx),
            ..o.session.clone()
        };
        let session = Session::new(model, &options)?;
        Ok(Runner { name: name.to_owned(), session, batch: Batch::default() })
    }

    fn vocab(&self) -> usize {
        self.session.model().weights().vocab()
    }

    /// Runs the tokens of `range` of a window (its first forgets what was before); logits of the
    /// last `wanted`.
    fn run(
        &mut self,
        tokens: &[u32],
        range: Range<usize>,
        wanted: usize,
    ) -> Result<(&[f32], Duration), EvalError> {
        if range.start == 0 {
            self.session.truncate(0, 0);
        }
        self.batch.clear();
        for pos in range.clone() {
            let row = BatchRow { token: tokens[pos], seq: 0, pos };
            self.batch.push(row, pos >= range.end - wanted);
        }
        let start = Instant::now();
        let logits = self.session.forward(&self.batch)?;
        Ok((logits, start.elapsed()))
    }
}

/// Where the reference's logits come from.
enum Reference {
    Run(Box<Runner>),
    Saved(Box<Reader>),
}

/// Logits of the reference for one batch.
#[derive(Default)]
struct RefBatch {
    logits: Vec<f32>,
    /// From saved logits: ln p of each correct token.
    ln_p: Vec<f64>,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Windows done, of so many.
    pub windows: (usize, usize),
    /// What has been measured so far, model by model.
    pub scores: &'a [Scores],
}

/// Models to be measured on one text, beside a reference or not.
pub struct Lineup {
    options: Options,
    text: Text,
    windows: Vec<Window>,
    models: Vec<Runner>,
    reference: Option<Reference>,
    saving: Option<Writer>,
    /// For what is done with logits; models have threads of their own.
    pool: rayon::ThreadPool,
}

impl Lineup {
    /// Begins with the first model, whose tokenizer cuts the text.
    ///
    /// # Errors
    /// Those of [`Text::windows`], and of setting up a session.
    pub fn new(
        options: Options,
        text: &str,
        name: &str,
        model: Arc<Model>,
        kv: runtime::KvType,
    ) -> Result<Self, EvalError> {
        let text = Text::new(model.tokenizer(), text);
        let windows = text.windows(options.ctx, options.scheme, options.limit)?;
        let runner = Runner::new(name, model, kv, &options)?;
        let threads = runner.session.cpu().threads();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| {
            EvalError::Runtime(runtime::RuntimeError::Threads { threads, why: e.to_string() })
        })?;
        Ok(Lineup {
            options,
            text,
            windows,
            models: vec![runner],
            reference: None,
            saving: None,
            pool,
        })
    }

    /// The text.
    pub fn text(&self) -> &Text {
        &self.text
    }

    /// Its windows.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Adds a model, which must turn `text` (the one that the lineup began with) to the same tokens.
    ///
    /// # Errors
    /// [`EvalError::OtherTokens`], [`EvalError::OtherVocabulary`], and of setting up a session.
    pub fn add(
        &mut self,
        text: &str,
        name: &str,
        model: Arc<Model>,
        kv: runtime::KvType,
    ) -> Result<(), EvalError> {
        self.same_tokens(text, name, &model)?;
        self.models.push(Runner::new(name, model, kv, &self.options)?);
        Ok(())
    }

    /// Measures against this model.
    ///
    /// # Errors
    /// As [`Lineup::add`].
    pub fn against(
        &mut self,
        text: &str,
        name: &str,
        model: Arc<Model>,
        kv: runtime::KvType,
    ) -> Result<(), EvalError> {
        self.same_tokens(text, name, &model)?;
        let runner = Runner::new(name, model, kv, &self.options)?;
        self.reference = Some(Reference::Run(Box::new(runner)));
        Ok(())
    }

    /// Measures against logits that were saved.
    ///
    /// # Errors
    /// [`EvalError::Saved`] when they are damaged or for something else.
    pub fn against_saved(&mut self, path: &Path) -> Result<Description, EvalError> {
        let reader = Reader::open(path)?;
        let vocab = self.models[0].vocab();
        let o = &self.options;
        reader.check(&self.text, o.ctx, o.scheme, self.windows.len(), vocab)?;
        let description = reader.description().clone();
        self.reference = Some(Reference::Saved(Box::new(reader)));
        Ok(description)
    }

    /// Saves the logits of the reference (of the first model, where there is none).
    ///
    /// # Errors
    /// [`EvalError::Io`]; [`EvalError::Saved`] when the reference is itself saved logits.
    pub fn save(&mut self, path: &Path) -> Result<(), EvalError> {
        let runner = match &self.reference {
            Some(Reference::Run(runner)) => runner,
            Some(Reference::Saved(_)) => {
                let why = "the reference's logits are saved already".into();
                return Err(EvalError::Saved { path: path.to_owned(), why });
            }
            None => &self.models[0],
        };
        let model = runner.session.model();
        let file = model.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let description = Description {
            model: file,
            model_hash: format!("{:016x}", hash::xxh64(model.bytes())),
            kv: format!("{:?}", runner.session.cache().kv_type()).to_lowercase(),
            vocab: runner.vocab(),
            tokens: self.text.ids.len(),
            ctx: self.options.ctx,
            stride: Description::scheme_number(self.options.scheme),
            windows: self.windows.len(),
        };
        self.saving = Some(Writer::create(path, &description, &self.text)?);
        Ok(())
    }

    fn same_tokens(&self, text: &str, name: &str, model: &Model) -> Result<(), EvalError> {
        let first = &self.models[0];
        let (found, expected) = (model.weights().vocab(), first.vocab());
        let (model_name, reference) = (name.to_owned(), first.name.clone());
        if found != expected {
            return Err(EvalError::OtherVocabulary {
                model: model_name,
                reference,
                found,
                expected,
            });
        }
        if Text::new(model.tokenizer(), text) != self.text {
            return Err(EvalError::OtherTokens { model: model_name, reference });
        }
        Ok(())
    }

    /// Reads all windows; `each` is told after each. When `cancel` becomes true what was scored
    /// until then is returned, and nothing is saved.
    ///
    /// # Errors
    /// [`EvalError::NotFinite`], [`EvalError::Saved`], [`EvalError::Io`].
    pub fn run(
        mut self,
        cancel: &AtomicBool,
        mut each: impl FnMut(&Progress<'_>),
    ) -> Result<Vec<Scores>, EvalError> {
        let mut scores = vec![Scores::default(); self.models.len()];
        let rows = self.models.iter().map(|m| m.session.cpu().max_rows()).min().unwrap_or(1);
        let wanted = (LOGITS / self.models[0].vocab()).max(1);
        let mut refs = RefBatch::default();
        let windows = std::mem::take(&mut self.windows);
        for (i, window) in windows.iter().enumerate() {
            for (range, n) in window.batches(rows, wanted) {
                if cancel.load(Ordering::Relaxed) {
                    return Ok(scores);
                }
                self.batch(window, range, n, &mut refs, &mut scores)?;
            }
            match &mut self.reference {
                Some(Reference::Saved(reader)) => reader.check_seal()?,
                _ => self.saving.as_mut().map_or(Ok(()), Writer::seal)?,
            }
            each(&Progress { windows: (i + 1, windows.len()), scores: &scores });
        }
        if let Some(writer) = self.saving.take() {
            writer.finish()?;
        }
        Ok(scores)
    }

    /// One batch through the reference and every model.
    fn batch(
        &mut self,
        window: &Window,
        range: Range<usize>,
        n: usize,
        refs: &mut RefBatch,
        scores: &mut [Scores],
    ) -> Result<(), EvalError> {
        let tokens = self.text.window(window);
        // Row r predicts the token after it.
        let targets = range.end - n + 1..range.end + 1;
        let at = window.start + targets.start;
        let targets = &tokens[targets];
        let has_reference = self.reference.is_some();
        match &mut self.reference {
            Some(Reference::Run(runner)) => {
                let (logits, _) = runner.run(&tokens, range.clone(), n)?;
                refs.logits.clear();
                refs.logits.extend_from_slice(logits);
            }
            Some(Reference::Saved(reader)) => reader.rows(n, &mut refs.logits, &mut refs.ln_p)?,
            None => {}
        }
        let vocab = self.models[0].vocab();
        let not_finite = |name: &str, i: usize| EvalError::NotFinite {
            model: name.to_owned(),
            position: at + i - 1,
        };
        let reference_name = match &self.reference {
            Some(Reference::Run(r)) => r.name.clone(),
            Some(Reference::Saved(r)) => r.description().model.clone(),
            None => String::new(),
        };
        let ref_rows: Vec<RefRow<'_>> = if has_reference && n > 0 {
            let refs = &*refs;
            let row = |i: usize| -> Result<RefRow<'_>, EvalError> {
                let row = Row::new(&refs.logits[i * vocab..(i + 1) * vocab])
                    .ok_or_else(|| not_finite(&reference_name, i))?;
                let ln_p = refs.ln_p.get(i).copied().unwrap_or_else(|| row.ln_p(targets[i]));
                Ok(RefRow { row, top: row.top(), ln_p })
            };
            self.pool.install(|| (0..n).into_par_iter().map(row).collect::<Result<_, _>>())?
        } else {
            Vec::new()
        };
        if let (Some(writer), true) = (&mut self.saving, has_reference) {
            for (row, logits) in ref_rows.iter().zip(refs.logits.chunks_exact(vocab)) {
                writer.row(logits, row.ln_p)?;
            }
        }
        for (m, (runner, scores)) in self.models.iter_mut().zip(scores).enumerate() {
            let name = runner.name.clone();
            let (logits, time) = runner.run(&tokens, range.clone(), n)?;
            let row = |i: usize| -> Result<(TokenScore, f64), EvalError> {
                let row = Row::new(&logits[i * vocab..(i + 1) * vocab])
                    .ok_or_else(|| not_finite(&name, i))?;
                let ln_p = row.ln_p(targets[i]);
                Ok((TokenScore::new(&row, ref_rows.get(i), targets[i]), ln_p))
            };
            let done: Vec<_> = self
                .pool
                .install(|| (0..n).into_par_iter().map(row).collect::<Result<_, EvalError>>())?;
            if let (Some(writer), true, false) = (&mut self.saving, m == 0, has_reference) {
                for ((_, ln_p), logits) in done.iter().zip(logits.chunks_exact(vocab)) {
                    writer.row(logits, *ln_p)?;
                }
            }
            scores.took(range.len(), time);
            for (i, (score, _)) in done.into_iter().enumerate() {
                scores.push(at + i, window.start, self.text.bytes(at + i..at + i + 1), score);
            }
        }
        Ok(())
    }
}

/// Likeliest tokens kept of each scored token.
pub const TOP_TOKENS: usize = TOP;
