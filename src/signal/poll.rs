//! The long poll carrier, for networks in which WebSockets do not work: each request brings messages up, each answer
//! messages down.
//!
//! A request *listens* when it has time to wait or nothing to say; any other only delivers. So what is said down always
//! comes in the answers of one request after another, and its order cannot be lost between two of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::{sleep, timeout};

use crate::observe::people::CarrierKind;
use crate::observe::reason::Reason;

use super::carrier::{Carrier, Close, Outgoing};
use super::gate::{Origin, admit, check_page, tell};
use super::limit::{Connected, Rate};
use super::message::{CarrierId, Closed, FromClient, FromServer, Incoming, Objection, SizeLimits, decode};
use super::room::{refuse, session_unknown};
use super::rooms::{Event, Handle, Rooms};
use super::{Settings, lock, now};

/// How long an answer may wait at most. Longer saves requests, but proxies cut off what is quiet for 30 s.
const WAIT_AT_MOST: Duration = Duration::from_millis(25_000);
/// How long the first answer waits for the room. More bears a busier server, less tells the client sooner.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Without a request for this long a carrier is lost. Longer bears slower networks between two requests, shorter
/// keeps less for clients that are gone.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// In which a request must have been read. Longer bears slower networks, shorter holds less for a client that
/// dribbles.
const READ_WITHIN: Duration = Duration::from_secs(15);
/// Requests of one carrier at a time: one that listens, one that delivers, and as many that are about to end.
const REQUESTS: usize = 4;
/// For the line that names the carrier, beside what a frame may hold.
const NAME_BYTES: usize = 1024;
/// After so much an answer ends, and the rest comes with the next. More saves requests, less bounds memory.
const ANSWER_BYTES: usize = 1 << 20;

/// The long poll carriers that are open, by their secret.
#[derive(Default)]
pub(super) struct Polls(Mutex<HashMap<String, Arc<Poll>>>);

impl Polls {
    fn get(&self, id: &str) -> Option<Arc<Poll>> {
        lock(&self.0).get(id).cloned()
    }

    /// Returns false when there are too many.
    fn insert(&self, id: String, poll: Arc<Poll>, settings: &Settings) -> bool {
        let mut polls = lock(&self.0);
        let fits = polls.len() < settings.poll_carriers;
        if fits {
            polls.insert(id, poll);
        }
        fits
    }

    fn remove(&self, id: &str) {
        lock(&self.0).remove(id);
    }

    fn is_full(&self, settings: &Settings) -> bool {
        lock(&self.0).len() >= settings.poll_carriers
    }
}

/// One carrier.
struct Poll {
    id: String,
    carrier: Carrier,
    room: Handle,
    /// Held by the request that listens.
    outgoing: AsyncMutex<Outgoing>,
    /// Counts the requests that listened: a newer one sends the older home.
    turn: watch::Sender<u64>,
    /// Held by the request that delivers, so that messages stay in order.
    rate: AsyncMutex<Rate>,
    requests: watch::Sender<Requests>,
    /// Counts it among the connections of its address.
    _connected: Connected,
}

#[derive(Clone, Copy, Debug, Default)]
struct Requests {
    open: usize,
    /// The client was told that the carrier is closed.
    over: bool,
}

/// A request that is under way.
struct Open<'a>(&'a Poll);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.requests.send_modify(|requests| requests.open -= 1);
    }
}

/// What a request's body says.
#[derive(Debug)]
pub enum Batch<'a> {
    /// Opens a carrier.
    First(Box<Incoming>),
    /// The carrier's secret, and messages, not yet read.
    Later(String, Vec<&'a str>),
}

/// Takes a body apart.
///
/// # Errors
/// It is not text, its first line is no message, or more follows where nothing may.
pub fn batch<'a>(body: &'a [u8], sizes: &SizeLimits) -> Result<Batch<'a>, Objection> {
    let malformed = |hint: &'static str| Objection::new(Reason::MessageMalformed, hint);
    let text = std::str::from_utf8(body).map_err(|_| malformed("Messages are lines of UTF-8."))?;
    let mut lines = text.split('\n').filter(|line| !line.trim_ascii().is_empty());
    let first = decode(lines.next().unwrap_or_default(), sizes)?;
    match first.body {
        Ok(Some(FromClient::Poll(CarrierId { id }))) => Ok(Batch::Later(id, lines.collect())),
        _ if lines.next().is_some() => Err(malformed("A carrier begins with one message alone.")),
        _ => Ok(Batch::First(Box::new(first))),
    }
}

