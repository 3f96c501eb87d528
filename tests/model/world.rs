//! Real room tasks, eight seats, and the model beside them: does what an operation says to both, and compares.

use std::sync::Arc;
use std::time::{Duration, Instant};

use motet::control::Update;
use motet::id::ParticipantId;
use motet::observe::people::People;
use motet::observe::reason::{Counters, Reason};
use motet::signal::carrier::Close;
use motet::signal::rooms::Rooms;
use motet::signal::{Door, Settings};
use serde_json::{Value, json};

use super::fake::{SECTIONS, Words, Worker};
use super::ground::Ground;
use super::op::{Act, Op, ROOMS, SEATS};
use super::page::{Page, Wire};
use super::truth::{Is, Person, Truth};

mod coming;

/// What is said and what becomes of it when it arrives.
#[derive(Clone, Debug)]
enum Said {
    Publish { section: usize, muted: bool },
    Unpublish { id: u64, section: Option<usize> },
    Mute { id: u64, section: Option<usize>, muted: bool },
    Want { height: u16 },
    Name(String),
    Who,
    Nonsense,
    Offer { transport: u64 },
}

pub(super) struct Seat {
    pub(super) page: Page,
    pub(super) room: usize,
    /// Said into a dead carrier, by number.
    unheard: Vec<(u64, Said)>,
    /// Tokens that were right once, and are not any more.
    old: Vec<String>,
    /// The token before the newest, as long as the newest may not have arrived.
    previous: Option<String>,
    /// The worker gave the transport up, and no other was offered yet.
    failed: bool,
    wants: u64,
    pub(super) height: u16,
    /// The client of the media path, where there is one.
    pub(super) raw: usize,
    /// Carriers that were replaced, and whose connection has not noticed.
    replaced: Vec<Wire>,
}

pub struct World {
    rooms: Arc<Rooms>,
    worker: Arc<Worker>,
    people: Arc<People>,
    refused: Arc<Counters>,
    pub(super) seats: Vec<Option<Seat>>,
    truth: Truth,
    /// Pages that are gone for ever, with carriers that nobody has closed.
    dead: Vec<Page>,
    names: u32,
    /// Media, too.
    pub(super) ground: Option<Ground>,
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn id(you: &str) -> ParticipantId {
    you.parse().expect("an id")
}

impl World {
    /// Signaling alone.
    pub fn new() -> Self {
        Self::with(Worker::default(), None)
    }

    /// With a media worker and clients that send and receive, in a simulated network.
    pub fn with_media(seed: u64) -> Self {
        Self::with(Worker::beside_a_real_one(), Some(Ground::new(seed)))
    }

    fn with(worker: Worker, ground: Option<Ground>) -> Self {
        let (worker, people) = (Arc::new(worker), Arc::new(People::default()));
        let new_transport: motet::signal::NewTransport = match &ground {
            Some(ground) => motet::signal::negotiators(vec![ground.sim.server.environment()]),
            None => Box::new(|_| Box::new(Words::new())),
        };
        let refused = Arc::new(Counters::default());
        let door = Door {
            settings: Settings::default(),
            workers: worker.clone(),
            new_transport,
            refused: refused.clone(),
            people: people.clone(),
        };
        Self {
            rooms: Rooms::new(door),
            worker,
            people,
            refused,
            seats: (0..SEATS).map(|_| None).collect(),
            truth: Truth::default(),
            dead: Vec::new(),
            names: 0,
            ground,
        }
    }

    pub async fn play(&mut self, ops: &[Op]) {
        for op in ops {
            self.act(op.seat, op.act).await;
            self.settle().await;
            self.check();
        }
        self.end().await;
    }

