//! The part of the demo in which the model looks at pictures.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use runtime::chat::{Message, Part, Role};
use runtime::generate::Generator;
use runtime::sampler::{Sampler, SamplingParams};
use runtime::vision::find_mmproj;
use runtime::{Model, SessionOptions};
use vision::Rgb;

use super::devices;
use super::run::{answer, report};
use crate::args::{DemoArgs, PictureArgs};
use crate::eyes::Eyes;
use crate::{interrupt, terminal};

/// What the demo model was trained to answer about a picture.
const QUESTION: &str = "What is in the picture?";
/// More would bury the rest.
const PICTURES: usize = 3;
/// Columns of a picture on the terminal.
const COLUMNS: usize = 48;

/// Shows the first pictures of a folder and asks the model what is in them. A model without a
/// vision tower, or a folder without pictures, is passed over.
pub(super) fn run(model: &Path, name: &str, folder: &Path, args: &DemoArgs) -> Result<()> {
    let pictures = pictures(folder)?;
    if find_mmproj(model).is_none() || pictures.is_empty() {
        return Ok(());
    }
    println!("\n── pictures, {name} ──");
    let model = Arc::new(Model::open(model)?);
    let options = SessionOptions { threads: args.threads, ..SessionOptions::default() };
    let session = devices::session(model.clone(), options, &args.device)?;
    let mut eyes = Eyes::new(model.clone(), &PictureArgs::default(), args.threads).beside(&session);
    let mut generator = Generator::new(session);
    let mut sampler = Sampler::new(SamplingParams::greedy())?;
    for path in pictures.iter().take(PICTURES) {
        println!("\n{}", path.display());
        if terminal::has_colour() {
            print!("{}", terminal::half_blocks(&Rgb::open(path)?, COLUMNS));
        }
        println!("> {QUESTION}");
        let sight = eyes.look(path)?;
        let parts = vec![sight.part(), Part::Text(QUESTION.into())];
        let message = Message { role: Role::User, parts };
        let (template, tokenizer) = (model.template(), model.tokenizer());
        let prompt = template.render_prompt(tokenizer, &[message], true, sight.views)?;
        let (done, _) = answer(&mut generator, &mut sampler, &prompt, 256)?;
        println!();
        report(&done, None);
        if interrupt::stopped() {
            bail!("stopped");
        }
    }
    Ok(())
}

/// The PNG files of a folder, by name; none when there is no folder.
fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let context = || folder.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