#[derive(serde::Deserialize)]
struct Wait {
    #[serde(default)]
    timeoutms: u64,
}

/// `POST /v1/poll`.
pub(super) async fn poll(State(rooms): State<Arc<Rooms>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let rejected = |status, objection: Objection| {
        rooms.door.refused.count(objection.reason);
        answer(status, &[written(&objection.refuse())])
    };
    if let Err((status, reason)) = check_page(&rooms, &parts.headers) {
        return rejected(status, Objection::new(reason, "This page may not join calls here."));
    }
    let Ok(Query(Wait { timeoutms })) = Query::<Wait>::try_from_uri(&parts.uri) else {
        let hint = "timeoutms is a number of milliseconds.";
        return rejected(StatusCode::BAD_REQUEST, Objection::new(Reason::MessageMalformed, hint));
    };
    let sizes = &rooms.door.settings.sizes;
    let body = match timeout(READ_WITHIN, to_bytes(body, sizes.frame_bytes + NAME_BYTES)).await {
        Ok(Ok(body)) => body,
        // A client that broke off in between reads no answer.
        Ok(Err(_)) => {
            let hint = format!("At most {} bytes.", sizes.frame_bytes);
            return rejected(StatusCode::PAYLOAD_TOO_LARGE, Objection::new(Reason::MessageTooLarge, hint));
        }
        Err(_) => {
            let hint = "The request did not come in time.";
            return rejected(StatusCode::REQUEST_TIMEOUT, Objection::new(Reason::HelloMissing, hint));
        }
    };
    match batch(&body, sizes) {
        Ok(Batch::First(first)) => match Origin::of(&rooms, &parts.headers, &parts.extensions) {
            Ok(origin) => open(&rooms, origin, Ok(*first)).await,
            Err((status, reason)) => {
                rejected(status, Objection::new(reason, "No more connections at present.").retry(5000))
            }
        },
        Ok(Batch::Later(id, messages)) => {
            let Some(poll) = rooms.polls.get(&id) else {
                return rejected(StatusCode::NOT_FOUND, session_unknown());
            };
            let Some(_open) = poll.begin() else {
                let hint = "Too many requests of one carrier at a time.";
                return rejected(StatusCode::TOO_MANY_REQUESTS, Objection::new(Reason::RateLimited, hint));
            };
            let wait = Duration::from_millis(timeoutms).min(WAIT_AT_MOST);
            answer(StatusCode::OK, &poll.serve(&rooms, &messages, wait).await)
        }
        Err(objection) => rejected(StatusCode::BAD_REQUEST, objection),
    }
}

/// The first request of a carrier.
async fn open(rooms: &Arc<Rooms>, origin: Origin, first: Result<Incoming, Objection>) -> Response {
    let (carrier, outgoing) = Carrier::new(now());
    let carrier = carrier.of_kind(CarrierKind::LongPoll);
    let id = format!("{:032x}", rand::random::<u128>());
    let name = written(&FromServer::Carrier(CarrierId { id: id.clone() }));
    let room = if rooms.polls.is_full(&rooms.door.settings) {
        let hint = "Too many clients without WebSockets.";
        refuse(&rooms.door, &carrier, Objection::new(Reason::Overloaded, hint).retry(30_000));
        None
    } else {
        admit(rooms, &carrier, &origin, first).await
    };
    let Some(room) = room else {
        let mut outgoing = outgoing;
        let (mut texts, closed) = take(&mut outgoing);
        texts.insert(0, name);
        texts.extend(closed.map(closing));
        return answer(StatusCode::OK, &texts);
    };
    let poll = Arc::new(Poll {
        id: id.clone(),
        carrier,
        room,
        outgoing: AsyncMutex::new(outgoing),
        turn: watch::Sender::default(),
        rate: AsyncMutex::new(Rate::of_messages(&rooms.door.settings)),
        requests: watch::Sender::default(),
        _connected: origin.connected,
    });
    let _open = poll.begin();
    if rooms.polls.insert(id, poll.clone(), &rooms.door.settings) {
        tokio::spawn(keep(rooms.clone(), poll.clone()));
    } else {
        // Filled up in this moment: the client resumes on whatever it gets.
        poll.carrier.close(Close::Slow);
    }
    let mut texts = vec![name];
    texts.extend(poll.serve(rooms, &[], OPEN_WITHIN).await);
    answer(StatusCode::OK, &texts)
}