    /// Everybody goes, and nothing is left.
    async fn end(&mut self) {
        for seat in 0..SEATS {
            self.act(seat, [Act::Bye, Act::Kill, Act::Close][seat % 3]).await;
        }
        self.pause(34_000).await;
        assert_eq!((self.people.participants(), self.people.publications()), (0, 0));
        assert!(self.people.sessions().all(|(_, count)| count == 0));
        assert!(self.worker.members().is_empty(), "{:?}", self.worker.members());
        tokio::time::sleep(Duration::from_secs(62)).await;
        if let Some(ground) = &mut self.ground {
            ground.check_all();
        }
        let live = self.rooms.live();
        assert_eq!((live.rooms, live.events.0, live.updates), (0, 0, 0), "every room ended");
    }

    /// Everybody who has something to do does it, and all that is said is heard.
    async fn settle(&mut self) {
        if self.ground.is_some() {
            self.pass(15).await;
        }
        loop {
            // The clock stands until all tasks wait.
            self.pass(1).await;
            let updates = self.worker.updates(now());
            if updates.is_empty() {
                break;
            }
            for (room, update) in updates {
                self.rooms.deliver(room, update);
            }
        }
        for index in 0..SEATS {
            let Some(seat) = &mut self.seats[index] else { continue };
            if seat.page.is_healthy()
                && let Some(why) = seat.page.read()
            {
                panic!("seat {index}: the carrier was closed: {why:?}");
            }
        }
    }

    /// Time goes on for everybody.
    async fn pass(&mut self, ms: u64) {
        let Some(ground) = &mut self.ground else {
            return tokio::time::sleep(Duration::from_millis(ms)).await;
        };
        for _ in 0..ms.div_ceil(5) {
            let step = Duration::from_millis(ms.min(5));
            for (room, update) in ground.pass(step, self.worker.commands()) {
                self.rooms.deliver(room, update);
            }
            tokio::time::sleep(step).await;
        }
    }

    async fn pause(&mut self, ms: u64) {
        let end = now() + Duration::from_millis(ms);
        let settled = self.ground.as_ref().map(|ground| ground.settled(self));
        while now() < end {
            // Browsers answer a ping every 2 s. Where nobody looks, it is enough that the worker says who is silent.
            let watched = self.seats.iter().flatten().any(|seat| seat.page.is_healthy());
            let step = (end - now()).min(Duration::from_millis(if watched { 1900 } else { 9000 }));
            self.pass(step.as_millis().max(1) as u64).await;
            for seat in self.seats.iter().flatten().filter(|seat| seat.page.is_healthy()) {
                // The pong of a browser.
                seat.page.wire.as_ref().expect("healthy").line.heard();
            }
            self.settle().await;
            self.check();
        }
        if let (Some(settled), true) = (settled, ms >= 2_000) {
            let mut ground = self.ground.take().expect("media");
            ground.check_flow(self, &settled);
            self.ground = Some(ground);
        }
    }

    fn check(&mut self) {
        let time = now();
        assert_eq!(self.worker.wrong(), Vec::<String>::new());
        assert_eq!(self.refused.get(Reason::Panicked), 0);
        for room in 0..ROOMS {
            let healthy: Vec<_> = self
                .seats
                .iter()
                .flatten()
                .filter(|seat| seat.room == room && seat.page.is_healthy())
                .collect();
            for seat in &healthy {
                let (page, you) = (&seat.page, &seat.page.you);
                let roster = page.roster.public();
                assert_eq!(roster, healthy[0].page.roster.public(), "{you} and {}", healthy[0].page.you);
                assert_eq!(page.expected, Default::default(), "{you} waits for what does not come");
                assert_eq!(page.have, if seat.failed { page.have } else { seat.wants }, "{you}: have");
                let own = page.roster.publications.values().filter(|entry| entry.mid.is_some());
                assert!(own.clone().all(|entry| entry.owner == *you), "{you} sees another's section");
                let count = page.roster.publications.values().filter(|entry| entry.owner == *you).count();
                assert_eq!(own.count(), count, "{you} does not see its sections");
                // `room` deltas and snapshots may leave no server message for long: acknowledgements come within 2 s.
                if let Err(wrong) = self.truth.check(time, room, &roster) {
                    panic!("{you}: {wrong}\n{roster:#?}\n{:#?}", self.truth);
                }
            }
        }
        if let Some(mut ground) = self.ground.take() {
            ground.check_slots(self);
            self.ground = Some(ground);
        }
        // The worker knows exactly those who are here, and what they publish.
        let members = self.worker.members();
        for seat in self.seats.iter().flatten().filter(|seat| seat.page.is_healthy() && !seat.failed) {
            let member = members.get(&id(&seat.page.you)).expect("known to the worker");
            let published = |muted: bool| member.publications.values().filter(|m| **m == muted).count();
            let person = &self.truth.0[&seat.page.you];
            let real = |muted: bool| person.publications.values().filter(|m| **m == muted).count();
            assert_eq!([published(true), published(false)], [real(true), real(false)], "{}", seat.page.you);
            assert_eq!(u64::from(member.epoch.0), seat.page.epoch);
        }
        let truth = &mut self.truth.0;
        for (participant, member) in &members {
            let gone = truth.get(&participant.to_string()).map_or(Is::Yes, |person| person.is_gone(time));
            assert!(gone != Is::Yes, "{participant} is a ghost of the worker's: {member:?}");
        }
        truth.retain(|_, person| person.is_gone(time) != Is::Yes);
    }

