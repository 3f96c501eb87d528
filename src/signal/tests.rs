//! Rooms and connections with a worker that only records, and offers that are a few words.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::carrier::{Carrier, Close, Outgoing};
use super::message::{FromClient, decode};
use super::negotiate::{Answered, Refusal};
use super::rooms::{Event, Handle, Rooms};
use super::{Door, Negotiate, Settings, Workers, join, now};
use crate::control::Command;
use crate::id::{Mid, RoomKey};
use crate::observe::reason::{Counters, Reason};
use crate::room::{Kind, Media, SendingSection};
use crate::rtp::extension::ExtensionIds;
use crate::transport::{Credentials, DtlsRole, Remote};

mod big;
mod chat;
mod documents;
mod luck;
mod model;
mod people;
mod polling;
mod wire;

/// Takes note of every command; refuses them while it is `full`.
#[derive(Default)]
struct Recorder {
    commands: Mutex<Vec<(RoomKey, Command)>>,
    full: AtomicBool,
}

impl Workers for Recorder {
    fn count(&self) -> usize {
        2
    }

    fn command(&self, room: RoomKey, command: Command) -> Result<(), Reason> {
        if self.full.load(Ordering::Relaxed) {
            return Err(Reason::Overloaded);
        }
        self.commands.lock().expect("no test panics in here").push((room, command));
        Ok(())
    }
}

impl Recorder {
    fn take(&self) -> Vec<Command> {
        let mut commands = self.commands.lock().expect("no test panics in here");
        commands.drain(..).map(|(_, command)| command).collect()
    }
}

/// Offers are words: `audio:0` and `video:1` are sending sections, `ufrag:x` names the client, `bad` is refused and
/// `panic` panics.
struct Words {
    local: Credentials,
    ufrag: Option<String>,
}

impl Negotiate for Words {
    fn local(&self) -> &Credentials {
        &self.local
    }

    fn answer(&mut self, offer: &str) -> Result<Answered, Refusal> {
        let (mut media, mut ufrag) = (Media::default(), "u".to_owned());
        for word in offer.split_whitespace() {
            match word.split_once(':') {
                Some(("ufrag", name)) => ufrag = name.to_owned(),
                Some((kind, mid)) => media.sending.push(section(kind, mid)),
                None if word == "panic" => panic!("asked to"),
                None => {
                    return Err(Refusal { reason: Reason::SdpMalformed, hint: "Not an offer.".into() });
                }
            }
        }
        let restart = self.ufrag.replace(ufrag.clone()).is_some_and(|before| before != ufrag);
        let credentials = Credentials { ufrag, pwd: String::new() };
        let remote = Remote { credentials, fingerprint: [0; 32], role: DtlsRole::Server };
        Ok(Answered { sdp: format!("answer to {offer}"), media, remote, restart })
    }
}

fn section(kind: &str, mid: &str) -> SendingSection {
    SendingSection {
        mid: Mid::new(mid.as_bytes()).expect("a mid"),
        kind: if kind == "audio" { Kind::Audio } else { Kind::Video },
        payload_type: 96,
        rtx_payload_type: None,
        extensions: ExtensionIds::default(),
        rids: Vec::new(),
        ssrcs: Vec::new(),
        nack: true,
    }
}

/// A server without media.
struct House {
    rooms: Arc<Rooms>,
    worker: Arc<Recorder>,
    refused: Arc<Counters>,
    /// What big rooms leave out and repeat is permitted.
    big: bool,
}

impl House {
    fn big(settings: Settings) -> Self {
        Self { big: true, ..Self::new(settings) }
    }

    fn new(settings: Settings) -> Self {
        let worker = Arc::new(Recorder::default());
        let refused = Arc::new(Counters::default());
        let new_transport = Box::new(|_: usize| -> Box<dyn Negotiate> {
            let local = Credentials { ufrag: "server".into(), pwd: "secret".into() };
            Box::new(Words { local, ufrag: None })
        });
        let people = Arc::default();
        let door =
            Door { settings, workers: worker.clone(), new_transport, refused: refused.clone(), people };
        Self { rooms: Rooms::new(door), worker, refused, big: false }
    }

