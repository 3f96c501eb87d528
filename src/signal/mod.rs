//! A participant's door: HTTP, WebSocket, messages, sessions, rooms.
//!
//! The journey: [`serve`] accepts the connection, [`http`] the request → [`ws`] or [`poll`] carries the session → [`message`] reads what
//! arrives → [`join`] checks a `hello` and has [`negotiate`] answer its offer → [`rooms`] finds the room's task
//! → [`room`] enters the participant, whose [`session`] outlives the connection → [`track`] obeys what it says
//! later → [`leave`] ends it.
//!
//! A room's task owns everything about its participants but the media. It waits for nobody: to clients it
//! writes through a bounded [`carrier`], to workers through [`Workers`], and what workers report is kept in a
//! mailbox of which only the newest matters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::control::Command;
use crate::id::RoomKey;
use crate::observe::people::People;
use crate::observe::reason::{Counters, Reason};
use crate::transport::Credentials;

pub mod carrier;
mod chat;
mod deadlines;
mod gate;
pub mod http;
pub mod join;
pub mod leave;
mod limit;
#[doc(hidden)]
pub mod line;
pub mod message;
pub mod negotiate;
pub mod poll;
pub mod rendezvous;
pub mod room;
pub mod rooms;
mod roster;
pub mod sdp;
pub mod serve;
pub mod session;
pub mod track;
pub mod ws;

use negotiate::{Answered, Environment, Negotiator, Refusal};

/// The media workers as rooms see them.
pub trait Workers: Send + Sync + 'static {
    /// How many there are; [`rooms::worker_of`] tells which one a room lives on.
    fn count(&self) -> usize;

    /// Hands a command to the room's worker without waiting.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] where the worker cannot take it.
    fn command(&self, room: RoomKey, command: Command) -> Result<(), Reason>;

    /// Whether all of them do their work.
    fn are_well(&self) -> bool {
        true
    }
}

/// The SDP state of one transport; [`Negotiator`], or a stand-in in tests.
pub trait Negotiate: Send {
    /// What our answers say for the transport's life.
    fn local(&self) -> &Credentials;

    /// Answers an offer; a refusal changes nothing.
    ///
    /// # Errors
    /// Why the offer is not answered.
    fn answer(&mut self, offer: &str) -> Result<Answered, Refusal>;
}

impl Negotiate for Negotiator {
    fn local(&self) -> &Credentials {
        Self::local(self)
    }

    fn answer(&mut self, offer: &str) -> Result<Answered, Refusal> {
        Self::answer(self, offer)
    }
}

/// Makes the negotiation of a new transport on the worker of the given index.
pub type NewTransport = Box<dyn Fn(usize) -> Box<dyn Negotiate> + Send + Sync>;

/// The real negotiation. `environments`: one for each worker, in order.
#[must_use]
pub fn negotiators(environments: Vec<Environment>) -> NewTransport {
    Box::new(move |worker| Box::new(Negotiator::new(&environments[worker % environments.len()])))
}

/// Everything that tasks of this directory share.
pub struct Door {
    pub settings: Settings,
    pub workers: Arc<dyn Workers>,
    pub new_transport: NewTransport,
    /// What was refused, by reason.
    pub refused: Arc<Counters>,
    /// Who is here.
    pub people: Arc<People>,
}

/// The limits of this directory; [`crate::config`] says why each is what it is.
#[derive(Clone, Debug)]
pub struct Settings {
    pub sizes: message::SizeLimits,
    pub messages_per_second: u32,
    pub burst: u32,
    pub offers_per_10s: u32,
    /// Joins from one address: at once, and in the long run.
    pub joins_burst: u32,
    pub joins_per_minute: u32,
    pub connections_per_address: usize,
    /// Long poll carriers in all.
    pub poll_carriers: usize,
    /// For a request's head.
    pub header_within: Duration,
    /// For the first message of a connection.
    pub hello_within: Duration,
    /// How long somebody is kept after the last sign of life.
    pub removed_after: Duration,
    pub rooms: usize,
    pub participants: usize,
    pub publications: usize,
    /// Participants that a snapshot or a page names, unless more publish.
    pub page: usize,
    /// In rooms above this arrivals and departures are said together.
    pub gather_above: usize,
    /// In rooms above this arrivals that publish nothing are only counted.
    pub count_above: usize,
    /// How long an empty room keeps its numbers.
    pub room_grace: Duration,
    /// Bytes of a text.
    pub chat_bytes: usize,
    /// Of one participant, typing included.
    pub chats_per_10s: u32,
    /// Messages, bytes and time that a room remembers.
    pub chat_history: usize,
    pub chat_history_bytes: usize,
    pub chat_history_for: Duration,
    /// Sections of an offer; told to clients, enforced by the negotiation.
    pub sections: usize,
    /// Origins whose pages may connect beside our own.
    pub origins: Vec<String>,
    /// Who may say for which address it asks.
    pub proxies: Vec<IpAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sizes: message::SizeLimits { frame_bytes: 512 << 10, message_bytes: 64 << 10, depth: 16 },
            messages_per_second: 50,
            burst: 200,
            offers_per_10s: 4,
            joins_burst: 300,
            joins_per_minute: 300,
            connections_per_address: 1000,
            poll_carriers: 10_000,
            header_within: Duration::from_secs(10),
            hello_within: Duration::from_secs(5),
            removed_after: Duration::from_secs(30),
            rooms: 10_000,
            participants: 1000,
            publications: 8,
            page: 100,
            gather_above: 100,
            count_above: 500,
            room_grace: Duration::from_secs(60),
            chat_bytes: 4096,
            chats_per_10s: 30,
            chat_history: 200,
            chat_history_bytes: 128 << 10,
            chat_history_for: Duration::from_secs(4 * 3600),
            sections: 96,
            origins: Vec::new(),
            proxies: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        }
    }
}

/// The clock of this directory; tests stop it by pausing tokio's.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A panic while one of these locks is held cannot leave the map half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
