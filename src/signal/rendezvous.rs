//! A tiny rendezvous for two who connect to each other without this server: `POST /sig?set=ID` leaves a text, `POST /sig?get=ID` takes one.
//!
//! Nothing is lost and nothing is read twice: a reader who is gone before the text was written to him has not taken it, and an author
//! who was told that nobody came has taken it back. The server never looks into a text.

mod board;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::observe::reason::{Counters, Reason};

use self::board::{Board, ID_BYTES, Text};
use super::now;

pub use board::Limits;

/// A request waits at most this long, whatever it asks for. Longer is cut by proxies anyway.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How often a request that waits looks whether the server stops.
const LOOK_UP: Duration = Duration::from_secs(1);
/// A text that was handed to a reader is written or comes back within this.
const HANDED_FOR: Duration = Duration::from_millis(100);

/// Pages of any origin may use it: what it carries belongs to whoever knows the id.
const OPEN: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// See the module.
pub struct Rendezvous {
    board: Mutex<Board>,
    refused: Arc<Counters>,
    stopping: Box<dyn Fn() -> bool + Send + Sync>,
}

#[derive(Deserialize)]
struct Ask {
    set: Option<String>,
    get: Option<String>,
    timeoutms: Option<u64>,
}

/// `/sig`. `stopping`: whether requests should wait no longer.
pub(super) fn router(
    limits: Limits,
    refused: Arc<Counters>,
    stopping: impl Fn() -> bool + Send + Sync + 'static,
) -> Router {
    let board = Mutex::new(Board::new(limits, now()));
    let rendezvous = Arc::new(Rendezvous { board, refused, stopping: Box::new(stopping) });
    // One byte more than allowed, so that the refusal is ours and has a reason.
    let body = DefaultBodyLimit::max(limits.text_bytes + 1);
    Router::new().route("/sig", post(handle).options(preflight)).layer(body).with_state(rendezvous)
}

async fn preflight() -> Response {
    let allow = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "content-type"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    open((StatusCode::NO_CONTENT, allow).into_response())
}

async fn handle(
    State(rendezvous): State<Arc<Rendezvous>>,
    ask: Result<Query<Ask>, axum::extract::rejection::QueryRejection>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let answer = async {
        let Query(ask) = ask.map_err(|_| Reason::MessageMalformed)?;
        let wait = Duration::from_millis(ask.timeoutms.unwrap_or(0)).min(LONGEST_WAIT);
        match (ask.set, ask.get) {
            (Some(id), None) => {
                let body = body.map_err(|_| Reason::MessageTooLarge)?;
                rendezvous.set(&check_id(id)?, body, wait).await
            }
            (None, Some(id)) => rendezvous.get(check_id(id)?, wait).await,
            _ => Err(Reason::MessageMalformed),
        }
    };
    open(answer.await.unwrap_or_else(|reason| rendezvous.refuse(reason)))
}

