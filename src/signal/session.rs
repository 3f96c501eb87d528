//! One ordered stream of messages in each direction that outlives the connection that carries it.
//!
//! [`Session`] numbers what is sent, keeps it until it is acknowledged, and sends it again on the next
//! carrier; it ignores what arrives twice. Pure: told the time, it never asks; `handle_*` in, `poll_*` out.
//! [`Tokens`] decide who may continue a session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::observe::reason::Reason;

use super::message::{Class, FromServer, ServerKind};

/// A bare acknowledgement is sent after this many numbered messages. Higher lets the other side keep more,
/// lower costs more messages.
const ACK_AFTER: u32 = 32;
/// A bare acknowledgement is sent this long after the first unacknowledged message at the latest. Higher saves
/// messages in quiet rooms, lower resends less after a loss.
const ACK_WITHIN: Duration = Duration::from_secs(2);
/// Changes of the roster that are kept for a client that is away. More spares it a snapshot, less spares us
/// memory.
const ROSTER: Bounds = Bounds { messages: 256, bytes: 256 << 10 };
/// Events that may wait for an acknowledgement. They cannot be dropped, so whoever exceeds this is removed:
/// far more than 30 s of a busy room, and little enough that a thousand such clients fit into memory.
const EVENTS: Bounds = Bounds { messages: 4096, bytes: 2 << 20 };

/// A message without its envelope, shared by all who receive the same.
#[derive(Clone, Debug)]
pub struct Body {
    kind: ServerKind,
    /// A JSON object whose first field is `t`.
    text: Arc<str>,
}

impl Body {
    #[must_use]
    pub fn new(message: &FromServer) -> Self {
        // Writing plain data to memory fails only for maps whose keys are not text, and there are none.
        let text = serde_json::to_string(message).expect("messages are plain data");
        Self { kind: message.kind(), text: text.into() }
    }

    fn class(&self) -> Class {
        self.kind.class()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    messages: usize,
    bytes: usize,
}

impl Bounds {
    fn exceeds(self, limit: Self) -> bool {
        self.messages > limit.messages || self.bytes > limit.bytes
    }
}

#[derive(Debug)]
struct Kept {
    s: u64,
    body: Body,
}

/// The numbering and the memory of one session; see the module.
#[derive(Debug, Default)]
pub struct Session {
    /// Not yet acknowledged, by number.
    kept: VecDeque<Kept>,
    events: Bounds,
    roster: Bounds,
    /// The highest number given.
    last: u64,
    /// The highest number that the present carrier was given, or that was acknowledged.
    sent: u64,
    /// The highest number of a roster message that was dropped before it was acknowledged.
    dropped: u64,
    snapshot_due: bool,
    attached: bool,
    /// The highest number seen from the other side.
    seen: u64,
    /// Numbered messages since we last said what we have seen.
    untold: u32,
    ack_due: Option<Instant>,
}

impl Session {
    /// The stream on its first carrier. `seen`: the number of the message that opened it.
    #[must_use]
    pub fn new(seen: u64) -> Self {
        Self { attached: true, seen, ..Self::default() }
    }

    /// The highest number seen from the other side: the `a` of whatever is sent now.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attached
    }

    /// Continues on a new carrier: what is above `acked` will be sent again.
    pub fn attach(&mut self, acked: u64) {
        self.attached = true;
        self.acknowledge(acked);
        self.sent = acked.min(self.last);
        self.untold = 0;
        self.ack_due = None;
        if self.dropped > self.sent {
            self.drop_roster();
            self.snapshot_due = true;
        }
    }

    /// The carrier is gone: everything waits.
    pub fn detach(&mut self) {
        self.attached = false;
    }

    /// Appends a message to the stream; returns its number.
    ///
    /// # Errors
    /// [`Reason::SlowReader`]: too much waits for an acknowledgement; the session must end.
    pub fn push(&mut self, body: Body) -> Result<u64, Reason> {
        let class = body.class();
        match class {
            Class::State => self.kept.retain(|kept| kept.body.kind != body.kind),
            Class::Roster if body.kind == ServerKind::Snapshot => {
                self.drop_roster();
                self.snapshot_due = false;
            }
            Class::Roster | Class::Event | Class::Carrier => {}
        }
        self.last += 1;
        if let Some(bounds) = self.bounds(class) {
            bounds.messages += 1;
            bounds.bytes += body.text.len();
        }
        self.kept.push_back(Kept { s: self.last, body });
        if self.roster.exceeds(ROSTER) && !self.roster_waits_for_carrier() {
            self.drop_roster();
        }
        if self.events.exceeds(EVENTS) { Err(Reason::SlowReader) } else { Ok(self.last) }
    }