    async fn act(&mut self, index: usize, act: Act) {
        if let Act::Pause { ms } = act {
            return self.pause(ms).await;
        }
        if let Act::Join { room } = act {
            if self.seats[index].is_none() {
                self.join(index, room, None).await;
            }
            return;
        }
        let Some(mut seat) = self.seats[index].take() else { return };
        let own = |seat: &Seat, section: usize| seat.page.roster.own(&seat.page.you, &section.to_string());
        match act {
            Act::Join { .. } | Act::Pause { .. } => {}
            Act::Publish { section, muted } => self.say(&mut seat, Said::Publish { section, muted }).await,
            Act::Unpublish { section } => {
                if let Some(id) = own(&seat, section) {
                    self.say(&mut seat, Said::Unpublish { id, section: Some(section) }).await;
                }
            }
            Act::Mute { section, muted } => {
                if let Some(id) = own(&seat, section) {
                    self.say(&mut seat, Said::Mute { id, section: Some(section), muted }).await;
                }
            }
            Act::Meddle => {
                let others = seat.page.roster.publications.iter().find(|(_, p)| p.owner != seat.page.you);
                let id = others.map_or(4_000_000, |(id, _)| *id);
                self.say(&mut seat, Said::Unpublish { id, section: None }).await;
                self.say(&mut seat, Said::Mute { id, section: None, muted: true }).await;
            }
            Act::Want { height } => self.say(&mut seat, Said::Want { height }).await,
            Act::Name => {
                self.names += 1;
                self.say(&mut seat, Said::Name(format!("renamed {}", self.names))).await;
            }
            Act::Who => self.say(&mut seat, Said::Who).await,
            Act::Nonsense => self.say(&mut seat, Said::Nonsense).await,
            Act::Ack => self.send(&mut seat, json!({"t": "ack"}).to_string(), true).await,
            Act::Lose => {
                if let Some(wire) = seat.page.wire.take() {
                    self.silence_carrier(&seat, !wire.broken);
                    wire.line.lose(false).await;
                }
            }
            Act::Break => {
                if let Some(wire) = &mut seat.page.wire {
                    let was_broken = std::mem::replace(&mut wire.broken, true);
                    self.silence_carrier(&seat, !was_broken);
                }
            }
            Act::Resume { token } => return self.resume(index, seat, token).await,
            Act::ResumeInVain => self.resume_in_vain(&mut seat).await,
            Act::Late => {
                if let Some(wire) = seat.replaced.last_mut() {
                    let text =
                        json!({"t": "name", "s": seat.page.s + 50, "a": 0, "name": "Nobody"}).to_string();
                    wire.line.take(&text).await;
                }
            }
            Act::Restart => {
                let (transport, answered) = (seat.page.transport, seat.page.answered);
                if self.ground.is_none() || seat.page.is_healthy() {
                    self.say(&mut seat, Said::Offer { transport }).await;
                    if seat.page.is_healthy() {
                        seat.page.read();
                    }
                }
                if let Some(ground) = &mut self.ground {
                    ground.restart(seat.raw, seat.page.answered > answered);
                }
            }
            Act::Second => self.offer_another(&mut seat).await,
            Act::Dark | Act::Light => self.set_media(&seat, act == Act::Light),
            Act::Fail => self.fail(&mut seat).await,
            Act::Reload { token, clean } => return self.reload(index, seat, token, clean).await,
            Act::Bye if seat.page.is_healthy() => {
                let bye = json!({"t": "bye", "s": seat.page.s + 1}).to_string();
                self.send(&mut seat, bye, false).await;
                self.settle_one(&mut seat, Close::Bye).await;
                self.truth.0.remove(&seat.page.you);
                return;
            }
            Act::Close if seat.page.is_healthy() => {
                let wire = seat.page.wire.take().expect("healthy");
                wire.line.lose(true).await;
                self.truth.0.remove(&seat.page.you);
                return;
            }
            Act::Bye | Act::Close | Act::Kill => {
                self.set_media(&seat, false);
                if let Some(ground) = &mut self.ground {
                    ground.silence(seat.raw);
                }
                self.silence_carrier(&seat, seat.page.is_healthy());
                self.dead.push(seat.page);
                return;
            }
            Act::OldNews => self.worker.say_old_news(id(&seat.page.you)),
            Act::Speak => self.speak(&seat),
        }
        self.seats[index] = Some(seat);
    }

