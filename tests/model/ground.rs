//! The media below the model: a real worker and one raw client for each page, in a simulated network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use motet::control::{Command, Update};
use motet::id::RoomKey;
use motet::observe::reason::Reason;
use serde_json::Value;

use super::op::ROOMS;
use super::page::text;
use super::world::{Seat, World};
use crate::support::media::Stream;
use crate::support::network::Link;
use crate::support::raw::{Raw, Shape};
use crate::support::{Peer as _, Sim, ms};

/// Enough slots for everybody's publications, those of lately left people included.
const SHAPE: Shape = Shape {
    publishes: true,
    rids: &[],
    audio_slots: 8,
    video_slots: 8,
    passive: false,
    firefox: false,
    names_sources: true,
};

/// What was said and what was sent just before may be under way for so long.
const UNDER_WAY: Duration = Duration::from_millis(80);

/// One page's client.
struct Body {
    room: usize,
    offer: String,
    /// Its credentials, and how often it made others.
    names: (String, String, u32),
    started: bool,
    flows: bool,
    /// How much of each slot was looked at.
    seen: BTreeMap<u32, usize>,
}

pub struct Ground {
    pub sim: Sim,
    bodies: Vec<Body>,
    next: Option<(Raw, Body)>,
    /// The newest client of each participant.
    raw_of: BTreeMap<String, usize>,
    /// Whose each publication is, by room and id.
    owners: [BTreeMap<u32, u32>; ROOMS],
}

/// Who can see what at the beginning of a pause, and so has to see it at its end.
pub struct Settled(BTreeSet<(String, u64)>);

