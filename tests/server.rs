//! `lapidary serve` as programs use it.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use base64::Engine as _;
use quant::DType;
use serde_json::{Value, json};

static DEMO: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let dir = common::convert_dir(&folder, DType::Q8_0, DType::Q8_0);
    let path = dir.path().join("model.gguf");
    (dir, path)
});

fn lapidary(args: &[&str]) -> Command {
    let mut program = Command::new(assert_cmd::cargo::cargo_bin!("lapidary"));
    program.env("LAPIDARY_PIPELINE_CACHE", "off").env_remove("LAPIDARY_API_KEY").args(args);
    program
}

/// A server that is stopped with the test.
struct Server {
    child: Child,
    address: String,
    /// Kept open, as the program may still write.
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(args: &[&str]) -> Server {
        let mut all = vec!["serve", DEMO.1.to_str().unwrap(), "--port", "0"];
        if !args.contains(&"--device") {
            all.extend(["--device", "cpu"]);
        }
        all.extend(args);
        let child = lapidary(&all).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        Server::listening(child)
    }

    /// One that was started, with its standard output in a pipe.
    fn listening(mut child: Child) -> Server {
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").expect("where it listens").to_string();
        Server { child, address, _stdout: stdout }
    }

    /// Sends a request; the response is read as it comes.
    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> BufReader<TcpStream> {
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
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
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

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, body) = self.ask("POST", path, "", &body.to_string());
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The chunks of a stream.
    fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let (status, head, body) = self.ask("POST", path, "", &body.to_string());
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("text/event-stream"), "{head}");
        let lines: Vec<&str> =
            body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let (last, chunks) = lines.split_last().unwrap();
        assert_eq!(*last, "[DONE]");
        chunks.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn health(&self) -> Value {
        let (status, _, body) = self.ask("GET", "/health", "", "");
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    }
}

impl Server {
    /// Nothing is being written, after a while.
    fn comes_to_rest(&self) {
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

fn question(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}], "temperature": 0})
}

const FRANCE: &str = "What is the capital of France?";
const PARIS: &str = "The capital of France is Paris.";

fn with(mut request: Value, more: Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[test]
fn chats_are_answered_whole_and_in_pieces() {
    let server = Server::start(&["--name", "stone"]);
    let (status, whole) = server.post("/v1/chat/completions", &question(FRANCE));
    assert_eq!(status, 200, "{whole}");
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["model"], "stone");
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": PARIS}));
    assert_eq!((&choice["finish_reason"], &choice["logprobs"]), (&json!("stop"), &Value::Null));
    assert_eq!(whole.get("error"), None);
    let usage = &whole["usage"];
    let (prompt, answer) =
        (usage["prompt_tokens"].as_u64().unwrap(), usage["completion_tokens"].as_u64().unwrap());
    assert_eq!(usage["total_tokens"], prompt + answer);
    assert_eq!(whole["timings"]["prompt_n"], prompt);

    let wants = json!({"stream": true, "stream_options": {"include_usage": true}, "model": "any",
                       "logprobs": true, "top_logprobs": 3, "user": "ignored", "seed": null});
    let chunks = server.stream("/v1/chat/completions", &with(question(FRANCE), wants));
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let of = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().map(String::from);
    assert_eq!(chunks.iter().filter_map(of).collect::<String>(), PARIS);
    let drawn: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .collect();
    assert_eq!(drawn.len() as u64, answer);
    let bytes = drawn.iter().flat_map(|d| d["bytes"].as_array().unwrap());
    let bytes: Vec<u8> = bytes.map(|b| b.as_u64().unwrap() as u8).collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), PARIS);
    for d in drawn {
        let top = d["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["token"]), (3, &d["token"]), "greedy: {d}");
        assert!(d["logprob"].as_f64().unwrap() <= 0.0);
    }
    let [.., last, usage] = &chunks[..] else { panic!("{chunks:?}") };
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["prompt_tokens"], prompt);
    assert_eq!(usage["usage"]["prompt_tokens_details"]["cached_tokens"], prompt - 1);

    // Many at once, drawn, with several answers each: the same seed gives the same.
    let wants = json!({"n": 3, "temperature": 1.0, "seed": 5, "max_tokens": 12});
    let request = with(question("Tell me a story."), wants);
    let said: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| server.post("/v1/chat/completions", &request).1))
            .collect();
        asked.into_iter().map(|t| t.join().unwrap()["choices"].clone()).collect()
    });
    assert_eq!(said[0].as_array().unwrap().len(), 3);
    assert_ne!(said[0][0]["message"], said[0][1]["message"], "each answer has its own seed");
    for other in &said[1..] {
        assert_eq!(other[0]["message"], said[0][0]["message"]);
    }
}

