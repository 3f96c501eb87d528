//! A client of the protocol, written from its description alone: what it says and keeps, what it believes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use futures_util::FutureExt as _;
use motet::signal::carrier::{Close, Outgoing};
use motet::signal::line::Line;
use motet::signal::rooms::Rooms;
use serde_json::{Value, json};

/// What a client knows about the room.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roster {
    pub rev: u64,
    pub total: u64,
    /// Name and whether away, by id.
    pub people: BTreeMap<String, (String, bool)>,
    pub publications: BTreeMap<u64, Publication>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Publication {
    pub owner: String,
    pub source: String,
    pub muted: bool,
    /// Of one's own.
    pub mid: Option<String>,
}

impl Roster {
    /// As everybody sees it.
    pub fn public(&self) -> Self {
        let mut roster = self.clone();
        roster.publications.values_mut().for_each(|publication| publication.mid = None);
        roster
    }

    pub fn own(&self, you: &str, mid: &str) -> Option<u64> {
        let own =
            |publication: &Publication| publication.owner == you && publication.mid.as_deref() == Some(mid);
        self.publications.iter().find(|(_, publication)| own(publication)).map(|(id, _)| *id)
    }

    fn apply(&mut self, message: &Value) {
        let list = |field: &str| message[field].as_array().map(Vec::as_slice).unwrap_or_default().iter();
        let whole = message["t"] != "room";
        if whole {
            *self = Self { rev: number(&message["room"]["rev"]), ..Self::default() };
            self.total = number(&message["room"]["total"]);
        } else {
            let rev = number(&message["rev"]);
            assert_eq!(rev, self.rev + 1, "a revision is missing or came twice: {message}");
            (self.rev, self.total) = (rev, number(&message["total"]));
        }
        for id in list("unpublished") {
            assert!(self.publications.remove(&number(id)).is_some(), "{id} was not published: {message}");
        }
        for left in list("left") {
            let id = text(&left["id"]);
            assert!(self.people.remove(&id).is_some(), "{id} was not here: {message}");
            self.publications.retain(|_, publication| publication.owner != id);
        }
        for (field, new) in [("participants", true), ("joined", true), ("changed", false)] {
            for person in list(field) {
                let known = (text(&person["name"]), person["away"] == true);
                let before = self.people.insert(text(&person["id"]), known);
                assert_eq!(before.is_none(), new, "{field} of {person}: {message}");
            }
        }
        for entry in list("publications").chain(list("published")) {
            let publication = Publication {
                owner: text(&entry["participant"]),
                source: text(&entry["source"]),
                muted: entry["muted"] == true,
                mid: entry["mid"].as_str().map(str::to_owned),
            };
            assert!(self.people.contains_key(&publication.owner), "of whom? {message}");
            self.publications.insert(number(&entry["id"]), publication);
        }
        assert_eq!(self.total, self.people.len() as u64, "{message}");
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// What is still to come back for what was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// By the number of the message, its reason; empty: either an error or the answer counted below.
    pub errors: BTreeMap<u64, &'static str>,
    /// Offers whose answer may still come.
    pub answers: BTreeSet<u64>,
    pub pages: usize,
    pub restarts: usize,
}

/// Both ends of a carrier.
pub struct Wire {
    pub line: Line,
    pub outgoing: Outgoing,
    /// Dead, though nobody noticed.
    pub broken: bool,
}

impl Wire {
    pub fn new(rooms: &Arc<Rooms>) -> Self {
        let (line, outgoing) = Line::new(rooms.clone());
        Self { line, outgoing, broken: false }
    }

