//! Routes, and what answers them.

mod answer;
mod guard;
mod prompts;

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, serve as run};
use runtime::sampler::SamplingParams;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::api::chat::ChatRequest;
use crate::api::completions::CompletionRequest;
use crate::api::{ApiError, Kind, Status};
use crate::engine::Engine;
use crate::{Look, Note, Settings};
use guard::Guard;

/// The largest body of a request: some pictures in base64.
const MOST_BYTES: usize = 128 << 20;
/// How often the server looks whether it is to stop, and how long it then waits for connections.
const GLANCE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(3);

/// What all requests share.
pub(crate) struct App {
    engine: Engine,
    eyes: Option<Mutex<Box<dyn Look>>>,
    name: String,
    sampling: SamplingParams,
    seed: Option<u64>,
    log: fn(Note<'_>),
    guard: Guard,
    /// When the server began, in seconds since 1970.
    began: u64,
}

pub(crate) fn serve(
    listener: TcpListener,
    session: runtime::Session,
    settings: Settings,
    stop: &AtomicBool,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let (ended, engine_ended) = oneshot::channel::<()>();
    let engine = Engine::start(session, ended)?;
    let Settings { name, sampling, seed, api_key, origins, eyes, log } = settings;
    let guard = Guard::new(address, api_key, origins);
    let (eyes, began) = (eyes.map(Mutex::new), now());
    let app =
        Arc::new(App { engine: engine.clone(), eyes, name, sampling, seed, log, guard, began });
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (leave, left) = oneshot::channel::<()>();
        let serving = run(listener, router(app)).with_graceful_shutdown(async {
            let _ = left.await;
        });
        let mut serving = std::pin::pin!(serving.into_future());
        let told = async {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(GLANCE).await;
            }
        };
        tokio::select! {
            result = &mut serving => return result,
            _ = engine_ended => return Err(io::Error::other("the engine's thread has ended")),
            () = told => {}
        }
        engine.stop();
        let _ = leave.send(());
        // Who keeps a connection open and says nothing is not waited for.
        tokio::time::timeout(PATIENCE, serving).await.unwrap_or(Ok(()))
    });
    // Pictures that are being looked at are of no use any more.
    runtime.shutdown_background();
    served
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(about))
        .route("/health", get(health))
        .route("/v1/health", get(health))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .fallback(|| async {
            error(&ApiError::new(Status::NotFound, "there is no such address here"))
        })
        .method_not_allowed_fallback(|| async {
            error(&ApiError::new(Status::WrongMethod, "this address is used with another method"))
        })
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(from_fn_with_state(app.clone(), guard::check))
        .with_state(app)
}

/// A JSON response.
fn reply(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn error(e: &ApiError) -> Response {
    reply(e.status.code(), &e.json())
}

async fn about(State(app): State<Arc<App>>) -> String {
    format!(
        "Lapidary {} serves {}.\n\n\
         POST /v1/chat/completions\nPOST /v1/completions\nGET  /v1/models\nGET  /health\n",
        env!("CARGO_PKG_VERSION"),
        app.name,
    )
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let (busy, waiting) = app.engine.load();
    reply(
        200,
        &json!({"status": "ok", "slots": app.engine.slots(), "busy": busy, "waiting": waiting}),
    )
}

fn describe(app: &App) -> Value {
    let config = app.engine.model().config();
    json!({
        "id": app.name,
        "object": "model",
        "created": app.began,
        "owned_by": "lapidary",
        "meta": {
            "n_vocab": app.engine.model().weights().vocab(),
            "n_ctx": app.engine.context(),
            "n_ctx_train": config.context_length,
            "n_embd": config.hidden,
            "size": app.engine.model().bytes().len(),
        },
    })
}

async fn models(State(app): State<Arc<App>>) -> Response {
    reply(200, &json!({"object": "list", "data": [describe(&app)]}))
}

async fn model(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    if id == app.name {
        return reply(200, &describe(&app));
    }
    let message = format!("there is no model {id:?} here, only {:?}", app.name);
    error(&ApiError::new(Status::NotFound, message))
}

/// A request's body as what it should be.
fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let body = body.map_err(|e| {
        let status = match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Status::TooLarge,
            _ => Status::BadRequest,
        };
        ApiError::new(status, format!("{}; at most {MOST_BYTES} bytes are read", e.body_text()))
    })?;
    serde_json::from_slice(&body)
        .map_err(|e| ApiError::new(Status::BadRequest, format!("the request can't be read: {e}")))
}

async fn chat(State(app): State<Arc<App>>, body: Result<Bytes, BytesRejection>) -> Response {
    respond(&app, Kind::Chat, read::<ChatRequest>(body), prompts::of_chat).await
}

async fn completions(State(app): State<Arc<App>>, body: Result<Bytes, BytesRejection>) -> Response {
    respond(&app, Kind::Text, read::<CompletionRequest>(body), prompts::of_completions).await
}

/// Answers a request, once `prepare` has made prompts of it: on a thread of its own, as pictures and long
/// texts take their time.
async fn respond<R: Send + 'static>(
    app: &Arc<App>,
    kind: Kind,
    request: Result<R, ApiError>,
    prepare: fn(&Arc<App>, R) -> Result<prompts::Prepared, ApiError>,
) -> Response {
    let prepared = match request {
        Ok(request) => {
            let app = app.clone();
            let work = tokio::task::spawn_blocking(move || prepare(&app, request)).await;
            work.unwrap_or_else(|e| Err(ApiError::new(Status::Internal, e.to_string())))
        }
        Err(e) => Err(e),
    };
    let result = match prepared {
        Ok(prepared) => answer::answer(app, kind, prepared).await,
        Err(e) => Err(e),
    };
    result.unwrap_or_else(|e| {
        (app.log)(Note::Refused { status: e.status.code(), message: e.message() });
        error(&e)
    })
}
