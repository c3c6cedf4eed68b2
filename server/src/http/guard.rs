//! Who may ask.
//!
//! A web page that someone looks at can send requests to servers on their machine. Browsers say where such
//! a page comes from (`Origin`), and which name it was asked by (`Host`, which another name that was made to
//! mean this machine gives away).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{App, error};
use crate::Note;
use crate::api::{ApiError, Status};

/// What is asked of requests.
pub(super) struct Guard {
    api_key: Option<String>,
    origins: Vec<String>,
    /// Only this machine can ask.
    local: bool,
}

impl Guard {
    pub(super) fn new(address: SocketAddr, api_key: Option<String>, origins: Vec<String>) -> Self {
        let origins = origins.into_iter().map(|o| o.trim_end_matches('/').to_lowercase()).collect();
        Guard { api_key, origins, local: address.ip().is_loopback() }
    }

    /// May a web page from there ask?
    fn lets_in(&self, origin: &str) -> bool {
        let origin = origin.to_lowercase();
        let host = origin.split_once("://").map(|(_, host)| host);
        self.origins.iter().any(|o| o == "*" || *o == origin) || host.is_some_and(is_here)
    }

    /// Is it a name of the machine, or where pages may come from (a proxy's name)?
    fn is_called(&self, host: &str) -> bool {
        let host = host.to_lowercase();
        let mut origins = self.origins.iter().filter_map(|o| o.split_once("://"));
        is_here(&host)
            || origins.any(|(scheme, allowed)| {
                let port = if scheme == "https" { ":443" } else { ":80" };
                allowed == host.strip_suffix(port).unwrap_or(&host)
            })
            || self.origins.iter().any(|o| o == "*")
    }

    /// # Errors
    /// What is wrong with a request.
    fn check(&self, headers: &HeaderMap, path: &str) -> Result<(), ApiError> {
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or(""));
        for name in [header::HOST, header::ORIGIN] {
            if headers.get_all(&name).iter().count() > 1 {
                return Err(ApiError::new(Status::BadRequest, format!("more than one {name}")));
            }
        }
        if let Some(host) = text(header::HOST).filter(|host| self.local && !self.is_called(host)) {
            let message = format!(
                "{host:?} is no name of this machine; ask 127.0.0.1 or localhost, or start the server with \
                 --allow-origin https://{host}"
            );
            return Err(ApiError::new(Status::Forbidden, message));
        }
        if let Some(origin) = text(header::ORIGIN).filter(|origin| !self.lets_in(origin)) {
            let message =
                format!("web pages from {origin:?} may not ask; --allow-origin lets them");
            return Err(ApiError::new(Status::Forbidden, message));
        }
        let Some(key) = &self.api_key else { return Ok(()) };
        if matches!(path, "/health" | "/v1/health") {
            return Ok(());
        }
        let given = text(header::AUTHORIZATION).and_then(|value| value.split_once(' '));
        let given =
            given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, k)| k);
        match given {
            Some(given) if same(given.trim().as_bytes(), key.as_bytes()) => Ok(()),
            _ => Err(ApiError::new(
                Status::Unauthorized,
                "the server was started with an API key: send it as Authorization: Bearer KEY",
            )),
        }
    }
}

/// Is it a name of the machine itself, with or without a port?
fn is_here(host: &str) -> bool {
    // By hand: `http`'s `Authority` takes `[::1].example.org` for `[::1]`.
    let is_port = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, port)) if port.strip_prefix(':').map_or(port.is_empty(), is_port) => name,
        Some(_) => return false,
        None => match host.rsplit_once(':') {
            Some((name, port)) if is_port(port) => name,
            _ => host,
        },
    };
    let name = name.to_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Are they the same? Takes as long wherever they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Lets a request through, or not, and tells browsers which pages may read the response (Fetch standard,
/// CORS protocol).
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let origin = headers.get(header::ORIGIN).cloned();
    let asks_first = *request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    // Browsers ask without the key.
    let path = if asks_first { "/health" } else { request.uri().path() };
    let mut response = match app.guard.check(headers, path) {
        Err(e) => {
            (app.log)(Note::Refused { status: e.status.code(), message: e.message() });
            error(&e)
        }
        Ok(()) if asks_first => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => next.run(request).await,
    };
    let allowed = |origin: &HeaderValue| origin.to_str().is_ok_and(|o| app.guard.lets_in(o));
    if let Some(origin) = origin.filter(allowed) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        if asks_first {
            let any = HeaderValue::from_static;
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, any("GET, POST"));
            // Libraries send many of their own; `*` leaves out the key's.
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                any("authorization, content-type, *"),
            );
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, headers: &[(header::HeaderName, &str)], path: &str) -> u16 {
        let headers = headers.iter().map(|(k, v)| (k.clone(), HeaderValue::from_str(v).unwrap()));
        guard.check(&headers.collect(), path).map_or_else(|e| e.status.code(), |()| 200)
    }

    #[test]
    fn names_of_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "[::1]",
            "a.localhost:1",
        ] {
            assert!(is_here(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "localhost.example.org:80",
            "192.168.0.1:80",
            "[::2]",
            "0.0.0.0",
            "[::1].example.org",
            "[::1",
            "localhost:80:80",
            "127.0.0.1:x",
        ] {
            assert!(!is_here(host), "{host}");
        }
    }

    #[test]
    fn pages_from_elsewhere_are_kept_out() {
        let local: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let guard = Guard::new(local, None, vec!["https://App.example.org/".into()]);
        let of =
            |host, origin| check(&guard, &[(header::HOST, host), (header::ORIGIN, origin)], "/");
        assert_eq!(check(&guard, &[], "/"), 200);
        assert_eq!(of("localhost:8080", "http://localhost:3000"), 200);
        assert_eq!(of("localhost:8080", "https://app.example.org"), 200);
        assert_eq!(of("localhost:8080", "https://example.org"), 403);
        assert_eq!(of("localhost:8080", "null"), 403);
        assert_eq!(of("evil.example.org:8080", "http://localhost"), 403);
        assert_eq!(of("app.example.org", "http://localhost"), 200, "a proxy of that name");
        assert_eq!(of("app.example.org:443", "http://localhost"), 200);
        assert_eq!(of("app.example.org:80", "http://localhost"), 403);
        let twice = [(header::HOST, "localhost"), (header::HOST, "example.org")];
        assert_eq!(check(&guard, &twice, "/"), 400);
        let anyone = Guard::new("0.0.0.0:8080".parse().unwrap(), None, vec!["*".into()]);
        assert_eq!(
            check(&anyone, &[(header::HOST, "a.b"), (header::ORIGIN, "https://c.d")], "/"),
            200
        );
    }

    #[test]
    fn keys_are_asked_for() {
        let guard = Guard::new("0.0.0.0:80".parse().unwrap(), Some("secret".into()), Vec::new());
        let with = |value| check(&guard, &[(header::AUTHORIZATION, value)], "/v1/models");
        assert_eq!(with("Bearer secret"), 200);
        assert_eq!(with("bearer secret"), 200);
        assert_eq!(with("Bearer Secret"), 401);
        assert_eq!(with("Bearer secret2"), 401);
        assert_eq!(with("secret"), 401);
        assert_eq!(check(&guard, &[], "/v1/models"), 401);
        assert_eq!(check(&guard, &[], "/health"), 200);
    }
}