    /// Someone who was let in, with a microphone on section 0.
    async fn join(&self, name: &str) -> Client {
        self.join_as(hello(name)).await.expect("let in")
    }

    /// The reason for which a `hello` is refused.
    async fn refusal(&self, hello: Value) -> String {
        let refusal = self.join_as(hello).await.err().expect("refused");
        assert_eq!(refusal["t"], "refuse");
        refusal["reason"].as_str().expect("a reason").to_owned()
    }

    async fn join_as(&self, hello: Value) -> Result<Client, Value> {
        let (carrier, outgoing) = Carrier::new(now());
        let text = hello.to_string();
        let incoming = decode(&text, &self.rooms.door.settings.sizes).expect("an envelope");
        let mut client = Client::new(carrier.clone(), outgoing);
        client.roster.big = self.big;
        match incoming.body {
            Ok(Some(FromClient::Hello(hello))) => match join::validate(*hello, &self.rooms.door.settings) {
                Ok(valid) => client.room = self.rooms.enter(valid, 1, carrier).await,
                Err(objection) => super::room::refuse(&self.rooms.door, &carrier, objection),
            },
            other => panic!("{other:?}"),
        }
        let welcome = client.hear().await;
        if welcome["t"] != "welcome" {
            assert_eq!(client.ending().await, Close::Refused);
            return Err(welcome);
        }
        client.admit(&welcome);
        Ok(client)
    }

    /// Takes `client`'s session over on a new carrier, or hears why not.
    async fn resume(&self, mut client: Client, token: &str) -> Result<Client, Value> {
        let (carrier, outgoing) = Carrier::new(now());
        let resume = json!({"t": "resume", "session": client.session, "token": token, "a": client.a});
        let incoming = decode(&resume.to_string(), &self.rooms.door.settings.sizes).expect("an envelope");
        let Ok(Some(FromClient::Resume(resume))) = incoming.body else { panic!("{incoming:?}") };
        client.room = self.rooms.resume(resume, carrier.clone()).await;
        (client.carrier, client.outgoing) = (carrier, outgoing);
        let answer = client.hear().await;
        if answer["t"] != "resumed" {
            return Err(answer);
        }
        client.token = answer["resume"].as_str().expect("a token").to_owned();
        Ok(client)
    }
}

fn hello(name: &str) -> Value {
    json!({
        "t": "hello", "s": 1, "a": 0, "room": "garden", "name": name, "offer": "audio:0 video:1 video:2",
        "publish": [{"mid": "0", "kind": "audio", "source": "microphone"}]
    })
}

/// One participant on an in-memory carrier.
struct Client {
    carrier: Carrier,
    outgoing: Outgoing,
    room: Option<Handle>,
    s: u64,
    a: u64,
    you: String,
    session: String,
    token: String,
    welcome: Value,
    roster: Roster,
}

impl Client {
    fn new(carrier: Carrier, outgoing: Outgoing) -> Self {
        Self {
            carrier,
            outgoing,
            room: None,
            s: 1,
            a: 0,
            you: String::new(),
            session: String::new(),
            token: String::new(),
            welcome: Value::Null,
            roster: Roster::default(),
        }
    }

    fn admit(&mut self, welcome: &Value) {
        let text = |field: &str| welcome[field].as_str().expect("text").to_owned();
        (self.you, self.session, self.token) = (text("you"), text("session"), text("resume"));
        self.welcome = welcome.clone();
    }

    /// A numbered message; `t`, `s` and `a` are added.
    async fn say(&mut self, t: &str, body: Value) -> u64 {
        self.s += 1;
        let mut message = json!({"t": t, "s": self.s, "a": self.a});
        message.as_object_mut().expect("an object").extend(body.as_object().expect("an object").clone());
        self.send(&message).await;
        self.s
    }