    /// What has come out by now, and why there will be no more.
    pub fn read(&mut self) -> (Vec<Value>, Option<Close>) {
        let mut messages = Vec::new();
        loop {
            match tokio::task::unconstrained(self.outgoing.next()).now_or_never() {
                None => return (messages, None),
                Some(None) => return (messages, self.outgoing.closing()),
                Some(Some(text)) => messages.push(serde_json::from_str(&text).expect("valid JSON")),
            }
        }
    }
}

/// One page: a session as its client sees it.
pub struct Page {
    pub wire: Option<Wire>,
    pub you: String,
    pub epoch: u64,
    pub session: String,
    /// The newest that the page knows of.
    pub token: String,
    pub roster: Roster,
    /// Of the newest wish that the server has answered.
    pub have: u64,
    /// What the slots carry, and when that was read.
    pub slots: Vec<Value>,
    pub slots_at: Option<std::time::Instant>,
    /// Answers that came.
    pub answered: usize,
    pub speakers: Vec<String>,
    pub transport: u64,
    pub expected: Expected,
    /// The highest number given, and seen.
    pub s: u64,
    pub a: u64,
    /// Not acknowledged.
    pub kept: VecDeque<(u64, Value)>,
}

impl Page {
    /// Out of the answer to a `hello`.
    pub fn new(wire: Wire, welcome: &Value) -> Self {
        let mut page = Self {
            wire: Some(wire),
            you: text(&welcome["you"]),
            epoch: number(&welcome["epoch"]),
            session: text(&welcome["session"]),
            token: text(&welcome["resume"]),
            roster: Roster::default(),
            have: number(&welcome["have"]["n"]),
            slots: Vec::new(),
            slots_at: None,
            answered: 0,
            speakers: Vec::new(),
            transport: 0,
            expected: Expected::default(),
            s: 1,
            a: number(&welcome["s"]),
            kept: VecDeque::new(),
        };
        page.roster.apply(welcome);
        page
    }

    /// Whether what is said arrives.
    pub fn is_healthy(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| !wire.broken)
    }

    /// Numbers a message and keeps it.
    pub fn number(&mut self, mut message: Value) -> u64 {
        self.s += 1;
        message["s"] = self.s.into();
        self.kept.push_back((self.s, message));
        self.s
    }

    /// The text of a kept message as it is to be sent now.
    pub fn envelope(&self, message: &Value) -> String {
        let mut message = message.clone();
        message["a"] = self.a.into();
        message.to_string()
    }

    pub fn resume(&self, token: &str) -> String {
        json!({"t": "resume", "session": self.session, "token": token, "a": self.a}).to_string()
    }

    /// Takes whatever has come on the carrier; why it has ended, if it has.
    pub fn read(&mut self) -> Option<Close> {
        let (messages, closed) = self.wire.as_mut()?.read();
        for message in messages {
            self.take(&message);
        }
        closed
    }

    pub fn take(&mut self, message: &Value) {
        if let Some(a) = message["a"].as_u64() {
            while self.kept.front().is_some_and(|(s, _)| *s <= a) {
                self.kept.pop_front();
            }
        }
        if let Some(s) = message["s"].as_u64() {
            assert!(s > self.a, "{message} came twice");
            self.a = s;
        }
        let expected = &mut self.expected;
        match message["t"].as_str().expect("a kind") {
            "room" | "snapshot" => self.roster.apply(message),
            "have" => {
                self.have = number(&message["n"]);
                self.slots = message["slots"].as_array().expect("a list").clone();
                self.slots_at = Some(tokio::time::Instant::now().into_std());
            }
            "speakers" => {
                self.speakers = message["speakers"].as_array().expect("a list").iter().map(text).collect();
            }
            "who" => {
                assert!(expected.pages > 0, "nobody asked: {message}");
                expected.pages -= 1;
            }
            "error" => {
                let (id, reason) = (number(&message["id"]), text(&message["reason"]));
                let limited = reason == "rate_limited" && expected.answers.remove(&id);
                assert!(limited || expected.errors.remove(&id) == Some(&reason), "unexpected: {message}");
            }
            "answer" => {
                assert!(expected.answers.pop_first().is_some(), "unexpected: {message}");
                self.answered += 1;
            }
            "restart" => {
                assert!(expected.restarts > 0, "unexpected: {message}");
                expected.restarts -= 1;
            }
            "ack" | "layers" | "resumed" | "pong" => {}
            other => panic!("{other}: {message}"),
        }
    }
}
