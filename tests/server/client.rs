//! A server that was started, and what is said to it: HTTP by hand, as some of what is tested no client would send.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use quant::DType;
use serde_json::{Value, json};

use crate::common;

/// The demo checkpoint, converted once for all tests.
static DEMO: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let dir = common::convert_dir(&folder, DType::Q8_0, DType::Q8_0);
    let path = dir.path().join("model.gguf");
    (dir, path)
});

/// The demo model's file.
pub(crate) fn demo() -> &'static str {
    DEMO.1.to_str().unwrap()
}

/// The program, about to be run.
pub(crate) fn lapidary(args: &[&str]) -> Command {
    let mut program = Command::new(assert_cmd::cargo::cargo_bin!("lapidary"));
    program.env("LAPIDARY_PIPELINE_CACHE", "off").env_remove("LAPIDARY_API_KEY").args(args);
    program
}

/// A server that is stopped with the test.
pub(crate) struct Server {
    pub(crate) child: Child,
    /// Its host and port.
    pub(crate) address: String,
    /// Kept open, as the program may still write.
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// On a port that is free, on the CPU unless `args` say otherwise.
    pub(crate) fn start(args: &[&str]) -> Server {
        let mut all = vec!["serve", demo(), "--port", "0"];
        if !args.contains(&"--device") {
            all.extend(["--device", "cpu"]);
        }
        all.extend(args);
        let child = lapidary(&all).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        Server::listening(child)
    }

    /// One that was started, with its standard output in a pipe.
    pub(crate) fn listening(mut child: Child) -> Server {
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").expect("where it listens").to_string();
        Server { child, address, _stdout: stdout }
    }

    /// Sends a request; the response is read as it comes.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let host = &self.address;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        BufReader::new(stream)
    }

    /// Status, head and body.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String, String) {
        let mut all = String::new();
        self.send(method, path, headers, body).read_to_string(&mut all).unwrap();
        let (head, mut rest) = all.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = String::new();
        if head.to_lowercase().contains("transfer-encoding: chunked") {
            while let Some((size, after)) = rest.split_once("\r\n") {
                let size = usize::from_str_radix(size, 16).unwrap();
                body += &after[..size];
                rest = &after[size + 2..];
            }
        } else {
            body += rest;
        }
        (status, head.to_string(), body)
    }

    /// Status and body of what is posted.
    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, body) = self.ask("POST", path, "", &body.to_string());
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The chunks of a stream.
    pub(crate) fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let (status, head, body) = self.ask("POST", path, "", &body.to_string());
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("text/event-stream"), "{head}");
        let lines: Vec<&str> =
            body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let (last, chunks) = lines.split_last().unwrap();
        assert_eq!(*last, "[DONE]");
        chunks.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What it says of itself.
    pub(crate) fn health(&self) -> Value {
        let (status, _, body) = self.ask("GET", "/health", "", "");
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    }

    /// Nothing is being written, after a while.
    pub(crate) fn comes_to_rest(&self) {
        let start = Instant::now();
        while self.health()["busy"] != 0 || self.health()["waiting"] != 0 {
            assert!(start.elapsed() < Duration::from_secs(20), "{}", self.health());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A conversation that begins with a question, answered by the likeliest tokens.
pub(crate) fn question(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "temperature": 0})
}

/// A question that the demo model answers, and its answer.
pub(crate) const FRANCE: &str = "What is the capital of France?";
pub(crate) const PARIS: &str = "The capital of France is Paris.";

/// A request with more fields.
pub(crate) fn with(mut request: Value, more: Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}