    /// Says something that is kept until it is acknowledged, in the carrier's present state.
    async fn say(&mut self, seat: &mut Seat, said: Said) {
        let message = match &said {
            Said::Publish { section, muted } => json!({"t": "publish", "publish": [item(*section, *muted)]}),
            Said::Unpublish { id, .. } => json!({"t": "unpublish", "publication": id}),
            Said::Mute { id, muted, .. } => json!({"t": "mute", "publication": id, "muted": muted}),
            Said::Want { height } => {
                seat.wants += 1;
                json!({"t": "want", "n": seat.wants, "default": {"height": height}})
            }
            Said::Name(name) => json!({"t": "name", "name": name}),
            Said::Who => json!({"t": "who"}),
            Said::Nonsense => json!({"t": "nonsense", "must": true}),
            Said::Offer { transport } => {
                self.names += 1;
                let person = &self.truth.0.get(&seat.page.you);
                let publish: Vec<_> = if *transport > seat.page.transport {
                    let all = person.map(|person| person.publications.clone()).unwrap_or_default();
                    all.into_iter().map(|(section, muted)| item(section, muted)).collect()
                } else {
                    Vec::new()
                };
                let again = || format!("again{}", self.names);
                let sdp = self.ground.as_ref().map_or_else(again, |ground| ground.offer_again(seat.raw));
                json!({"t": "offer", "transport": transport, "sdp": sdp, "publish": publish})
            }
        };
        let s = seat.page.number(message);
        if seat.page.is_healthy() {
            let text = seat.page.envelope(&seat.page.kept.back().expect("just kept").1);
            self.send(seat, text, true).await;
            self.heard(seat, s, &said);
        } else {
            seat.unheard.push((s, said));
        }
    }

    /// A text goes out on the carrier, if there is a healthy one.
    async fn send(&mut self, seat: &mut Seat, text: String, envelope: bool) {
        if !seat.page.is_healthy() {
            return;
        }
        let mut message: Value = serde_json::from_str(&text).expect("JSON");
        message["a"] = seat.page.a.into();
        if envelope {
            // The newest token arrived: something was said after it.
            seat.old.extend(seat.previous.take());
        }
        let wire = seat.page.wire.as_mut().expect("healthy");
        assert!(wire.line.take(&message.to_string()).await, "the room is over");
        self.pass(1).await;
    }

