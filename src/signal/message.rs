//! The messages: one enum for each direction, the envelope around them, and the limits that hold before and
//! after parsing.
//!
//! PROTOCOL.md describes them for people, `client/protocol.d.ts` for the client's type checker; a test keeps
//! the lists of kinds equal.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, Mid, ParticipantId, PublicationId, SessionId, TransportNumber};
use crate::observe::reason::Reason;
use crate::room::{Have, Kind, Source, Want};

/// How a message is treated when its carrier was lost before it was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Only the newest of its kind is worth sending again.
    State,
    /// Delivered exactly once, in order.
    Event,
    /// A change of the roster, numbered by `rev`: a fresh snapshot can take its place.
    Roster,
    /// Belongs to the carrier: neither numbered nor ever sent again.
    Carrier,
}

macro_rules! messages {
    ($(#[$doc:meta])* $name:ident, $kind:ident {
        $($(#[$variant_doc:meta])* $variant:ident($body:ty) = $t:literal, $class:ident;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "t")]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $t)] $variant($body),)*
        }

        /// The value of `t`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $kind {
            $($variant,)*
        }

        impl $kind {
            /// Every kind of this direction.
            pub const ALL: &'static [$kind] = &[$($kind::$variant,)*];

            /// The kind's name on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($kind::$variant => $t,)* }
            }

            #[must_use]
            pub fn class(self) -> Class {
                match self { $($kind::$variant => Class::$class,)* }
            }

            #[must_use]
            pub fn parse(t: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.as_str() == t)
            }
        }

        impl $name {
            #[must_use]
            pub fn kind(&self) -> $kind {
                match self { $($name::$variant(_) => $kind::$variant,)* }
            }

            /// The body of a message whose `t` is known. Not serde's own tagged enum: that buffers every message
            /// in a tree first and then refuses numbers as keys of a map.
            ///
            /// # Errors
            /// A field is missing or has the wrong type.
            pub fn body(kind: $kind, text: &str) -> serde_json::Result<Self> {
                match kind {
                    $($kind::$variant => serde_json::from_str::<$body>(text).map($name::$variant),)*
                }
            }
        }
    };
}

messages! {
    /// What a client says.
    FromClient, ClientKind {
        /// Opens a session.
        Hello(Box<Hello>) = "hello", Event;
        /// Continues one on this carrier.
        Resume(Resume) = "resume", Carrier;
        /// Begins a request of the long poll.
        Poll(CarrierId) = "poll", Carrier;
        /// Nothing but its `a`.
        Ack(Empty) = "ack", Carrier;
        /// Asks for a sign of life.
        Ping(Empty) = "ping", Carrier;
        /// Leaves at once.
        Bye(Empty) = "bye", Event;
        /// An ICE restart, more sections, or a new transport.
        Offer(Offer) = "offer", Event;
        /// Fills sections that were negotiated before.
        Publish(PublishMessage) = "publish", Event;
        /// Frees a section.
        Unpublish(Unpublish) = "unpublish", Event;
        /// Stops or resumes the forwarding of one's own publication.
        Mute(Mute) = "mute", Event;
        /// Everything that is to be received.
        Want(Want) = "want", State;
        /// A new display name.
        Name(Name) = "name", Event;
        /// Says something to everybody, or to one.
        Chat(Chat) = "chat", Event;
        /// Is about to.
        Typing(Typing) = "typing", Carrier;
        /// A slot shows nothing although it should.
        Stall(Stall) = "stall", Event;
        /// Asks for more of the roster than the snapshot named.
        Who(Who) = "who", Event;
    }
}

messages! {
    /// What the server says.
    FromServer, ServerKind {
        /// The answer to `hello`.
        Welcome(Box<Welcome>) = "welcome", Event;
        /// `hello` or `resume` was not accepted.
        Refuse(Refuse) = "refuse", Carrier;
        /// `resume` was.
        Resumed(Resumed) = "resumed", Carrier;
        /// Begins the first answer of a long poll carrier.
        Carrier(CarrierId) = "carrier", Carrier;
        /// Ends the last.
        Closed(Closed) = "closed", Carrier;
        /// Nothing but its `a`.
        Ack(Acked) = "ack", Carrier;
        /// The answer to `ping`.
        Pong(Acked) = "pong", Carrier;
        /// The answer to `offer`.
        Answer(Answer) = "answer", Event;
        /// The transport is gone: make another.
        Restart(Restart) = "restart", Event;
        /// A change of the roster.
        Room(Box<RoomDelta>) = "room", Roster;
        /// The whole roster.
        Snapshot(Box<Snapshot>) = "snapshot", Roster;
        /// A page of the roster.
        Who(WhoPage) = "who", Event;
        /// Somebody said something.
        Chat(Box<Said>) = "chat", Event;
        /// Somebody is about to.
        Typing(TypingSeen) = "typing", Carrier;
        /// What the slots carry.
        Have(Have) = "have", State;
        /// Who speaks.
        Speakers(Speakers) = "speakers", State;
        /// Which encodings of one's own publications anybody watches.
        Layers(Layers) = "layers", State;
        /// A message was not obeyed.
        Error(ErrorMessage) = "error", Event;
        /// The server is about to stop.
        GoAway(GoAway) = "goaway", Event;
    }
}