fn open(mut response: Response) -> Response {
    for (name, value) in OPEN {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn check_id(id: String) -> Result<String, Reason> {
    let valid = !id.is_empty() && id.len() <= ID_BYTES;
    valid.then_some(id).ok_or(Reason::RendezvousId)
}

impl Rendezvous {
    fn board(&self) -> MutexGuard<'_, Board> {
        // Whatever panicked while it was held left every text in one place.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, reason: Reason) -> Response {
        self.refused.count(reason);
        let (status, hint) = match reason {
            Reason::MessageTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "A text has at most 65536 bytes."),
            Reason::RendezvousId => (StatusCode::BAD_REQUEST, "An id has 1 to 128 bytes."),
            Reason::RendezvousFull => {
                (StatusCode::TOO_MANY_REQUESTS, "Too much waits there already. Try again later.")
            }
            _ => (StatusCode::BAD_REQUEST, "Say set=ID or get=ID, and timeoutms=N if you want to wait."),
        };
        (status, axum::Json(serde_json::json!({ "reason": reason, "hint": hint }))).into_response()
    }

    async fn set(self: &Arc<Self>, id: &str, body: Bytes, wait: Duration) -> Result<Response, Reason> {
        let (number, confirmed) = self.board().put(now(), id, body, !wait.is_zero())?;
        let Some(confirmed) = confirmed else { return Ok(StatusCode::NO_CONTENT.into_response()) };
        let mut author = Author { rendezvous: self, id, number, confirmed };
        let read = author.is_read(wait).await;
        Ok(if read { StatusCode::OK } else { StatusCode::GATEWAY_TIMEOUT }.into_response())
    }

    async fn get(self: &Arc<Self>, id: String, wait: Duration) -> Result<Response, Reason> {
        let ready = self.board().take(now(), &id);
        let text = match ready {
            None if wait.is_zero() => None,
            None => {
                let text = self.board().wait(now(), &id)?;
                let mut reader = Reader { rendezvous: self, id: &id, text };
                self.while_running(wait, &mut reader.text).await.and_then(Result::ok)
            }
            ready => ready,
        };
        let Some(text) = text else { return Ok(StatusCode::NO_CONTENT.into_response()) };
        let len = text.body.len();
        let handed = Handed { rendezvous: self.clone(), id, text: Some(text) };
        // The text is taken when the connection asks for it, not before.
        let body =
            Body::from_stream(stream::once(async move { Ok::<_, std::convert::Infallible>(handed.take()) }));
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (header::CONTENT_LENGTH, len.into()),
        ];
        Ok((headers, body).into_response())
    }

    /// Waits for `what`, no longer than `wait` and not while the server stops.
    async fn while_running<T>(&self, wait: Duration, mut what: impl Future<Output = T> + Unpin) -> Option<T> {
        let until = now() + wait;
        loop {
            let rest = until.saturating_duration_since(now());
            if rest.is_zero() || (self.stopping)() {
                return None;
            }
            if let Ok(done) = timeout(rest.min(LOOK_UP), &mut what).await {
                return Some(done);
            }
        }
    }
}

/// Somebody who waits until his text was read. Whoever goes before that takes the text back.
struct Author<'a> {
    rendezvous: &'a Rendezvous,
    id: &'a str,
    number: u64,
    confirmed: oneshot::Receiver<()>,
}

impl Author<'_> {
    async fn is_read(&mut self, wait: Duration) -> bool {
        if let Some(read) = self.rendezvous.while_running(wait, &mut self.confirmed).await {
            return read.is_ok();
        }
        // It may be in somebody's hands at this moment: then it is as good as read, or comes back.
        while !self.rendezvous.board().withdraw(self.id, self.number) {
            if let Ok(read) = timeout(HANDED_FOR, &mut self.confirmed).await {
                return read.is_ok();
            }
        }
        false
    }
}

impl Drop for Author<'_> {
    fn drop(&mut self) {
        self.confirmed.close();
        self.rendezvous.board().withdraw(self.id, self.number);
    }
}

/// Somebody who waits for a text. Whoever goes in the moment in which it comes leaves it to the next.
struct Reader<'a> {
    rendezvous: &'a Rendezvous,
    id: &'a str,
    text: oneshot::Receiver<Text>,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.text.close();
        let unread = self.text.try_recv().ok();
        let mut board = self.rendezvous.board();
        match unread {
            Some(text) => board.put_back(self.id, text),
            None => board.forget_idle(self.id),
        }
    }
}

/// A text on its way out; it goes back unless it is written.
struct Handed {
    rendezvous: Arc<Rendezvous>,
    id: String,
    text: Option<Text>,
}

impl Handed {
    fn take(mut self) -> Bytes {
        let Some(mut text) = self.text.take() else { return Bytes::new() };
        text.confirm();
        std::mem::take(&mut text.body)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(text) = self.text.take() {
            self.rendezvous.board().put_back(&self.id, text);
        }
    }
}
