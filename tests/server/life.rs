//! Beginning, end, and those who come and go.

use std::io::BufRead;
use std::process::Stdio;

use serde_json::json;

use crate::client::{FRANCE, PARIS, Server, demo, lapidary, question, with};

/// Someone who leaves in the middle of an answer makes room.
#[test]
fn who_leaves_is_not_waited_for() {
    let server = Server::start(&["--parallel", "1", "--ctx", "1000000"]);
    let endless = with(question("Tell me a story."), json!({"stream": true, "ignore_eos": true}));
    let mut stream = server.send("POST", "/v1/chat/completions", "", &endless.to_string());
    let mut line = String::new();
    while !line.contains("\"content\":\"") || line.contains("\"content\":\"\"") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "no pieces");
    }
    assert_eq!(server.health()["busy"], 1);
    drop(stream);
    let (_, body) = server.post("/v1/chat/completions", &question(FRANCE));
    assert_eq!(body["choices"][0]["message"]["content"], PARIS);
    server.comes_to_rest();
}

/// To be told to end is no failure, and who waits for an answer learns of it.
#[cfg(unix)]
#[test]
fn it_ends_when_told_to() {
    use std::io::Read;
    use std::process::Command;
    use std::time::Duration;

    let mut server = Server::start(&["--ctx", "1000000"]);
    let endless = with(question("Tell me a story."), json!({"ignore_eos": true}));
    let mut stream = server.send("POST", "/v1/chat/completions", "", &endless.to_string());
    while server.health()["busy"] != 1 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("503") && answer.contains("the server is stopping"), "{answer}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

/// Who starts it with pipes and reads only the address loses lines, no more.
#[test]
fn nobody_need_read_what_it_says() {
    let args = ["serve", demo(), "--port", "0", "--device", "cpu"];
    let mut child = lapidary(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let unread = child.stderr.take().unwrap();
    let server = Server::listening(child);
    for _ in 0..1200 {
        assert_eq!(server.ask("POST", "/v1/completions", "", "{\"a long line\": ").0, 400);
    }
    assert_eq!(server.health()["status"], "ok");
    drop(unread);
}

#[test]
fn a_port_is_taken_once() {
    let server = Server::start(&[]);
    let port = server.address.rsplit_once(':').unwrap().1;
    let out = lapidary(&["serve", demo(), "--port", port]).output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(port) && stderr.contains("--port"), "{stderr}");
}