/// Which long poll carrier a request belongs to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierId {
    /// A secret: whoever has it takes part in the session.
    pub id: String,
}

impl std::fmt::Debug for CarrierId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CarrierId")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// As a WebSocket's close code.
    pub code: u16,
}

/// A body without fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    #[serde(default)]
    pub caps: Vec<String>,
    pub room: String,
    #[serde(default)]
    pub name: String,
    /// The SDP offer for transport 0.
    pub offer: String,
    #[serde(default)]
    pub publish: Vec<PublishItem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub want: Option<Want>,
    /// Of an earlier session in this room whose participant id is to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    pub session: SessionId,
    pub token: String,
    pub a: u64,
}

/// One track to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishItem {
    /// The sending section that carries it.
    pub mid: Mid,
    pub kind: Kind,
    pub source: Source,
    #[serde(default)]
    pub muted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub transport: TransportNumber,
    pub sdp: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PublishItem>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishMessage {
    pub publish: Vec<PublishItem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpublish {
    pub publication: PublicationId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mute {
    pub publication: PublicationId,
    pub muted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    pub name: String,
}

/// Either a text or a sealed one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chat {
    /// Absent: to everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ParticipantId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Base64 of what only those with the key can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// The client's own name for it: a repetition is said once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typing {
    /// Absent: to everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ParticipantId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// The section's mid.
    pub slot: Mid,
    /// For how long nothing new was shown, in milliseconds.
    pub ms: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Who {
    /// The page begins behind this id; at the first participant where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<ParticipantId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    pub caps: Vec<String>,
    pub session: SessionId,
    pub epoch: Epoch,
    /// What the first `resume` must present.
    pub resume: String,
    pub you: ParticipantId,
    pub answer: String,
    pub room: RoomInfo,
    pub participants: Vec<Participant>,
    pub publications: Vec<Publication>,
    pub have: Have,
    /// What was said to everybody before, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chat: Vec<Said>,
    pub limits: Limits,
}

/// Which roster a snapshot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomInfo {
    pub rev: u64,
    pub total: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    pub id: ParticipantId,
    pub name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub away: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    pub id: PublicationId,
    pub participant: ParticipantId,
    pub kind: Kind,
    pub source: Source,
    pub muted: bool,
    /// On one's own only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mid: Option<Mid>,
}

/// The limits that a client can act on; explained in PROTOCOL.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    pub frame_bytes: usize,
    pub message_bytes: usize,
    pub messages_per_second: u32,
    pub burst: u32,
    pub offers_per10s: u32,
    pub participants: usize,
    pub publications: usize,
    pub name_chars: usize,
    pub chat_bytes: usize,
    pub sections: usize,
    pub resume_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refuse {
    pub reason: Reason,
    pub hint: Cow<'static, str>,
    /// Absent where the same request would fail again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The new token.
    pub resume: String,
    pub a: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    pub a: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub transport: TransportNumber,
    pub sdp: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    pub reason: Reason,
}

/// One change of the roster. The lists are applied in the order in which they stand here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoomDelta {
    pub rev: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unpublished: Vec<PublicationId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Left>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<Participant>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<Participant>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Publication>,
    pub total: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub id: ParticipantId,
    pub reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub room: RoomInfo,
    pub participants: Vec<Participant>,
    pub publications: Vec<Publication>,
}

/// What somebody said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Grows in the order in which the room heard it; gaps were said to others.
    pub id: u64,
    pub from: ParticipantId,
    /// The name that he had.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ParticipantId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Milliseconds since 1970 by the server's clock.
    pub at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypingSeen {
    pub from: ParticipantId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ParticipantId>,
}

/// A part of the roster, in the order of ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoPage {
    pub room: RoomInfo,
    pub participants: Vec<Participant>,
    /// What the next page begins behind; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ParticipantId>,
}

/// Who speaks at the moment, the dominant one first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speakers {
    pub speakers: Vec<ParticipantId>,
}

