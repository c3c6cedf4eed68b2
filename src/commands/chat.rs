//! The chat on the terminal.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use runtime::generate::Generator;
use runtime::sampler::Sampler;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::conversation::Conversation;
use crate::args::RunArgs;
use crate::eyes::Eyes;

/// Lines in, answers out, until the person leaves.
pub(super) fn run(
    args: &RunArgs,
    generator: Generator,
    sampler: Sampler,
    limit: usize,
) -> Result<()> {
    let model = generator.session().model().clone();
    let mut eyes = Eyes::new(model.clone(), &args.pictures.eyes, args.engine.threads)
        .beside(generator.session());
    let waiting = eyes.look_at_all(&args.pictures.images)?;
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
    let mut talk = Conversation::new(args.system.clone(), waiting, eyes, generator, sampler, limit);
    while let Some(line) = read_message(&mut editor)? {
        if !talk.hear(line.trim()) {
            break;
        }
    }
    if let Some(path) = history {
        save_history(&mut editor, &path);
    }
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

fn save_history(editor: &mut DefaultEditor, path: &Path) {
    let saved = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .map_err(ReadlineError::from)
        .and_then(|()| editor.save_history(path));
    if let Err(e) = saved {
        eprintln!("lapidary: the history was not saved: {}: {e}", path.display());
    }
}

/// Where the history is kept: the user's state folder.
fn history_file() -> Option<PathBuf> {
    let dir = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = dir("XDG_STATE_HOME")
        .or_else(|| dir("LOCALAPPDATA"))
        .or_else(|| dir("HOME").map(|h| h.join(".local/state")))?;
    Some(state.join("lapidary").join("history"))
}
