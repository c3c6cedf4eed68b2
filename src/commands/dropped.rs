//! Pictures in what was typed: terminals write the path of a file that is dropped on them.

use std::path::{Path, PathBuf};

/// A piece of a message as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Words.
    Text(String),
    /// The path of a picture that exists.
    Picture(PathBuf),
}

/// What looks like the path of a picture in a line and is none: it goes to the model as words, and the
/// person who typed it should know.
pub(super) fn missing(line: &str) -> Vec<String> {
    let (mut missing, mut rest) = (Vec::new(), line.trim_start());
    while !rest.is_empty() {
        let (length, word) = word(rest);
        let mut end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        match (picture(&word), names(&word).next_back()) {
            (Some(_), _) => end = length,
            (None, Some((path, _))) => {
                missing.push(path.display().to_string());
                end = length;
            }
            (None, None) => {}
        }
        rest = rest[end..].trim_start();
    }
    missing
}

/// The pictures in a line, and the text around them.
///
/// A word is a picture when it is the path of a file that exists, begins as dropped paths do (`/`,
/// `~/`, `./`, `../`, `file://`, a drive) or with a folder, and ends as the names of pictures do. It may be quoted,
/// have escaped spaces, and be followed by punctuation.
pub(super) fn pieces(line: &str) -> Vec<Piece> {
    let (mut pieces, mut text, mut rest) = (Vec::new(), String::new(), line);
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            text.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (length, word) = word(rest);
        match picture(&word) {
            Some((path, after)) => {
                push_text(&mut pieces, &mut text);
                pieces.push(Piece::Picture(path));
                text.push_str(after);
                rest = &rest[length..];
            }
            None => {
                // As it stands, up to the next space: quotes in prose hold many words.
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                text.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        }
    }
    push_text(&mut pieces, &mut text);
    pieces
}

fn push_text(pieces: &mut Vec<Piece>, text: &mut String) {
    if !text.trim().is_empty() {
        pieces.push(Piece::Text(text.trim().to_string()));
    }
    text.clear();
}

/// The path that was typed after a command: all of it, or what it means to a shell.
pub(super) fn path(typed: &str) -> PathBuf {
    let typed = typed.trim();
    if Path::new(typed).is_file() {
        return typed.into();
    }
    let (length, word) = word(typed);
    let whole = if length == typed.len() { word.as_str() } else { typed };
    located(whole)
}

/// The word at the beginning, quotes and escapes undone, and its length as it is typed.
fn word(typed: &str) -> (usize, String) {
    // Quotes count only in words that begin with one: people write apostrophes.
    let quotes = typed.starts_with(['"', '\'']);
    let escapes = !cfg!(windows);
    let (mut word, mut quote) = (String::new(), None);
    let mut chars = typed.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => word.push(c),
            (None, c) if c.is_whitespace() => return (at, word),
            (None, '"' | '\'') if quotes => quote = Some(c),
            (_, '\\') if escapes => word.extend(chars.next().map(|(_, c)| c)),
            (_, c) => word.push(c),
        }
    }
    (typed.len(), word)
}

/// The picture that a word names, and the punctuation behind it.
fn picture(word: &str) -> Option<(PathBuf, &str)> {
    names(word).find(|(path, _)| path.is_file())
}

/// What a word may mean where it looks like the path of a picture, and the punctuation behind it.
fn names(word: &str) -> impl DoubleEndedIterator<Item = (PathBuf, &str)> {
    let drive =
        |w: &str| matches!(w.as_bytes(), [d, b':', b'\\' | b'/', ..] if d.is_ascii_alphabetic());
    let begins = ["/", "~/", "./", "../", "file://"];
    let bare = word.trim_end_matches(['.', ',', ';', ':', '?', '!', ')']);
    // A name alone may be what people talk about; with a folder before it it is where a file is.
    let is_there = bare.contains(['/', std::path::MAIN_SEPARATOR]) && Path::new(bare).is_file();
    let looks_so = begins.iter().any(|b| word.starts_with(b)) || drive(word) || is_there;
    [word, bare].into_iter().filter(move |_| looks_so).filter_map(move |name| {
        let path = located(name);
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        let known = vision::EXTENSIONS.contains(&ending.as_str());
        known.then(|| (path, &word[name.len()..]))
    })
}

/// Where a path leads: URLs of files and the home folder resolved.
fn located(name: &str) -> PathBuf {
    if let Some(url) = name.strip_prefix("file://") {
        let path = url.strip_prefix("localhost").unwrap_or(url);
        let path = percent_decoded(path);
        // file:///C:/pictures: the drive follows a slash.
        let bytes = path.as_bytes();
        return match bytes {
            [b'/', d, b':', ..] if cfg!(windows) && d.is_ascii_alphabetic() => path[1..].into(),
            _ => path.into(),
        };
    }
    match (name.strip_prefix("~/"), std::env::home_dir()) {
        (Some(inside), Some(home)) => home.join(inside),
        _ => name.into(),
    }
}