/// Of each of one's own pictures: the encodings that somebody watches, 0 the largest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    pub publications: BTreeMap<PublicationId, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorMessage {
    /// The `s` of the message that was not obeyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    pub reason: Reason,
    pub hint: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoAway {
    pub in_ms: u64,
    pub reason: Reason,
}

/// Why a message is not obeyed, in words for the one who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    pub reason: Reason,
    /// English, for developers; may change.
    pub hint: Cow<'static, str>,
    /// When the same request may succeed, in milliseconds.
    pub retry_ms: Option<u64>,
}

impl Objection {
    #[must_use]
    pub fn new(reason: Reason, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, hint: hint.into(), retry_ms: None }
    }

    #[must_use]
    pub fn retry(self, retry_ms: u64) -> Self {
        Self { retry_ms: Some(retry_ms), ..self }
    }

    #[must_use]
    pub fn refuse(self) -> FromServer {
        FromServer::Refuse(Refuse { reason: self.reason, hint: self.hint, retry_ms: self.retry_ms })
    }

    /// `id`: the number of the message that is objected to.
    #[must_use]
    pub fn error(self, id: Option<u64>) -> FromServer {
        let Self { reason, hint, retry_ms } = self;
        FromServer::Error(ErrorMessage { id, reason, hint, retry_ms })
    }
}

/// What decoding needs to know; see [`super::Settings`].
#[derive(Clone, Copy, Debug)]
pub struct SizeLimits {
    /// Bytes of one frame, checked before it is parsed.
    pub frame_bytes: usize,
    /// Bytes of a message that carries no SDP.
    pub message_bytes: usize,
    /// How deep objects and arrays may nest. Our own messages need 4; a parser's stack bears 100.
    pub depth: usize,
}

/// A message of a client with its envelope.
#[derive(Debug)]
pub struct Incoming {
    /// Absent on what belongs to the carrier.
    pub s: Option<u64>,
    /// Everything up to here has arrived at the client.
    pub a: u64,
    /// `Ok(None)`: a kind that is not known and need not be.
    pub body: Result<Option<FromClient>, Objection>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    t: Cow<'a, str>,
    #[serde(default)]
    s: Option<u64>,
    #[serde(default)]
    a: u64,
    #[serde(default)]
    must: bool,
}

/// Reads one frame. An objection inside [`Incoming`] concerns a message whose number is known: it counts as
/// received.
///
/// # Errors
/// Not even the envelope can be read: too large, too deep, or not a JSON object with a `t`.
pub fn decode(text: &str, limits: &SizeLimits) -> Result<Incoming, Objection> {
    if text.len() > limits.frame_bytes {
        return Err(too_large(limits.frame_bytes));
    }
    if deeper_than(text, limits.depth) {
        return Err(malformed(format!("Nested deeper than {}.", limits.depth)));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|e| malformed(e.to_string()))?;
    let Some(kind) = ClientKind::parse(&envelope.t) else {
        return unknown_kind(&envelope, text, limits);
    };
    let numbered = kind.class() != Class::Carrier;
    let body = if numbered && envelope.s.is_none_or(|s| s == 0 || s > MAX_NUMBER) {
        Err(malformed("The message needs a number s, counted from 1."))
    } else if text.len() > limits.message_bytes && !carries_sdp(kind) {
        Err(too_large(limits.message_bytes))
    } else {
        FromClient::body(kind, text).map(Some).map_err(|e| malformed(e.to_string()))
    };
    // A number outside the range that both ends can count in is no number.
    let s = envelope.s.filter(|&s| numbered && s != 0 && s <= MAX_NUMBER);
    Ok(Incoming { s, a: envelope.a, body })
}

/// The largest integer that a JavaScript number holds exactly.
const MAX_NUMBER: u64 = (1 << 53) - 1;

fn unknown_kind(envelope: &Envelope<'_>, text: &str, limits: &SizeLimits) -> Result<Incoming, Objection> {
    let body = if text.len() > limits.message_bytes {
        Err(too_large(limits.message_bytes))
    } else if envelope.must {
        Err(Objection::new(Reason::UnknownKind, "This server does not know the kind."))
    } else {
        Ok(None)
    };
    Ok(Incoming { s: envelope.s.filter(|&s| s != 0 && s <= MAX_NUMBER), a: envelope.a, body })
}

fn carries_sdp(kind: ClientKind) -> bool {
    matches!(kind, ClientKind::Hello | ClientKind::Offer)
}

fn malformed(hint: impl Into<Cow<'static, str>>) -> Objection {
    Objection::new(Reason::MessageMalformed, hint)
}

fn too_large(limit: usize) -> Objection {
    Objection::new(Reason::MessageTooLarge, format!("At most {limit} bytes."))
}