    /// Whether a snapshot of the roster must be pushed, because changes were dropped.
    #[must_use]
    pub fn snapshot_due(&self) -> bool {
        self.snapshot_due
    }

    /// The envelope of a message that arrived. Returns whether its body is to be processed: false for a
    /// repetition.
    pub fn handle_envelope(&mut self, now: Instant, s: Option<u64>, a: u64) -> bool {
        self.acknowledge(a);
        let Some(s) = s else { return true };
        self.untold += 1;
        self.ack_due.get_or_insert(now + ACK_WITHIN);
        if s <= self.seen {
            return false;
        }
        self.seen = s;
        true
    }

    /// The next message for the carrier, ready to be sent; `None` when there is nothing to say now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<String> {
        if !self.attached {
            return None;
        }
        let next = self.kept.partition_point(|kept| kept.s <= self.sent);
        if let Some(kept) = self.kept.get(next) {
            self.sent = kept.s;
            let text = format!(r#"{{"s":{},"a":{},{}"#, kept.s, self.seen, &kept.body.text[1..]);
            self.told();
            if self.roster.exceeds(ROSTER) && !self.roster_waits_for_carrier() {
                self.drop_roster();
            }
            return Some(text);
        }
        if self.untold >= ACK_AFTER || self.ack_due.is_some_and(|due| due <= now) {
            self.told();
            return Some(format!(r#"{{"t":"ack","a":{}}}"#, self.seen));
        }
        None
    }

    /// When [`Self::poll_transmit`] has something to say even if nothing happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ack_due.filter(|_| self.attached)
    }

    fn told(&mut self) {
        self.untold = 0;
        self.ack_due = None;
    }

    /// A number that was never given acknowledges what was; only its sender is harmed.
    fn acknowledge(&mut self, a: u64) {
        while let Some(kept) = self.kept.front().filter(|kept| kept.s <= a) {
            let (class, len) = (kept.body.class(), kept.body.text.len());
            self.kept.pop_front();
            if let Some(bounds) = self.bounds(class) {
                bounds.messages -= 1;
                bounds.bytes -= len;
            }
        }
    }

    fn bounds(&mut self, class: Class) -> Option<&mut Bounds> {
        match class {
            Class::Event => Some(&mut self.events),
            Class::Roster => Some(&mut self.roster),
            Class::State | Class::Carrier => None,
        }
    }

    /// On a carrier everything is sent first; what was sent may be forgotten, because a carrier that stays
    /// delivers it.
    fn roster_waits_for_carrier(&self) -> bool {
        self.attached && self.sent < self.last
    }

    fn drop_roster(&mut self) {
        for kept in self.kept.iter().filter(|kept| kept.body.class() == Class::Roster) {
            self.dropped = self.dropped.max(kept.s);
        }
        self.kept.retain(|kept| kept.body.class() != Class::Roster);
        self.roster = Bounds::default();
    }
}

/// Who may continue a session: the holder of the newest token, or of the one before, until the newest is
/// known to have arrived.
pub struct Tokens {
    current: String,
    previous: Option<String>,
}

impl Tokens {
    /// Both are secrets.
    fn fresh() -> String {
        format!("{:032x}", rand::random::<u128>())
    }

    #[must_use]
    #[allow(clippy::new_without_default)] // a random value is no default
    pub fn new() -> Self {
        Self { current: Self::fresh(), previous: None }
    }

    /// What the next resume must present.
    #[must_use]
    pub fn current(&self) -> &str {
        &self.current
    }

    /// Whether `token` is one of the two; takes the same time whichever byte differs.
    #[must_use]
    pub fn accepts(&self, token: &str) -> bool {
        let equal = |known: &str| {
            aws_lc_rs::constant_time::verify_slices_are_equal(known.as_bytes(), token.as_bytes()).is_ok()
        };
        let previous = self.previous.as_deref().is_some_and(equal);
        equal(&self.current) | previous
    }

    /// Makes a new token when `token` is accepted; the one that was presented stays valid until
    /// [`Self::confirm`].
    pub fn rotate(&mut self, token: &str) -> bool {
        if !self.accepts(token) {
            return false;
        }
        self.previous = Some(token.to_owned());
        self.current = Self::fresh();
        true
    }

