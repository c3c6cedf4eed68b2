//! The chat on the terminal.

use std::path::PathBuf;

use anyhow::{Context, Result};
use runtime::chat::Message;
use runtime::generate::Generator;
use runtime::sampler::Sampler;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::run::{answer, report};
use crate::interrupt;

const HELP: &str = "\
/help            this
/clear           forget the conversation (the system prompt stays)
/system TEXT     new instructions, from the next message on; without TEXT, show them
/exit            leave; so do /quit, /bye and Ctrl-D
\"\"\"              begins and ends a message of several lines; a \\ at a line's end continues it too
Ctrl-C           stops an answer; at the prompt, drops what was typed";

/// Lines in, answers out, until the person leaves.
pub(super) fn run(
    system: Option<String>,
    mut generator: Generator,
    mut sampler: Sampler,
    limit: usize,
) -> Result<()> {
    let model = generator.session().model().clone();
    let mut editor = DefaultEditor::new().context("the terminal")?;
    let history = history_file();
    if let Some(path) = &history {
        // No history yet is the common case, and an unreadable one no reason not to chat.
        let _ = editor.load_history(path);
    }
    let name = model.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    eprintln!(
        "{name}, {} positions. /help lists the commands.",
        generator.session().cache().context()
    );
    let mut system = system;
    let mut turns: Vec<Message> = Vec::new();
    while let Some(line) = read_message(&mut editor)? {
        let line = line.trim();
        match line.split_once(char::is_whitespace).map_or((line, ""), |(a, b)| (a, b.trim())) {
            ("", _) => {}
            ("/help", _) => eprintln!("{HELP}"),
            ("/exit" | "/quit" | "/bye", _) => break,
            ("/clear", _) => {
                turns.clear();
                eprintln!("The conversation is forgotten.");
            }
            ("/system", "") => match &system {
                Some(text) => eprintln!("{text}"),
                None => eprintln!("There are no instructions."),
            },
            ("/system", text) => {
                system = Some(text.to_owned());
                eprintln!("From the next message on.");
            }
            (command, _) if command.starts_with('/') && !command[1..].contains('/') => {
                eprintln!("{command} is not a command; /help lists them.");
            }
            _ => {
                turns.push(Message::user(line));
                let said = turn(system.as_deref(), &mut turns, &mut generator, &mut sampler, limit);
                if let Err(e) = said {
                    // The conversation stays usable: /clear, or a shorter message.
                    eprintln!("lapidary: {e:#}");
                    turns.pop();
                }
            }
        }
    }
    if let Some(path) = history {
        let saved = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .map_err(ReadlineError::from)
            .and_then(|()| editor.save_history(&path));
        if let Err(e) = saved {
            eprintln!("lapidary: the history was not saved: {}: {e}", path.display());
        }
    }
    Ok(())
}

/// The model's answer to the last of `turns`, which it joins.
fn turn(
    system: Option<&str>,
    turns: &mut Vec<Message>,
    generator: &mut Generator,
    sampler: &mut Sampler,
    limit: usize,
) -> Result<()> {
    let model = generator.session().model().clone();
    let messages: Vec<Message> =
        system.map(Message::system).into_iter().chain(turns.iter().cloned()).collect();
    let ids = model.template().render(model.tokenizer(), &messages, true);
    interrupt::reset();
    let (done, text) = answer(generator, sampler, &ids, limit)?;
    println!();
    report(&done, None);
    turns.push(Message::assistant(text));
    Ok(())
}

/// One message: a line, lines continued with a backslash, or lines between `"""`. `None` at the end.
fn read_message(editor: &mut DefaultEditor) -> Result<Option<String>> {
    let mut message = String::new();
    let mut quoted = false;
    loop {
        let first = message.is_empty() && !quoted;
        match editor.readline(if first { "> " } else { ". " }) {
            Ok(line) => {
                if quoted || (first && line.trim_start().starts_with("\"\"\"")) {
                    let body = if quoted { line.as_str() } else { &line.trim_start()[3..] };
                    quoted = true;
                    if let Some(end) = body.trim_end().strip_suffix("\"\"\"") {
                        message.push_str(end);
                        break;
                    }
                    message.push_str(body);
                    message.push('\n');
                } else if let Some(more) = line.strip_suffix('\\') {
                    message.push_str(more);
                    message.push('\n');
                } else {
                    message.push_str(&line);
                    break;
                }
            }
            Err(ReadlineError::Interrupted) if first => {
                eprintln!("(Ctrl-D or /exit leaves)");
            }
            Err(ReadlineError::Interrupted) => {
                message.clear();
                quoted = false;
            }
            Err(ReadlineError::Eof) => return Ok(None),
            Err(e) => return Err(e).context("the terminal"),
        }
    }
    if !message.trim().is_empty() {
        editor.add_history_entry(message.trim()).context("the history")?;
    }
    Ok(Some(message))
}

/// Where the history is kept: the user's state folder.
fn history_file() -> Option<PathBuf> {
    let dir = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = dir("XDG_STATE_HOME")
        .or_else(|| dir("LOCALAPPDATA"))
        .or_else(|| dir("HOME").map(|h| h.join(".local/state")))?;
    Some(state.join("lapidary").join("history"))
}