/// Notices that a carrier is not used any more.
async fn keep(rooms: Arc<Rooms>, poll: Arc<Poll>) {
    let mut requests = poll.requests.subscribe();
    loop {
        // The sender lives in `poll`, so waiting cannot fail.
        let _ = requests.wait_for(|requests| requests.over || requests.open == 0).await;
        let used = requests.wait_for(|requests| requests.over || requests.open > 0);
        let used = timeout(LOST_AFTER, used).await.is_ok();
        if !used || poll.requests.borrow().over {
            break;
        }
    }
    rooms.polls.remove(&poll.id);
    poll.carrier.close(Close::Slow);
    // A room that is over needs no news; one that closed the carrier itself knows it no more.
    let _ = poll.room.send(Event::Lost { carrier: poll.carrier.id(), clean: false }).await;
}

impl Poll {
    fn begin(&self) -> Option<Open<'_>> {
        let begun = self.requests.send_if_modified(|requests| {
            let fits = requests.open < REQUESTS;
            requests.open += usize::from(fits);
            fits
        });
        begun.then(|| Open(self))
    }

    /// Delivers messages and listens for others.
    async fn serve(&self, rooms: &Rooms, messages: &[&str], wait: Duration) -> Vec<String> {
        self.carrier.heard(now());
        let listens = messages.is_empty() || !wait.is_zero();
        // The older one goes home now, not when everything is delivered.
        let mut mine = 0;
        if listens {
            self.turn.send_modify(|turn| {
                *turn += 1;
                mine = *turn;
            });
        }
        self.deliver(rooms, messages).await;
        if listens { self.listen(mine, wait).await } else { Vec::new() }
    }

    async fn deliver(&self, rooms: &Rooms, messages: &[&str]) {
        if messages.is_empty() {
            return;
        }
        let rate = self.rate.lock().await;
        for text in messages {
            // A client above its rate is slowed down by its own request and loses nothing.
            while let Err(wait) = rate.pay_message(text.len()) {
                rooms.door.refused.count(Reason::RateLimited);
                sleep(wait).await;
            }
            let incoming = decode(text, &rooms.door.settings.sizes);
            if !tell(&self.room, self.carrier.id(), incoming).await {
                self.carrier.close(Close::Ended);
                return;
            }
        }
    }

    /// What is said within `wait`, unless a newer request listens.
    async fn listen(&self, turn: u64, wait: Duration) -> Vec<String> {
        let mut turns = self.turn.subscribe();
        let heard = async {
            let mut outgoing = self.outgoing.lock().await;
            let first = tokio::select! {
                biased;
                first = outgoing.next() => first,
                () = sleep(wait) => None,
            };
            let (rest, closed) = take(&mut outgoing);
            (first, rest, closed)
        };
        let (first, rest, closed) = tokio::select! {
            biased;
            _ = turns.wait_for(|newest| *newest != turn) => return Vec::new(),
            heard = heard => heard,
        };
        let mut texts: Vec<_> = first.into_iter().chain(rest).collect();
        if let Some(why) = closed {
            texts.push(closing(why));
            self.requests.send_modify(|requests| requests.over = true);
        }
        texts
    }
}

/// Whatever may be said now, and why nothing will follow.
fn take(outgoing: &mut Outgoing) -> (Vec<String>, Option<Close>) {
    // Asked first: what was said before the end is in the queue when the end is seen.
    let closing = outgoing.closing();
    let (mut texts, mut bytes) = (Vec::new(), 0);
    while bytes < ANSWER_BYTES {
        let Some(text) = outgoing.try_next() else { return (texts, closing) };
        bytes += text.len();
        texts.push(text);
    }
    (texts, None)
}

fn closing(why: Close) -> String {
    written(&FromServer::Closed(Closed { code: why.code() }))
}

fn written(message: &FromServer) -> String {
    serde_json::to_string(message).expect("messages are plain data")
}

fn answer(status: StatusCode, texts: &[String]) -> Response {
    let mut body = String::with_capacity(texts.iter().map(|text| text.len() + 1).sum());
    for text in texts {
        body.push_str(text);
        body.push('\n');
    }
    // Pages of other origins, which were let in or refused before, may read the answer; nobody may keep it.
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}