    /// The newest token has arrived.
    pub fn confirm(&mut self) {
        self.previous = None;
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::signal::message::{ErrorMessage, RoomDelta, RoomInfo, Snapshot};

    fn event(n: u64) -> Body {
        let error = ErrorMessage { id: Some(n), reason: Reason::Bye, hint: "".into(), retry_ms: None };
        Body::new(&FromServer::Error(error))
    }

    fn state(n: u32) -> Body {
        Body::new(&FromServer::Have(crate::room::Have { n, ..crate::room::Have::default() }))
    }

    fn roster(rev: u64) -> Body {
        Body::new(&FromServer::Room(Box::new(RoomDelta { rev, ..RoomDelta::default() })))
    }

    fn snapshot(rev: u64) -> Body {
        let room = RoomInfo { rev, total: 0 };
        let snapshot = Snapshot { room, participants: Vec::new(), publications: Vec::new() };
        Body::new(&FromServer::Snapshot(Box::new(snapshot)))
    }

    fn drain(session: &mut Session, now: Instant) -> Vec<Value> {
        std::iter::from_fn(|| session.poll_transmit(now))
            .map(|text| serde_json::from_str(&text).expect("valid JSON"))
            .collect()
    }

    fn numbers(messages: &[Value]) -> Vec<u64> {
        messages.iter().filter_map(|message| message["s"].as_u64()).collect()
    }

    #[test]
    fn the_envelope_stands_beside_the_body() {
        let mut session = Session::new(1);
        session.push(event(7)).expect("room");
        let sent = drain(&mut session, Instant::now());
        assert_eq!(
            sent,
            [serde_json::json!({"t": "error", "s": 1, "a": 1, "id": 7, "reason": "bye", "hint": ""})]
        );
        assert_eq!(drain(&mut session, Instant::now()).len(), 0);
    }

    #[test]
    fn a_bare_ack_comes_after_two_seconds_or_32_messages() {
        let (mut session, now) = (Session::new(1), Instant::now());
        for s in 2..33 {
            assert!(session.handle_envelope(now, Some(s), 0));
        }
        assert_eq!(session.poll_transmit(now), None);
        assert!(session.handle_envelope(now, Some(33), 0));
        assert_eq!(session.poll_transmit(now).as_deref(), Some(r#"{"t":"ack","a":33}"#));
        assert!(session.handle_envelope(now, Some(34), 0));
        let due = session.poll_timeout().expect("an ack is due");
        assert_eq!(due, now + Duration::from_secs(2));
        assert_eq!(session.poll_transmit(now), None);
        assert_eq!(session.poll_transmit(due).as_deref(), Some(r#"{"t":"ack","a":34}"#));
        assert_eq!(session.poll_timeout(), None);
    }

    #[test]
    fn only_the_newest_state_is_sent_again() {
        let (mut session, now) = (Session::new(1), Instant::now());
        for n in 0..3 {
            session.push(state(n)).expect("room");
        }
        session.push(event(0)).expect("room");
        drain(&mut session, now);
        session.push(state(3)).expect("room");
        session.detach();
        session.attach(0);
        assert_eq!(numbers(&drain(&mut session, now)), [4, 5]);
    }

    #[test]
    fn repetitions_are_ignored_and_gaps_are_not() {
        let (mut session, now) = (Session::new(1), Instant::now());
        assert!(!session.handle_envelope(now, Some(1), 0));
        assert!(session.handle_envelope(now, Some(5), 0));
        assert!(!session.handle_envelope(now, Some(4), 0));
        assert!(session.handle_envelope(now, None, 0));
        assert_eq!(session.seen(), 5);
    }

    #[test]
    fn a_long_absence_ends_in_one_snapshot() {
        let (mut session, now) = (Session::new(1), Instant::now());
        session.push(event(0)).expect("room");
        session.detach();
        for rev in 0..2000 {
            session.push(roster(rev)).expect("a roster never overflows");
        }
        assert!(session.kept.len() <= 1 + ROSTER.messages);
        session.attach(0);
        assert!(session.snapshot_due());
        session.push(snapshot(2000)).expect("room");
        assert!(!session.snapshot_due());
        session.push(roster(2001)).expect("room");
        let sent = drain(&mut session, now);
        let kinds: Vec<_> = sent.iter().map(|message| message["t"].as_str().expect("t")).collect();
        assert_eq!(kinds, ["error", "snapshot", "room"]);
        session.detach();
        session.attach(sent[1]["s"].as_u64().expect("s"));
        assert!(!session.snapshot_due(), "the snapshot arrived");
    }

    #[test]
    fn a_short_absence_needs_no_snapshot() {
        let (mut session, now) = (Session::new(1), Instant::now());
        session.detach();
        for rev in 0..256 {
            session.push(roster(rev)).expect("room");
        }
        session.attach(0);
        assert!(!session.snapshot_due());
        assert_eq!(drain(&mut session, now).len(), 256);
    }

    #[test]
    fn a_carrier_that_stays_gets_every_change_though_nothing_is_acknowledged() {
        let (mut session, now) = (Session::new(1), Instant::now());
        let mut got = 0;
        for rev in 0..2000 {
            session.push(roster(rev)).expect("room");
            got += drain(&mut session, now).len();
        }
        assert_eq!(got, 2000);
        assert!(session.kept.len() <= ROSTER.messages);
        session.detach();
        session.attach(5);
        assert!(session.snapshot_due());
    }

    #[test]
    fn events_that_nobody_acknowledges_end_the_session() {
        let mut session = Session::new(1);
        let fit = (0..10_000).take_while(|&n| session.push(event(n)).is_ok()).count();
        assert_eq!(fit, EVENTS.messages);
        session.acknowledge(u64::MAX);
        assert!(session.push(event(0)).is_ok());
    }

    #[test]
    fn tokens_rotate_and_the_presented_one_lives_until_the_new_one_arrived() {
        let mut tokens = Tokens::new();
        let first = tokens.current().to_owned();
        assert!(!tokens.rotate("wrong") && !tokens.rotate(""));
        assert!(tokens.rotate(&first));
        let second = tokens.current().to_owned();
        assert_ne!(first, second);
        assert!(tokens.rotate(&first), "the second never arrived");
        let third = tokens.current().to_owned();
        assert!(!tokens.accepts(&second), "it never arrived, so nobody may hold it");
        assert!(tokens.rotate(&third));
        tokens.confirm();
        assert!(!tokens.accepts(&first) && !tokens.accepts(&third));
    }

    /// Both ends run the same stream over a carrier that breaks and loses what is on its way.
    #[derive(Clone, Debug)]
    enum Step {
        Push { server: bool, roster: bool },
        Deliver { server: bool, count: usize },
        Break { heard: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (any::<bool>(), any::<bool>()).prop_map(|(server, roster)| Step::Push { server, roster }),
            3 => (any::<bool>(), 0usize..6).prop_map(|(server, count)| Step::Deliver { server, count }),
            1 => (0usize..3).prop_map(|heard| Step::Break { heard }),
        ]
    }

    struct End {
        session: Session,
        wire: VecDeque<String>,
        pushed: u64,
        got: Vec<u64>,
    }

    impl End {
        fn new() -> Self {
            Self { session: Session::new(0), wire: VecDeque::new(), pushed: 0, got: Vec::new() }
        }

        fn flush(&mut self, now: Instant) {
            self.wire.extend(std::iter::from_fn(|| self.session.poll_transmit(now)));
        }

        fn receive(&mut self, now: Instant, text: &str) {
            let message: Value = serde_json::from_str(text).expect("valid JSON");
            let fresh =
                self.session.handle_envelope(now, message["s"].as_u64(), message["a"].as_u64().unwrap_or(0));
            if fresh && message["t"] == "error" {
                self.got.push(message["id"].as_u64().expect("id"));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn each_event_arrives_exactly_once_and_in_order(steps in prop::collection::vec(step(), 1..200)) {
            let mut now = Instant::now();
            let mut ends = [End::new(), End::new()];
            for step in steps.into_iter().chain([Step::Break { heard: 0 }]) {
                now += Duration::from_millis(300);
                match step {
                    Step::Push { server, roster: true } => {
                        ends[usize::from(server)].session.push(roster(0)).expect("room");
                    }
                    Step::Push { server, roster: false } => {
                        let end = &mut ends[usize::from(server)];
                        end.session.push(event(end.pushed)).expect("room");
                        end.pushed += 1;
                    }
                    Step::Deliver { server, count } => {
                        let [a, b] = &mut ends;
                        let (from, to) = if server { (a, b) } else { (b, a) };
                        for text in from.wire.drain(..count.min(from.wire.len())) {
                            to.receive(now, &text);
                        }
                    }
                    Step::Break { heard } => {
                        let [a, b] = &mut ends;
                        for text in a.wire.drain(..).take(heard) {
                            b.receive(now, &text);
                        }
                        b.wire.clear();
                        a.session.detach();
                        b.session.detach();
                        a.session.attach(b.session.seen());
                        b.session.attach(a.session.seen());
                    }
                }
                for end in &mut ends {
                    end.flush(now);
                }
            }
            let [a, b] = &mut ends;
            for text in a.wire.drain(..) { b.receive(now, &text); }
            for text in b.wire.drain(..) { a.receive(now, &text); }
            prop_assert_eq!(&b.got, &(0..a.pushed).collect::<Vec<_>>());
            prop_assert_eq!(&a.got, &(0..b.pushed).collect::<Vec<_>>());
        }
    }
}
