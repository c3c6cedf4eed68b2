//! `lapidary serve` as programs use it.

#[path = "server/client.rs"]
mod client;
mod common;
#[path = "server/life.rs"]
mod life;
#[path = "server/refused.rs"]
mod refused;

use std::path::Path;

use base64::Engine as _;
use serde_json::{Value, json};

use client::{FRANCE, PARIS, Server, question, with};

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
