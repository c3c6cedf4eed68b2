//! Routes, and what answers them.

mod answer;
mod guard;
mod prompts;

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use runtime::sampler::SamplingParams;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use crate::api::{ApiError, Kind, Status};
use crate::engine::Engine;
use crate::{Look, Note, Settings};
use guard::Guard;
use prompts::Prepared;

/// The largest body of a request: some pictures in base64.
const MOST_BYTES: usize = 64 << 20;
/// See [`App::large`].
const LARGE: usize = 1 << 20;
const LARGE_AT_ONCE: usize = 2;
/// Connections at the same time; others wait to be accepted.
const MOST_CONNECTIONS: usize = 512;
/// How long a connection may say nothing between requests, or take for the head of one, and for its body.
const HEAD: Duration = Duration::from_secs(60);
const BODY: Duration = Duration::from_secs(300);
/// How often the server looks whether it is to stop, and how long it then waits for connections.
const GLANCE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(3);

/// What all requests share.
pub(crate) struct App {
    engine: Engine,
    eyes: Option<Arc<Mutex<Box<dyn Look>>>>,
    name: String,
    sampling: SamplingParams,
    seed: Option<u64>,
    log: Box<dyn Fn(Note<'_>) + Send + Sync>,
    guard: Guard,
    /// Requests of more than [`LARGE`] bytes that are read at the same time: each may take many times that.
    large: Semaphore,
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
    let (eyes, began) = (eyes.map(|eyes| Arc::new(Mutex::new(eyes))), now());
    let large = Semaphore::new(LARGE_AT_ONCE);
    let app = Arc::new(App {
        engine: engine.clone(),
        eyes,
        name,
        sampling,
        seed,
        log,
        guard,
        large,
        began,
    });
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let served = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let connections = GracefulShutdown::new();
        let told = async {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(GLANCE).await;
            }
        };
        tokio::select! {
            () = accept(&listener, router(app), &connections) => {}
            _ = engine_ended => return Err(io::Error::other("the engine's thread has ended")),
            () = told => {}
        }
        drop(listener);
        engine.stop();
        // Who keeps a connection open and says nothing is not waited for.
        let _ = tokio::time::timeout(PATIENCE, connections.shutdown()).await;
        Ok(())
    });
    // Pictures that are being looked at are of no use any more.
    runtime.shutdown_background();
    served
}

/// Serves all who come, without end.
async fn accept(
    listener: &tokio::net::TcpListener,
    router: Router,
    connections: &GracefulShutdown,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Gone before it was accepted, or there are no more files to be had for now.
            tokio::time::sleep(GLANCE).await;
            continue;
        };
        // Pieces of answers are small, and wanted at once. It is only slower without.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // What goes wrong on a connection is the other side's to know.
            let _ = connection.await;
            drop(place);
        });
    }
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
    let mut response = reply(e.status.code(), &e.json());
    let headers = response.headers_mut();
    match e.status {
        Status::Unauthorized => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Status::Unavailable => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
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

async fn model(State(app): State<Arc<App>>, id: Result<Path<String>, PathRejection>) -> Response {
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    if id == app.name {
        return reply(200, &describe(&app));
    }
    let message = format!("there is no model {id:?} here, only {:?}", app.name);
    error(&ApiError::new(Status::NotFound, message))
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Response {
    respond(&app, Kind::Chat, request, prompts::of_chat).await
}

async fn completions(State(app): State<Arc<App>>, request: Request) -> Response {
    respond(&app, Kind::Text, request, prompts::of_completions).await
}

/// Makes prompts of a request, until the flag says that nobody waits for them any more.
type Prepare<R> = fn(&App, R, &Arc<AtomicBool>) -> Result<Prepared, ApiError>;

/// Answers a request, and says what is wrong with it.
async fn respond<R: DeserializeOwned + Send + 'static>(
    app: &Arc<App>,
    kind: Kind,
    request: Request,
    prepare: Prepare<R>,
) -> Response {
    let result = match prepared(app, request, prepare).await {
        Ok(prepared) => answer::answer(app, kind, prepared).await,
        Err(e) => Err(e),
    };
    result.unwrap_or_else(|e| {
        (app.log)(Note::Refused { status: e.status.code(), message: e.message() });
        error(&e)
    })
}

/// Set when it is dropped: the request's other side is gone, or has what it needs.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a request comes to. It is read on a thread of its own, as large ones take their time, and pictures.
async fn prepared<R: DeserializeOwned + Send + 'static>(
    app: &Arc<App>,
    request: Request,
    prepare: Prepare<R>,
) -> Result<Prepared, ApiError> {
    let body = tokio::time::timeout(BODY, Bytes::from_request(request, &())).await;
    let late = || ApiError::new(Status::BadRequest, "the request did not come to its end in time");
    let body = body.map_err(|_| late())?.map_err(|e| {
        let status = match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Status::TooLarge,
            _ => Status::BadRequest,
        };
        ApiError::new(status, format!("{}; at most {MOST_BYTES} bytes are read", e.body_text()))
    })?;
    let _turn = match body.len() {
        0..=LARGE => None,
        _ => app.large.acquire().await.ok(),
    };
    let gone = Gone(Arc::default());
    let (app, flag) = (app.clone(), gone.0.clone());
    let work = tokio::task::spawn_blocking(move || {
        let request = serde_json::from_slice(&body);
        drop(body);
        let wrong =
            |e| ApiError::new(Status::BadRequest, format!("the request can't be read: {e}"));
        prepare(&app, request.map_err(wrong)?, &flag)
    });
    work.await.unwrap_or_else(|e| Err(ApiError::new(Status::Internal, e.to_string())))
}