    async fn send(&self, message: &Value) {
        let sizes = Settings::default().sizes;
        let incoming = decode(&message.to_string(), &sizes).expect("an envelope");
        self.carrier.heard(now());
        let event = Event::Message { carrier: self.carrier.id(), incoming };
        assert!(self.room.as_ref().expect("in a room").send(event).await.is_ok(), "the room is over");
    }

    async fn lose(&self, clean: bool) {
        let event = Event::Lost { carrier: self.carrier.id(), clean };
        assert!(self.room.as_ref().expect("in a room").send(event).await.is_ok(), "the room is over");
    }

    /// The next message but for bare acknowledgements.
    async fn hear(&mut self) -> Value {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(100), self.outgoing.next());
            let text = next.await.expect("something is said").expect("the carrier is open");
            let message: Value = serde_json::from_str(&text).expect("valid JSON");
            if let Some(s) = message["s"].as_u64() {
                assert!(s > self.a, "{message} came twice");
                self.a = s;
            }
            self.roster.apply(&message);
            if message["t"] != "ack" {
                return message;
            }
        }
    }

    /// Nothing more is said at this moment.
    async fn hears_nothing(&mut self) {
        let next = tokio::time::timeout(Duration::from_millis(1), self.outgoing.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    /// Why the carrier is closed, after everything that is still said.
    async fn ending(&mut self) -> Close {
        while let Some(text) = self.outgoing.next().await {
            let message: Value = serde_json::from_str(&text).expect("valid JSON");
            self.roster.apply(&message);
        }
        self.outgoing.closing().expect("a reason")
    }
}

/// What a client knows about the room.
#[derive(Clone, Debug, Default, PartialEq)]
struct Roster {
    /// The room may leave out and repeat what big rooms may.
    big: bool,
    rev: u64,
    total: u64,
    people: BTreeMap<String, Value>,
    publications: BTreeMap<u64, Value>,
}

impl Roster {
    fn apply(&mut self, message: &Value) {
        let list = |field: &str| message[field].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        match message["t"].as_str() {
            Some("welcome" | "snapshot") => {
                let rev = message["room"]["rev"].as_u64().expect("rev");
                *self = Self { rev, big: self.big, ..Self::default() };
            }
            Some("who") => {}
            Some("room") => {
                let rev = message["rev"].as_u64().expect("rev");
                assert_eq!(rev, self.rev + 1, "a revision is missing");
                self.rev = rev;
            }
            _ => return,
        }
        for id in list("unpublished") {
            let known = self.publications.remove(&id.as_u64().expect("id")).is_some();
            assert!(known || self.big, "{id} was never published");
        }
        for left in list("left") {
            let id = text(&left["id"]);
            let known = self.people.remove(&id).is_some();
            assert!(known || self.big, "{id} was never here");
            self.publications.retain(|_, publication| publication["participant"] != id.as_str());
        }
        for person in [list("participants"), list("joined"), list("changed")].concat() {
            self.people.insert(text(&person["id"]), person);
        }
        for publication in [list("publications"), list("published")].concat() {
            let owner = publication["participant"].as_str().expect("an owner");
            assert!(self.people.contains_key(owner), "{message}: {owner} was never named");
            self.publications.insert(publication["id"].as_u64().expect("id"), publication);
        }
        let total = message["total"].as_u64().or(message["room"]["total"].as_u64());
        self.total = total.expect("a number");
        assert!(self.big || self.total == self.people.len() as u64, "{message}");
    }

    /// Without what only the owner sees.
    fn public(&self) -> Self {
        let mut roster = self.clone();
        for publication in roster.publications.values_mut() {
            publication.as_object_mut().expect("an object").remove("mid");
        }
        roster
    }
}
