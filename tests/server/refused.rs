//! What is refused, to whom, and in which words.

use serde_json::{Value, json};

use crate::client::{FRANCE, PARIS, Server, demo, lapidary, question, with};

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

#[test]
fn keys_that_no_request_could_have_are_refused() {
    for key in ["", " ", "clé"] {
        let out = lapidary(&["serve", demo(), "--api-key", key]).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{key:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
}