/// `%20` as a space; what is no such code stays. Bytes that make no text are no path.
fn percent_decoded(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let code = match (first, after) {
            (b'%', [a, b, ..]) => {
                let digit = |d: u8| char::from(d).to_digit(16);
                digit(*a).zip(digit(*b)).map(|(a, b)| (a * 16 + b) as u8)
            }
            _ => None,
        };
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with pictures in it (empty files: only names count), and what is in a line.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["a.png", "my cat.JPG", "it's.webp", "notes.txt", "ü 100%.gif"] {
                std::fs::write(dir.path().join(name), "").unwrap();
            }
            Folder(dir)
        }

        fn at(&self, name: &str) -> String {
            self.0.path().join(name).to_str().unwrap().to_string()
        }

        fn picture(&self, name: &str) -> Piece {
            Piece::Picture(self.0.path().join(name))
        }
    }

    fn text(t: &str) -> Piece {
        Piece::Text(t.into())
    }

    #[test]
    #[cfg(unix)]
    fn dropped_paths_are_pictures() {
        let f = Folder::new();
        let cat = f.picture("my cat.JPG");
        let escaped = f.at("my cat.JPG").replace(' ', "\\ ");
        let url = format!("file://{}", f.at("my%20cat.JPG"));
        for path in [
            &format!("'{}'", f.at("my cat.JPG")),
            &format!("\"{}\"", f.at("my cat.JPG")),
            &escaped,
            &url,
        ] {
            assert_eq!(pieces(path), std::slice::from_ref(&cat), "{path}");
            assert_eq!(super::path(path), f.0.path().join("my cat.JPG"), "{path}");
            let line = format!("What is {path}? Tell me.");
            let expected = [text("What is"), cat.clone(), text("? Tell me.")];
            assert_eq!(pieces(&line), expected, "{line}");
        }
        let quoted = format!("'{}'", f.at("it's.webp").replace('\'', "'\\''"));
        let line = format!("{} or {quoted}", f.at("a.png"));
        assert_eq!(pieces(&line), [f.picture("a.png"), text("or"), f.picture("it's.webp")]);
        let url = format!("file://localhost{}", f.at("%C3%BC%20100%25.gif"));
        assert_eq!(pieces(&url), [f.picture("ü 100%.gif")]);
        assert_eq!(super::path(&f.at("my cat.JPG")), f.0.path().join("my cat.JPG"));
    }

    /// Tests run in the package's folder.
    #[test]
    fn paths_from_here_are_pictures_where_there_is_one() {
        let here = "tests/fixtures/pictures/grey16.png";
        let found = [text("What is"), Piece::Picture(here.into()), text("?")];
        assert_eq!(pieces(&format!("What is {here}?")), found);
        for line in ["What is grey16.png?", "Is it this and/or.png that?"] {
            assert_eq!(pieces(line), [text(line)]);
            assert!(missing(line).is_empty(), "{line}");
        }
    }

    #[test]
    #[cfg(windows)]
    fn dropped_paths_are_pictures() {
        let f = Folder::new();
        let cat = f.picture("my cat.JPG");
        let url = format!("file:///{}", f.at("my%20cat.JPG").replace('\\', "/"));
        for path in [&format!("\"{}\"", f.at("my cat.JPG")), &url] {
            let found = pieces(path);
            let [Piece::Picture(found)] = &found[..] else { panic!("{path}: {found:?}") };
            assert!(found.is_file() && found.ends_with("my cat.JPG"), "{path}");
            let line = format!("What is {path}? Tell me.");
            let expected = [text("What is"), Piece::Picture(found.clone()), text("? Tell me.")];
            assert_eq!(pieces(&line), expected, "{line}");
        }
        // A folder's backslashes are no escapes.
        let line = format!("{} or {}", f.at("a.png"), f.at("it's.webp"));
        assert_eq!(pieces(&line), [f.picture("a.png"), text("or"), f.picture("it's.webp")]);
        assert_eq!(super::path(&f.at("my cat.JPG")), f.0.path().join("my cat.JPG"));
        assert_eq!(pieces(&format!("\"{}\"", f.at("my cat.JPG"))), [cat]);
        let gone = format!("C:{0}gone{0}cat.jpg", '\\');
        assert_eq!(missing(&format!("What is {gone}?")), [gone]);
    }

    #[test]
    fn other_words_are_text() {
        let f = Folder::new();
        for line in [
            "don't and \"quoted words\" and 'more",
            "a.png and ./no-such.png",
            "1/2 is /not/a/path.png",
            "ends with \\",
            "file:// file://%zz %",
            "'",
            &format!("see {}", f.at("notes.txt")),
        ] {
            assert_eq!(pieces(line), [text(line)], "{line}");
        }
        assert_eq!(pieces("  "), []);
    }

    #[test]
    #[cfg(unix)]
    fn what_is_not_there_is_named() {
        let f = Folder::new();
        let line =
            format!("Is {} like ./no.png, or '/gone/my cat.JPG'? 1/2 /a/b.txt", f.at("a.png"));
        assert_eq!(missing(&line), ["./no.png", "/gone/my cat.JPG"]);
        assert!(missing("don't 'look for \"pictures\" in /usr/bin").is_empty());
    }
}