impl Ground {
    pub fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let owners = [const { BTreeMap::new() }; ROOMS];
        Self { sim, bodies: Vec::new(), next: None, raw_of: BTreeMap::new(), owners }
    }

    /// The offer of somebody who is about to join.
    pub fn offer(&mut self, room: usize) -> String {
        let (mut raw, offer) = Raw::new(self.bodies.len(), self.sim.now, &SHAPE);
        for source in &mut raw.media.sources {
            // The decisions are the same for small pictures.
            (source.packets_per_frame, source.payload_len) = (1, 60);
        }
        let names = (raw.ufrag.clone(), raw.pwd.clone(), 0);
        let seen = BTreeMap::new();
        let body = Body { room, offer: offer.clone(), names, started: false, flows: true, seen };
        self.next = Some((raw, body));
        offer
    }

    /// Somebody was let in.
    pub fn answered(&mut self, you: &str, answer: &Value) -> usize {
        let (mut raw, body) = self.next.take().expect("an offer");
        raw.answered(self.sim.now, &text(answer));
        self.sim.clients.push(Box::new(raw));
        self.bodies.push(body);
        self.raw_of.insert(you.to_owned(), self.bodies.len() - 1);
        self.bodies.len() - 1
    }

    fn renewed(&self, raw: usize) -> (String, String) {
        let count = self.bodies[raw].names.2;
        (format!("new{raw:02}x{count}"), format!("another/password/{raw:04}/{count:04}"))
    }

    /// The offer with new credentials.
    pub fn offer_again(&self, raw: usize) -> String {
        let (ufrag, pwd) = self.renewed(raw);
        let body = &self.bodies[raw];
        let offer = body.offer.replace(&format!("ice-ufrag:{}", body.names.0), &format!("ice-ufrag:{ufrag}"));
        offer.replace(&format!("ice-pwd:{}", body.names.1), &format!("ice-pwd:{pwd}"))
    }

    /// The last such offer was answered, or not.
    pub fn restart(&mut self, raw: usize, answered: bool) {
        let (ufrag, pwd) = self.renewed(raw);
        if answered {
            let client = self.sim.raw(raw);
            (client.ufrag, client.pwd) = (ufrag, pwd);
        }
        self.bodies[raw].names.2 += 1;
    }

    pub fn set_flows(&mut self, raw: usize, flows: bool) {
        self.bodies[raw].flows = flows;
        let link = if flows { Link::default() } else { Link::dead() };
        self.sim.links(raw, link, link);
    }

    /// The page is gone.
    pub fn silence(&mut self, raw: usize) {
        self.set_flows(raw, false);
        let client = self.sim.raw(raw);
        (client.checks, client.sends_reports, client.nacks) = (false, false, false);
        client.media.stop();
        self.bodies[raw].started = true;
    }

    /// Time goes on; what the worker has to say.
    pub fn pass(&mut self, step: Duration, commands: Vec<Command>) -> Vec<(RoomKey, Update)> {
        for command in commands {
            self.sim.server.worker.handle_command(self.sim.now, command);
        }
        self.sim.run_for(step);
        let now = self.sim.now;
        for (client, body) in self.sim.clients.iter_mut().zip(&mut self.bodies) {
            if client.is_connected() && !body.started {
                body.started = true;
                client.media().start(now);
            }
        }
        self.sim.server.updates.clear();
        std::mem::take(&mut self.sim.server.news)
    }

    fn works(&self, raw: usize) -> bool {
        self.bodies[raw].flows && self.bodies[raw].started
    }

    /// Every slot of whoever is told what it carries does so.
    pub fn check_slots(&mut self, world: &World) {
        for seat in world.seats.iter().flatten().filter(|seat| seat.page.is_healthy()) {
            for (id, publication) in &seat.page.roster.publications {
                let raw = self.raw_of[&publication.owner] as u32;
                self.owners[seat.room].entry(*id as u32).or_insert(raw);
            }
        }
        let time = tokio::time::Instant::now().into_std();
        for seat in world.seats.iter().flatten() {
            let told = seat.page.slots_at.filter(|_| seat.page.is_healthy() && self.works(seat.raw));
            let now = self.sim.now;
            // The two clocks go at the same pace.
            let since = told.map(|at| now - (time - at) + UNDER_WAY);
            let body = &mut self.bodies[seat.raw];
            let media = self.sim.clients[seat.raw].media();
            for slot in &media.slots {
                let Some(arrivals) = media.received.get(&slot.ssrc) else { continue };
                let seen = body.seen.insert(slot.ssrc, arrivals.len()).unwrap_or_default();
                let Some(since) = since else { continue };
                let said = seat.page.slots.iter().find(|said| said["slot"] == slot.mid.as_str());
                let said = said.expect("every slot is spoken of");
                // What came of itself, not what was asked for again.
                let fresh =
                    arrivals[seen..].iter().filter(|arrival| arrival.at > since && arrival.rtx.is_none());
                for arrival in fresh.filter(|_| said["pending"] != true) {
                    let carried = arrival.header.csrc.first().copied().map(u64::from);
                    assert!(
                        carried == said["publication"].as_u64(),
                        "slot {} of {} carries {carried:?}, {:?} ago, though: {said}",
                        slot.mid,
                        seat.page.you,
                        now - arrival.at,
                    );
                }
            }
        }
    }

    /// Who can see what.
    pub fn settled(&self, world: &World) -> Settled {
        let mut settled = BTreeSet::new();
        let seeing = |seat: &&Seat| seat.page.is_healthy() && self.works(seat.raw);
        for seat in world.seats.iter().flatten().filter(seeing) {
            for (id, publication) in &seat.page.roster.publications {
                if publication.owner != seat.page.you && self.works(self.raw_of[&publication.owner]) {
                    settled.insert((seat.page.you.clone(), *id));
                }
            }
        }
        Settled(settled)
    }

    /// Nothing but time has passed for some seconds.
    pub fn check_flow(&mut self, world: &World, settled: &Settled) {
        for seat in world.seats.iter().flatten() {
            let carried = self.carried(seat.raw);
            let known = |id: &u32| seat.page.roster.publications.contains_key(&u64::from(*id));
            let gone = carried.iter().any(|id| !known(id));
            assert!(!(gone && seat.page.is_healthy()), "{} still gets {carried:?}", seat.page.you);
            for (_, id) in settled.0.iter().filter(|(you, _)| *you == seat.page.you) {
                let publication = &seat.page.roster.publications[id];
                let wanted = !publication.muted && (publication.source != "camera" || seat.height > 0);
                let comes = carried.contains(&(*id as u32));
                assert!(
                    comes == wanted,
                    "{} gets {id} of {}: {comes}, wants it: {wanted}\n{:#?}\n{:?}",
                    seat.page.you,
                    publication.owner,
                    seat.page.slots,
                    self.sim.server.worker.traffic().dropped.nonzero().collect::<Vec<_>>(),
                );
            }
        }
    }

    /// What came in the last moments.
    fn carried(&mut self, raw: usize) -> BTreeSet<u32> {
        let now = self.sim.now;
        let lately = |at: Instant| now - at < ms(250);
        let last = self.sim.clients[raw].media().received.values().filter_map(|arrivals| arrivals.last());
        let last = last.filter(|arrival| lately(arrival.at));
        last.filter_map(|arrival| arrival.header.csrc.first().copied()).collect()
    }

    /// Everything that ever came to anybody.
    pub fn check_all(&mut self) {
        for (own, (body, client)) in self.bodies.iter().zip(&mut self.sim.clients).enumerate() {
            let media = client.media();
            for slot in &media.slots {
                let arrivals = media.received.get(&slot.ssrc).map_or(&[][..], Vec::as_slice);
                let stream = Stream::new(slot.kind, arrivals);
                let foreign = |publisher: &u32| self.bodies[*publisher as usize].room != body.room;
                assert!(!stream.publishers().iter().any(foreign), "media of another room");
                assert!(!stream.publishers().contains(&(own as u32)), "its own media");
                stream.check(&self.owners[body.room]);
            }
        }
        let traffic = self.sim.server.worker.traffic();
        assert_eq!(traffic.members.load(Ordering::Relaxed), 0, "the worker has let everybody go");
        for reason in [Reason::SealTwice, Reason::Panicked] {
            assert_eq!(traffic.dropped.get(reason), 0, "{reason:?}");
        }
    }
}