    /// The server has heard it: what it changes, and what is to come back.
    fn heard(&mut self, seat: &mut Seat, s: u64, said: &Said) {
        let Some(person) = self.truth.0.get_mut(&seat.page.you) else { panic!("heard from nobody") };
        let expected = &mut seat.page.expected;
        match said {
            Said::Publish { section, muted } => {
                if seat.failed || person.publications.contains_key(section) {
                    expected.errors.insert(s, "wrong_state");
                } else {
                    person.publications.insert(*section, *muted);
                }
            }
            Said::Unpublish { section: Some(section), .. } if person.publications.contains_key(section) => {
                person.publications.remove(section);
            }
            Said::Mute { section: Some(section), muted, .. } if person.publications.contains_key(section) => {
                person.publications.insert(*section, *muted);
            }
            Said::Unpublish { .. } | Said::Mute { .. } => {
                expected.errors.insert(s, "unknown_publication");
            }
            Said::Want { height } => seat.height = *height,
            Said::Name(name) => person.name.clone_from(name),
            Said::Who => expected.pages += 1,
            Said::Nonsense => {
                expected.errors.insert(s, "unknown_kind");
            }
            Said::Offer { transport } => {
                if *transport > seat.page.transport || !seat.failed {
                    expected.answers.insert(s);
                } else {
                    expected.errors.insert(s, "wrong_state");
                }
            }
        }
    }

    /// From now on nothing is heard on the seat's carrier.
    fn silence_carrier(&mut self, seat: &Seat, spoke: bool) {
        if let Some(person) = self.truth.0.get_mut(&seat.page.you).filter(|_| spoke) {
            person.carrier = Some(now());
        }
    }

    fn set_media(&mut self, seat: &Seat, flows: bool) {
        let you = &seat.page.you;
        if let Some(ground) = &mut self.ground {
            ground.set_flows(seat.raw, flows);
        }
        // Whom the worker gave up sends nothing to it.
        let known = self.worker.members().contains_key(&id(you));
        if let Some(person) = self.truth.0.get_mut(you).filter(|_| known) {
            if flows {
                person.media = None;
            } else {
                person.media.get_or_insert(now());
            }
            if self.worker.members()[&id(you)].flows != flows {
                self.worker.set_flows(now(), id(you), flows);
            }
        }
    }

    async fn fail(&mut self, seat: &mut Seat) {
        if seat.failed {
            // The page has heard of it.
            self.offer_another(seat).await;
        } else if self.worker.fail(id(&seat.page.you)) {
            seat.failed = true;
            seat.page.expected.restarts += 1;
            if let Some(person) = self.truth.0.get_mut(&seat.page.you) {
                person.media.get_or_insert(now());
            }
        }
    }

    /// Another transport, whether or not there is one.
    async fn offer_another(&mut self, seat: &mut Seat) {
        if self.ground.is_some() || !seat.page.is_healthy() {
            return;
        }
        let (next, answered) = (seat.page.transport + 1, seat.page.answered);
        self.say(seat, Said::Offer { transport: next }).await;
        seat.page.read();
        // Unless there were too many offers of late.
        if seat.page.answered > answered {
            (seat.page.transport, seat.failed) = (next, false);
            if let Some(person) = self.truth.0.get_mut(&seat.page.you) {
                person.media = None;
            }
        }
    }

    fn speak(&mut self, seat: &Seat) {
        let Some(key) = self.worker.members().get(&id(&seat.page.you)).map(|member| member.room) else {
            return;
        };
        self.rooms.deliver(key, Update::Speakers { speakers: vec![id(&seat.page.you)] });
    }

    /// Reads the last words.
    async fn settle_one(&mut self, seat: &mut Seat, expected: Close) {
        self.pass(1).await;
        assert_eq!(seat.page.read(), Some(expected));
    }
}

fn item(section: usize, muted: bool) -> Value {
    let (kind, source) = SECTIONS[section];
    json!({"mid": section.to_string(), "kind": kind, "source": source, "muted": muted})
}
