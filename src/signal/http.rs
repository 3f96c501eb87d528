//! The HTTP side: the client's files, the WebSocket, and whether the process lives.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::rooms::Rooms;
use super::{poll, rendezvous, ws};

/// The client as it stands in the source tree; debug builds read it from there at every request.
#[derive(RustEmbed)]
#[folder = "client/"]
#[allow_missing = true]
#[include = "*.html"]
#[include = "*.js"]
#[include = "*.css"]
#[include = "*.svg"]
#[include = "*.d.ts"]
#[exclude = "node_modules/*"]
#[exclude = "test/*"]
struct Client;

/// Whoever may not run, load or frame what. Scripts and styles come from files only, so that a name or a chat
/// message that slips through as markup runs nothing. `connect-src` names the WebSocket schemes because older
/// Safari does not count them as `'self'`.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' \
     data: blob:; media-src 'self' blob:; connect-src 'self' ws: wss:; worker-src 'self'; font-src 'self'; \
     manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// On every answer: (name, value).
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // The room's name stands in the address.
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(self), microphone=(self), display-capture=(self), speaker-selection=(self), geolocation=(), \
         payment=(), usb=(), serial=()",
    ),
    // Other sites import the client's modules; nothing here is secret or depends on who asks.
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
];

/// Everything that is served.
pub fn router(rooms: Arc<Rooms>) -> Router {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { file("index.html", &headers) }))
        .merge(health())
        .merge(sig(&rooms))
        .route("/v1/ws", get(ws::upgrade))
        .route("/v1/poll", post(poll::poll))
        .route(
            "/{*path}",
            get(|Path(path): Path<String>, headers: HeaderMap| async move { file(&path, &headers) }),
        )
        .with_state(rooms)
}

/// Whether the process lives, and whether newcomers can be sent to it.
pub fn health() -> Router<Arc<Rooms>> {
    Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(ready))
}

/// 503 while the server stops, or when a worker is stuck.
async fn ready(State(rooms): State<Arc<Rooms>>) -> Response {
    if rooms.is_ready() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

fn sig(rooms: &Arc<Rooms>) -> Router<Arc<Rooms>> {
    let stopping = Arc::downgrade(rooms);
    let stopping = move || stopping.upgrade().is_none_or(|rooms| rooms.is_stopping());
    rendezvous::router(rendezvous::Limits::default(), rooms.door.refused.clone(), stopping).with_state(())
}

fn file(path: &str, request: &HeaderMap) -> Response {
    let mut response = match Client::get(path) {
        Some(file) => content(path, file, request),
        None => (StatusCode::NOT_FOUND, "Not found.\n").into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Browsers keep the file but ask every time: a call must not mix files of two versions, and a page of a dozen
/// small files costs little to ask for.
fn content(path: &str, file: EmbeddedFile, request: &HeaderMap) -> Response {
    let hash = file.metadata.sha256_hash();
    let tag = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let tag = format!("\"{tag}\"");
    let known = request.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let unchanged = known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag));
    let body = if unchanged { Body::empty() } else { Body::from(file.data) };
    let status = if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let headers = [
        (header::CONTENT_TYPE, content_type(path)),
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, &tag),
    ];
    (status, headers, body).into_response()
}

/// Modules run only with a JavaScript type.
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("ts") => "application/typescript; charset=utf-8",
        _ => "application/octet-stream",
    }
}
