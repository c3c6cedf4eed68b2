//! The part of the demo in which the model looks at pictures.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use runtime::chat::{Message, Part, Role};
use runtime::generate::Generator;
use runtime::sampler::{Sampler, SamplingParams};
use runtime::vision::find_mmproj;
use runtime::{Model, SessionOptions};
use vision::Rgb;

use super::devices;
use super::run::{answer, report};
use crate::args::{DemoArgs, EyeArgs};
use crate::eyes::Eyes;
use crate::{interrupt, terminal};

/// What is asked first. The demo model was trained on questions like these, but never saw a picture
/// with the same things in it.
const QUESTION: &str = "What is in the picture?";
/// The pictures, and what is asked then.
const PICTURES: [(&str, &str); 3] = [
    ("stars.png", "How many stars are there?"),
    ("heart.png", "What colour is the background?"),
    ("star-and-circle.png", "Where is the star?"),
];
/// Columns of a picture on the terminal: more would bury the answers.
const COLUMNS: usize = 36;

/// Shows pictures of `folder` and asks the model about them. A model without a vision tower, or a
/// folder that is not there, is passed over.
pub(super) fn run(model: &Path, name: &str, folder: &Path, args: &DemoArgs) -> Result<()> {
    if find_mmproj(model).is_none() || !folder.is_dir() {
        return Ok(());
    }
    outln!("\n── pictures, {name} ──")?;
    let model = Arc::new(Model::open(model)?);
    let options = SessionOptions { threads: args.threads, ..SessionOptions::default() };
    let session = devices::session(model.clone(), options, &args.device)?;
    let mut eyes = Eyes::new(model.clone(), &EyeArgs::default(), args.threads).beside(&session);
    let mut generator = Generator::new(session);
    let mut sampler = Sampler::new(SamplingParams::greedy())?;
    let (template, tokenizer) = (model.template(), model.tokenizer());
    for (file, then) in PICTURES {
        let path = folder.join(file);
        outln!("\n{}", path.display())?;
        if terminal::has_colour() {
            out!("{}", terminal::half_blocks(&Rgb::open(&path)?, COLUMNS))?;
        }
        let sight = eyes.look(&path)?;
        let mut talk = Vec::new();
        for question in [QUESTION, then] {
            outln!("\n> {question}")?;
            let mut parts = vec![Part::Text(question.into())];
            if talk.is_empty() {
                parts.insert(0, sight.part());
            }
            talk.push(Message { role: Role::User, parts });
            let prompt =
                template.render_prompt(tokenizer, &talk, true, sight.views.iter().cloned())?;
            let (done, text) = answer(&mut generator, &mut sampler, &prompt, 256)?;
            talk.push(Message::assistant(text));
            outln!()?;
            report(&done, None);
            if interrupt::stopped() {
                bail!("stopped");
            }
        }
    }
    Ok(())
}