#[test]
fn texts_are_continued() {
    let server = Server::start(&[]);
    let wants = json!({"prompt": ["User: What is the capital of France?\nModel:", [2, 300, 301]],
                       "max_tokens": 6, "temperature": 0, "logprobs": 1});
    let (status, body) = server.post("/v1/completions", &wants);
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["object"], "text_completion");
    let choices = body["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 2);
    for (i, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], i);
        let log_probs = &choice["logprobs"];
        let tokens: String =
            log_probs["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        assert_eq!(tokens, choice["text"].as_str().unwrap());
        assert_eq!(log_probs["text_offset"][0], 0);
        assert_eq!(
            log_probs["top_logprobs"].as_array().unwrap().len(),
            log_probs["tokens"].as_array().unwrap().len()
        );
    }
    let stops = json!({"prompt": "User: What is the capital of France?\nModel:", "temperature": 0,
                       "stop": ["Paris", "."], "stream": true});
    let chunks = server.stream("/v1/completions", &stops);
    let text: String = chunks.iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, " The capital of France is ");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

/// As programs that measure models ask: how likely were these tokens?
#[test]
fn prompts_are_echoed_and_scored() {
    let server = Server::start(&[]);
    let text = "The capital of France is Paris.";
    let wants =
        json!({"prompt": [text, [2, 300, 301]], "echo": true, "logprobs": 1, "max_tokens": 0});
    let (status, body) = server.post("/v1/completions", &wants);
    assert_eq!(status, 200, "{body}");
    let first = &body["choices"][0];
    assert_eq!(first["text"], text);
    let of = |choice: &Value, list: &str| choice["logprobs"][list].as_array().unwrap().clone();
    let tokens = of(first, "tokens");
    assert_eq!(tokens[0], "<bos>");
    let said: String = tokens[1..].iter().map(|t| t.as_str().unwrap()).collect();
    assert_eq!(said, text);
    let log_probs = of(first, "token_logprobs");
    assert_eq!((log_probs.len(), &log_probs[0]), (tokens.len(), &Value::Null));
    assert!(log_probs[1..].iter().all(|p| p.as_f64().unwrap() <= 0.0));
    let top = of(first, "top_logprobs");
    assert_eq!(top[0], Value::Null);
    for (token, (p, top)) in tokens.iter().zip(log_probs.iter().zip(&top)).skip(1) {
        assert_eq!(&top[token.as_str().unwrap()], p);
    }
    assert_eq!(of(&body["choices"][1], "tokens").len(), 3);
    assert_eq!(body["usage"]["completion_tokens"], 0);

    let wants =
        json!({"prompt": text, "echo": true, "max_tokens": 3, "temperature": 0, "stream": true});
    let chunks = server.stream("/v1/completions", &wants);
    let streamed: String = chunks.iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect();
    assert!(streamed.starts_with(text) && streamed.len() > text.len(), "{streamed}");
}

/// Whatever the model would say: it was never shown any JSON.
#[test]
fn answers_have_the_form_that_is_asked_for() {
    let server = Server::start(&[]);
    let schema = json!({
        "type": "object",
        "properties": {
            "city": {"enum": ["Paris", "Rome", "Oslo"]},
            "inhabitants": {"type": "integer", "minimum": 0, "maximum": 99_999_999},
            "capital": {"type": "boolean"},
        },
        "required": ["city", "inhabitants", "capital"],
        "additionalProperties": false,
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "city", "strict": true, "schema": schema}});
    for (seed, stream) in [(1, false), (2, true), (3, false)] {
        let wants =
            json!({"response_format": format, "temperature": 1.0, "seed": seed, "stream": stream});
        let request = with(question("What is the capital of France?"), wants);
        let text = if stream {
            let chunks = server.stream("/v1/chat/completions", &request);
            assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
            chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect()
        } else {
            let (status, body) = server.post("/v1/chat/completions", &request);
            assert_eq!(status, 200, "{body}");
            body["choices"][0]["message"]["content"].as_str().unwrap().to_string()
        };
        let city: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(["Paris", "Rome", "Oslo"].contains(&city["city"].as_str().unwrap()), "{text}");
        assert!(city["inhabitants"].as_u64().unwrap() <= 99_999_999, "{text}");
        assert!(city["capital"].is_boolean() && city.as_object().unwrap().len() == 3, "{text}");
    }
    let wrong = json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "wheel"}}}});
    let (status, body) = server.post("/v1/chat/completions", &with(question("a"), wrong));
    assert_eq!((status, &body["error"]["param"]), (400, &json!("response_format")), "{body}");
}

#[test]
fn pictures_are_seen() {
    see(&Server::start(&[]));
}