/// Whether brackets outside strings nest deeper than `limit`; looks at each byte once and needs no stack, so it
/// may see anything.
fn deeper_than(text: &str, limit: usize) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SizeLimits = SizeLimits { frame_bytes: 512 << 10, message_bytes: 64 << 10, depth: 16 };

    fn body(text: &str) -> Result<Option<FromClient>, Reason> {
        decode(text, &LIMITS).and_then(|incoming| incoming.body).map_err(|objection| objection.reason)
    }

    #[test]
    fn kinds_have_distinct_names() {
        let client: std::collections::BTreeSet<_> = ClientKind::ALL.iter().map(|k| k.as_str()).collect();
        let server: std::collections::BTreeSet<_> = ServerKind::ALL.iter().map(|k| k.as_str()).collect();
        assert_eq!((client.len(), server.len()), (ClientKind::ALL.len(), ServerKind::ALL.len()));
    }

    #[test]
    fn a_hello_is_read_with_its_defaults() {
        let text = r#"{"t":"hello","s":1,"a":0,"room":"r","offer":"v=0","future":1,
            "publish":[{"mid":"0","kind":"audio","source":"screen-audio"}],
            "want":{"n":2,"publications":{"7":{"height":0}}}}"#;
        let Ok(Some(FromClient::Hello(hello))) = body(text) else { panic!("{:?}", body(text)) };
        assert_eq!((hello.room.as_str(), hello.name.as_str(), hello.publish.len()), ("r", "", 1));
        let want = hello.want.expect("given");
        assert_eq!(want.publications[&PublicationId(7)].height, 0);
        assert_eq!(want.default.height, 360);
    }

    #[test]
    fn a_trailing_newline_is_accepted() {
        assert_eq!(body("{\"t\":\"bye\",\"s\":3,\"a\":1}\r\n"), Ok(Some(FromClient::Bye(Empty {}))));
    }

    #[test]
    fn an_unknown_kind_is_ignored_unless_it_must_be_known() {
        let incoming = decode(r#"{"t":"dance","s":3,"a":9}"#, &LIMITS).expect("ignored");
        assert_eq!((incoming.s, incoming.a, incoming.body), (Some(3), 9, Ok(None)));
        assert_eq!(body(r#"{"t":"dance","s":3,"must":true}"#), Err(Reason::UnknownKind));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in [
            "",
            "null",
            "[]",
            "{",
            r#"{"s":1}"#,
            r#"{"t":"bye"}"#,
            r#"{"t":"bye","s":0}"#,
            r#"{"t":"bye","s":-1}"#,
            r#"{"t":"bye","s":9007199254740992}"#,
            r#"{"t":"mute","s":1,"publication":"x","muted":true}"#,
            r#"{"t":"mute","t":"bye","s":1}"#,
        ] {
            assert_eq!(body(bad), Err(Reason::MessageMalformed), "{bad}");
        }
    }

    #[test]
    fn a_message_that_is_objected_to_still_has_its_number() {
        let incoming = decode(r#"{"t":"mute","s":5,"a":2}"#, &LIMITS).expect("envelope");
        assert_eq!((incoming.s, incoming.a, incoming.body.is_err()), (Some(5), 2, true));
    }

    #[test]
    fn sizes_and_depth_are_limited() {
        let nested = |n| format!(r#"{{"t":"bye","s":1,"x":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(body(&nested(15)).is_ok());
        assert_eq!(body(&nested(16)), Err(Reason::MessageMalformed));
        assert_eq!(body(&nested(200_000)), Err(Reason::MessageMalformed));
        let brackets_in_a_string = format!(r#"{{"t":"bye","s":1,"x":"\"{}"}}"#, "[".repeat(99));
        assert!(body(&brackets_in_a_string).is_ok());
        let long = |kind: &str, n| format!(r#"{{"t":"{kind}","s":1,"x":"{}"}}"#, "x".repeat(n));
        assert_eq!(body(&long("bye", 70_000)), Err(Reason::MessageTooLarge));
        assert_eq!(body(&long("dance", 70_000)), Err(Reason::MessageTooLarge));
        assert_eq!(body(&long("bye", 600_000)), Err(Reason::MessageTooLarge));
        let offer = format!(r#"{{"t":"offer","s":1,"transport":0,"sdp":"{}"}}"#, "x".repeat(70_000));
        assert!(body(&offer).is_ok());
    }

    #[test]
    fn empty_lists_of_a_delta_are_left_out() {
        let delta = RoomDelta { rev: 3, total: 1, ..RoomDelta::default() };
        let text = serde_json::to_string(&FromServer::Room(Box::new(delta))).expect("plain data");
        assert_eq!(text, r#"{"t":"room","rev":3,"total":1}"#);
    }
}
