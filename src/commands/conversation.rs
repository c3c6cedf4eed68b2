//! A conversation in the chat: commands, messages, the pictures in them, and the answers.

use std::path::Path;

use anyhow::Result;
use runtime::chat::{Message, Part, Role};
use runtime::generate::Generator;
use runtime::sampler::Sampler;
use runtime::{Prompt, RuntimeError};

use super::dropped::{self, Piece};
use super::run::{answer, report};
use crate::eyes::{Eyes, Sight};
use crate::interrupt;

const HELP: &str = "\
/help            this
/image FILE      show a picture, with the next message; so does a picture's path anywhere in a
                 message, as a file that is dropped on the terminal leaves it
/clear           forget the conversation (the system prompt stays)
/system TEXT     new instructions, from the next message on; without TEXT, show them
/exit            leave; so do /quit, /bye and Ctrl-D
\"\"\"              begins and ends a message of several lines; a \\ at a line's end continues it too
Ctrl-C           stops an answer; at the prompt, drops what was typed";

/// What was said, and what is about to be.
pub(super) struct Conversation {
    system: Option<String>,
    turns: Vec<Turn>,
    /// Pictures for the next message.
    waiting: Vec<Sight>,
    eyes: Eyes,
    generator: Generator,
    sampler: Sampler,
    limit: usize,
}

/// A message with the pictures in it.
struct Turn {
    message: Message,
    sights: Vec<Sight>,
}

impl Conversation {
    /// Nothing said yet; the pictures in `waiting` go with the first message.
    pub(super) fn new(
        system: Option<String>,
        waiting: Vec<Sight>,
        eyes: Eyes,
        generator: Generator,
        sampler: Sampler,
        limit: usize,
    ) -> Self {
        let turns = Vec::new();
        Conversation { system, turns, waiting, eyes, generator, sampler, limit }
    }

    /// A command or a message. Says whether to go on.
    pub(super) fn hear(&mut self, line: &str) -> bool {
        // What was stopped before is over.
        interrupt::reset();
        match line.split_once(char::is_whitespace).map_or((line, ""), |(a, b)| (a, b.trim())) {
            ("", _) => {}
            ("/help", _) => eprintln!("{HELP}"),
            ("/exit" | "/quit" | "/bye", _) => return false,
            ("/clear", _) => {
                self.turns.clear();
                self.waiting.clear();
                eprintln!("The conversation is forgotten.");
            }
            ("/system", "") => match &self.system {
                Some(text) => eprintln!("{text}"),
                None => eprintln!("There are no instructions."),
            },
            ("/system", text) => {
                self.system = Some(text.to_owned());
                eprintln!("From the next message on.");
            }
            ("/image", "") => eprintln!("/image FILE: a PNG, JPEG, WebP, GIF or BMP picture."),
            ("/image", typed) => self.show(&dropped::path(typed)),
            (command, _)
                if command.starts_with('/')
                    && !command[1..].contains('/')
                    && !Path::new(command).is_file() =>
            {
                eprintln!("{command} is not a command; /help lists them.");
            }
            _ => {
                // The conversation stays usable: /clear, or a shorter message.
                if let Err(e) = self.say(line) {
                    eprintln!("lapidary: {}", crate::format::error(&e));
                    if let Some(RuntimeError::ContextFull { .. }) = e.downcast_ref() {
                        eprintln!("(/clear forgets the conversation so far)");
                    }
                }
            }
        }
        true
    }

    /// Looks at a picture, for the next message.
    fn show(&mut self, path: &Path) {
        match self.eyes.look(path) {
            Ok(sight) => {
                self.waiting.push(sight);
                eprintln!("Now say what you want to know of it.");
            }
            Err(e) => eprintln!("lapidary: {}", crate::format::error(&e)),
        }
    }

    /// A message, and the model's answer to it. A message of pictures alone waits for words.
    fn say(&mut self, line: &str) -> Result<()> {
        let pieces = dropped::pieces(line);
        for name in dropped::missing(line) {
            eprintln!("[{name} is no file here: the model gets its name only]");
        }
        let (mut parts, mut sights) = (Vec::new(), Vec::new());
        for piece in &pieces {
            match piece {
                Piece::Text(text) => parts.push(Part::Text(text.clone())),
                Piece::Picture(path) => {
                    let sight = self.eyes.look(path)?;
                    parts.push(sight.part());
                    sights.push(sight);
                }
            }
        }
        if sights.len() == pieces.len() {
            self.waiting.append(&mut sights);
            eprintln!("Now say what you want to know.");
            return Ok(());
        }
        if sights.is_empty() {
            // As it was typed: spaces between words may matter.
            parts = vec![Part::Text(line.to_string())];
        }
        // What waited stands in front.
        let waited = self.waiting.len();
        parts.splice(0..0, self.waiting.iter().map(Sight::part));
        sights.splice(0..0, self.waiting.drain(..));
        self.turns.push(Turn { message: Message { role: Role::User, parts }, sights });
        let answered = self.answer();
        if answered.is_err() {
            let turn = self.turns.pop().into_iter();
            self.waiting = turn.flat_map(|turn| turn.sights).take(waited).collect();
        }
        answered
    }