/// There the tower has its turn between two passes of the session; a form has its tokens drawn on the CPU.
#[cfg(feature = "gpu")]
#[test]
fn a_gpu_serves_as_well() {
    if common::gpu::adapter().is_none() {
        return;
    }
    let server = Server::start(&["--device", "gpu"]);
    std::thread::scope(|scope| {
        let seeing = scope.spawn(|| see(&server));
        for _ in 0..3 {
            let (status, body) = server.post("/v1/chat/completions", &question(FRANCE));
            assert_eq!(status, 200, "{body}");
            assert_eq!(body["choices"][0]["message"]["content"], PARIS);
        }
        seeing.join().unwrap();
    });
    let wants = json!({"json_schema": {"enum": ["Rome", "Paris"]}});
    let (_, body) = server.post("/v1/chat/completions", &with(question(FRANCE), wants));
    let said: Value =
        serde_json::from_str(body["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert!(said == "Rome" || said == "Paris", "{body}");
}

/// Shows a server a picture, and what are none.
fn see(server: &Server) {
    let file =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/pictures/heart.png"));
    let data = base64::engine::general_purpose::STANDARD.encode(file.unwrap());
    let show = |url: &str| {
        json!({"temperature": 0, "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": "What is in the picture?"},
        ]}]})
    };
    let (status, body) =
        server.post("/v1/chat/completions", &show(&format!("data:image/png;base64,{data}")));
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["choices"][0]["message"]["content"], "I see a red heart at the bottom right.");
    for url in [
        "https://example.org/heart.png",
        "data:image/png;base64,aGVhcnQ=",
        "data:image/png;base64,?",
    ] {
        let (status, body) = server.post("/v1/chat/completions", &show(url));
        assert_eq!((status, &body["error"]["param"]), (400, &json!("messages")), "{body}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let server = Server::start(&["--ctx", "64"]);
    let chat = "/v1/chat/completions";
    let long = "bear ".repeat(100);
    for (path, body, param, says) in [
        (chat, json!({}), json!(null), "messages"),
        (chat, json!({"messages": []}), json!("messages"), "no messages"),
        (
            chat,
            json!({"messages": [{"role": "robot", "content": "a"}]}),
            json!("messages"),
            "robot",
        ),
        (chat, json!({"messages": [{"role": "user", "content": 7}]}), json!(null), "content"),
        (chat, json!({"messages": [{"role": "user"}]}), json!("messages"), "no content"),
        (chat, with(question("a"), json!({"n": 0})), json!("n"), "n is 0"),
        (chat, with(question("a"), json!({"temperature": -1})), json!("temperature"), "-1"),
        (chat, with(question("a"), json!({"temperature": 1e39})), json!("temperature"), "inf"),
        (chat, with(question("a"), json!({"top_p": 2})), json!(null), "top_p"),
        (
            chat,
            with(question("a"), json!({"repeat_penalty": 1e-45})),
            json!("repeat_penalty"),
            "100",
        ),
        (
            chat,
            with(question("a"), json!({"frequency_penalty": -3e38})),
            json!("frequency_penalty"),
            "-2",
        ),
        (chat, with(question("a"), json!({"logit_bias": {"5": 3e38}})), json!("logit_bias"), "100"),
        (chat, with(question("a"), json!({"logit_bias": {"05": 1}})), json!("logit_bias"), "05"),
        (chat, with(question("a"), json!({"max_tokens": -5})), json!("max_tokens"), "-5"),
        (chat, with(question("a"), json!({"max_tokens": 2.5})), json!(null), "whole"),
        (chat, with(question("a"), json!({"stop": long.repeat(3)})), json!("stop"), "1500 bytes"),
        (chat, with(question("a"), json!({"stop": vec!["a"; 17]})), json!("stop"), "17 texts"),
        (
            chat,
            with(question("a"), json!({"grammar": "root ::= \"a\""})),
            json!("grammar"),
            "grammar",
        ),
        (
            chat,
            with(question("a"), json!({"json_schema": {"const": 9007199254740993u64}})),
            json!("response_format"),
            "2^53",
        ),
        (
            chat,
            with(question("a"), json!({"json_schema": {"enum": vec![1; 100_000]}})),
            json!("response_format"),
            "131072",
        ),
        (
            chat,
            with(
                question("a"),
                json!({"json_schema": {"pattern": "^(a?){2000}a{2000}$", "type": "string", "format": "\u{1b}[31m"}}),
            ),
            json!("response_format"),
            "format",
        ),
        ("/v1/completions", json!({"prompt": vec!["a"; 64], "n": 5}), json!(null), "320 answers"),
        (chat, with(question("a"), json!({"top_logprobs": 3})), json!("top_logprobs"), "logprobs"),
        (
            chat,
            with(question("a"), json!({"logit_bias": {"99999": 1}})),
            json!("logit_bias"),
            "99999",
        ),
        (
            chat,
            with(question("a"), json!({"tools": [{"type": "function"}]})),
            json!("tools"),
            "tools",
        ),
        (
            chat,
            with(question("a"), json!({"response_format": {"type": "xml"}})),
            json!("response_format"),
            "xml",
        ),
        (chat, question(&long), json!(null), "--ctx"),
        ("/v1/completions", json!({"prompt": []}), json!(null), "empty"),
        ("/v1/completions", json!({"prompt": [1, 99999]}), json!("prompt"), "99999"),
        ("/v1/completions", json!({"prompt": "a", "suffix": "b"}), json!("suffix"), "suffix"),
    ] {
        let (status, answer) = server.post(path, &body);
        assert_eq!(status, 400, "{body}: {answer}");
        let error = &answer["error"];
        assert_eq!(error["param"], param, "{body}: {answer}");
        assert!(error["message"].as_str().unwrap().contains(says), "{body}: {answer}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let (_, answer) = server.post(chat, &question(&long));
    assert_eq!(answer["error"]["code"], "context_length_exceeded");
    assert_eq!(server.ask("POST", chat, "", "{\"messages\"").0, 400);
    assert_eq!(server.ask("GET", "/v1/nothing", "", "").0, 404);
    assert_eq!(server.ask("GET", "/v1/models/other", "", "").0, 404);
    let (status, _, body) = server.ask("GET", "/v1/models/%ff", "", "");
    assert!(status == 404 && body.contains("\"error\""), "{body}");
    assert_eq!(server.ask("GET", "/v1/models/model", "", "").0, 200);
    assert_eq!(server.ask("GET", chat, "", "").0, 405);
    // It goes on after all that.
    assert_eq!(server.post(chat, &question(FRANCE)).1["choices"][0]["message"]["content"], PARIS);
}

#[test]
fn keys_and_pages() {
    let server =
        Server::start(&["--api-key", "secret", "--allow-origin", "https://app.example.org"]);
    let models = |headers: &str| server.ask("GET", "/v1/models", headers, "");
    assert_eq!(models("").0, 401);
    assert_eq!(models("Authorization: Bearer wrong\r\n").0, 401);
    let (status, _, body) = models("Authorization: Bearer secret\r\n");
    let list: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &list["data"][0]["id"]), (200, &json!("model")));
    assert_eq!(server.health()["status"], "ok");
    // Browsers ask first, without a key.
    let preflight = |origin: &str| {
        let headers = format!("Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n");
        server.ask("OPTIONS", "/v1/chat/completions", &headers, "")
    };
    for origin in ["https://app.example.org", "http://localhost:3000"] {
        let (status, head, _) = preflight(origin);
        assert_eq!(status, 204, "{head}");
        assert!(head.contains(&format!("access-control-allow-origin: {origin}")), "{head}");
    }
    let (status, head, _) = preflight("https://example.org");
    assert_eq!(status, 403);
    assert!(!head.contains("access-control-allow-origin"), "{head}");
}

/// A form may turn out to be too much work only when it is gone on with; that is not the model's fault.
#[test]
fn forms_that_are_too_much_are_refused() {
    let server = Server::start(&[]);
    let mut definitions = serde_json::Map::new();
    for i in 0..2000 {
        let next = json!({"type": "array", "items": {"$ref": format!("#/$defs/{}", i + 1)}});
        definitions.insert(i.to_string(), next);
    }
    definitions.insert("2000".into(), json!({"type": "integer"}));
    let deep = json!({"$defs": definitions, "$ref": "#/$defs/0"});
    let many: serde_json::Map<_, _> =
        (0..900).map(|i| (format!("name{i}"), json!({"type": "integer"}))).collect();
    let many = json!({"type": "object", "properties": many});
    for schema in [deep, many] {
        let wants = json!({"prompt": "a", "max_tokens": 3, "json_schema": schema});
        let (status, body) = server.post("/v1/completions", &wants);
        let param = &body["error"]["param"];
        assert!(status == 200 || status == 400 && param == "response_format", "{body}");
    }
    server.comes_to_rest();
}

/// Who starts it with pipes and reads only the address loses lines, no more.
#[test]
fn nobody_need_read_what_it_says() {
    let args = ["serve", DEMO.1.to_str().unwrap(), "--port", "0", "--device", "cpu"];
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
fn keys_that_no_request_could_have_are_refused() {
    for key in ["", " ", "clé"] {
        let out =
            lapidary(&["serve", DEMO.1.to_str().unwrap(), "--api-key", key]).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{key:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

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

#[test]
fn a_port_is_taken_once() {
    let server = Server::start(&[]);
    let port = server.address.rsplit_once(':').unwrap().1;
    let out = lapidary(&["serve", DEMO.1.to_str().unwrap(), "--port", port]).output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(port) && stderr.contains("--port"), "{stderr}");
}