    /// The whole conversation, with the model's turn open.
    fn prompt(&self) -> Result<Prompt> {
        let model = self.generator.session().model().clone();
        let system = self.system.iter().map(|s| Message::system(s.as_str()));
        let said = self.turns.iter().map(|turn| turn.message.clone());
        let messages: Vec<Message> = system.chain(said).collect();
        let sights = self.turns.iter().flat_map(|turn| &turn.sights);
        let views = sights.flat_map(|sight| sight.views.iter().cloned());
        Ok(model.template().render_prompt(model.tokenizer(), &messages, true, views)?)
    }

    /// The model's answer to the last turn, which it joins.
    fn answer(&mut self) -> Result<()> {
        let prompt = self.prompt()?;
        let (done, text) = answer(&mut self.generator, &mut self.sampler, &prompt, self.limit)?;
        outln!()?;
        report(&done, None);
        self.turns.push(Turn { message: Message::assistant(text), sights: Vec::new() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use runtime::sampler::SamplingParams;
    use runtime::{Model, Session, SessionOptions};

    use super::*;
    use crate::args::EyeArgs;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gemma3-mm").join(name)
    }

    /// A conversation with the fixture, whose answers are nonsense and short.
    fn conversation(dir: &Path) -> Conversation {
        let path = dir.join("model.gguf");
        let options =
            convert::Options { output: Some(path.clone()), ..convert::Options::new(fixture("")) };
        convert::convert(&options, &(), &AtomicBool::new(false)).unwrap();
        let model = Arc::new(Model::open(&path).unwrap());
        let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
        let eyes = Eyes::new(model.clone(), &EyeArgs::default(), Some(1));
        let generator = Generator::new(Session::new(model, &options).unwrap());
        let sampler = Sampler::new(SamplingParams::greedy()).unwrap();
        Conversation::new(None, Vec::new(), eyes, generator, sampler, 2)
    }

    /// Positions of images in the conversation so far.
    fn images(talk: &Conversation) -> Vec<usize> {
        talk.prompt().unwrap().as_slice().images().map(|(at, _)| at).collect()
    }

    #[test]
    fn pictures_join_the_message_they_belong_to() {
        let dir = tempfile::tempdir().unwrap();
        let mut talk = conversation(dir.path());
        assert!(talk.hear(&format!("/image {}", fixture("image_1.png").display())));
        assert_eq!((talk.waiting.len(), talk.turns.len()), (1, 0));
        assert!(talk.hear("What is it?"));
        assert_eq!((talk.waiting.len(), talk.turns.len()), (0, 2));
        let first = images(&talk);
        assert_eq!(first.len(), 1);

        // A path in the line, in its place, with the earlier picture still where it was.
        assert!(talk.hear(&format!("And {} here?", fixture("image_2.png").display())));
        let parts = &talk.turns[2].message.parts;
        let expected =
            [Part::Text("And".into()), Part::Image { crops: 0 }, Part::Text("here?".into())];
        assert_eq!(*parts, expected);
        assert_eq!(images(&talk)[..1], first);
        assert_eq!(images(&talk).len(), 2);

        // A picture alone waits for words; the same one is remembered.
        assert!(talk.hear(&fixture("image_1.png").display().to_string()));
        assert_eq!((talk.waiting.len(), talk.turns.len()), (1, 4));
        let (again, before) = (&talk.waiting[0].views[0], &talk.turns[0].sights[0].views[0]);
        assert!(Arc::ptr_eq(again, before));
        assert!(talk.hear("Well?"));
        assert_eq!(images(&talk).len(), 3);
    }

    #[test]
    fn what_cannot_be_seen_leaves_the_conversation_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut talk = conversation(dir.path());
        let broken = dir.path().join("broken.png");
        std::fs::write(&broken, b"\x89PNG\r\n\x1a\n").unwrap();
        assert!(talk.hear(&format!("See {}", broken.display())));
        assert!(talk.hear(&format!("/image {}", broken.display())));
        assert!(talk.hear("/image no-such.png"));
        assert_eq!((talk.waiting.len(), talk.turns.len()), (0, 0));
        assert!(talk.hear(&format!("/image {}", fixture("image_1.png").display())));
        assert!(talk.hear("/clear"));
        assert_eq!(talk.waiting.len(), 0);
        assert!(talk.hear("Hello"));
        assert!(images(&talk).is_empty());
        assert!(!talk.hear("/exit"));
    }
}
