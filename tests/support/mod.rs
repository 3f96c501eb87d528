//! A simulated world: one server core, any number of clients, a network between, and a clock that jumps from event to
//! event.

// Not every test uses every part.
#![allow(dead_code)]

pub mod client;
pub mod media;
pub mod network;
pub mod raw;
pub mod sdp;
pub mod server;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use motet::control::{Command, Update};
use motet::observe::reason::Reason;
use motet::room::{Want, Wish};
use motet::worker::Settings;

use client::Client;
use media::MediaEnd;
use network::{End, Link, Network};
use raw::Raw;
use server::Server;

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// Anything that talks to the server over the network.
pub trait Peer {
    /// The answer to the peer's offer.
    fn answered(&mut self, now: Instant, answer: &str);
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&mut self) -> Option<Instant>;
    /// From, to, bytes.
    fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, SocketAddr, Vec<u8>)>;
    fn media(&mut self) -> &mut MediaEnd;
    /// Media can flow.
    fn is_connected(&self) -> bool;
    fn as_any(&mut self) -> &mut dyn Any;
}

/// The clients that are not suspended.
fn awake<'a>(
    clients: &'a mut [Box<dyn Peer>],
    suspended: &'a BTreeSet<usize>,
) -> impl Iterator<Item = (usize, &'a mut Box<dyn Peer>)> {
    clients.iter_mut().enumerate().filter(|(client, _)| !suspended.contains(client))
}

/// Where a client lives. Clients and members of the server are numbered alike.
pub fn home(client: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, client as u8 + 1], 40_000))
}

pub struct Sim {
    pub now: Instant,
    pub start: Instant,
    pub network: Network,
    pub server: Server,
    pub clients: Vec<Box<dyn Peer>>,
    /// How long after a statement of what its slots carry a client's acknowledgement is there; `None`: never.
    pub acknowledges: Option<Duration>,
    /// Acknowledgements on their way: when they arrive, whose, of which statement.
    seen: VecDeque<(Instant, usize, u64)>,
    /// Statements that were looked at for them.
    looked_at: usize,
    /// Clients that are suspended: what comes for them is lost.
    pub suspended: BTreeSet<usize>,
    /// Datagrams on their way to the server, for tests that copy or spoil them; kept while it is `Some`.
    pub captured: Option<Vec<(SocketAddr, Vec<u8>)>>,
}

impl Sim {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Settings::default())
    }

    pub fn with(seed: u64, settings: Settings) -> Self {
        let start = Instant::now();
        let server = Server::new(start, settings);
        let network = Network::new(seed, server.address);
        Self {
            now: start,
            start,
            network,
            server,
            clients: Vec::new(),
            acknowledges: None,
            seen: VecDeque::new(),
            looked_at: 0,
            suspended: BTreeSet::new(),
            captured: None,
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Lets a peer join a room with its offer, publishing what its sources say.
    pub fn join(&mut self, room: u64, offer: &str, mut peer: Box<dyn Peer>) -> usize {
        let mut publish: Vec<(String, media::Kind, motet::room::Source)> = Vec::new();
        for source in &peer.media().sources {
            if publish.iter().all(|(mid, ..)| *mid != source.mid) {
                publish.push((source.mid.clone(), source.kind, source.source));
            }
        }
        let (answer, member) = self.server.join(self.now, room, offer, &publish);
        peer.answered(self.now, &answer);
        self.clients.push(peer);
        assert_eq!(member + 1, self.clients.len());
        member
    }

    /// The same person again, with a new page: a newer epoch.
    pub fn rejoin(&mut self, client: usize, offer: &str, mut peer: Box<dyn Peer>) -> usize {
        let member = &self.server.members[client];
        let (room, id, epoch) = (member.room.0, member.id, member.epoch);
        let publish: Vec<_> =
            member.publications.iter().map(|p| (p.mid.to_string(), p.kind, p.source)).collect();
        let former = member.publications.clone();
        let answer = self.server.enter(self.now, room, id, motet::id::Epoch(epoch.0 + 1), offer, &publish);
        let mut member = self.server.members.pop().expect("it entered");
        member.publications.extend(former);
        self.server.members[client] = member;
        peer.answered(self.now, &answer);
        self.clients[client] = peer;
        client
    }

    /// A second connection of a client, in the same session; where it stands in `clients`.
    pub fn second(&mut self, client: usize, transport: u8, shape: &raw::Shape) -> usize {
        let index = self.clients.len();
        let (mut peer, offer) = Raw::new(index, self.now, shape);
        let answer = self.server.second(self.now, client, transport, &offer);
        peer.answered(self.now, &answer);
        self.clients.push(Box::new(peer));
        index
    }

    /// An independent peer connection that publishes sound and picture, joined.
    pub fn caller(&mut self, room: u64) -> usize {
        let index = self.clients.len();
        let (client, offer) = Client::new(index, self.now, &client::Shape::default());
        self.join(room, &offer, Box::new(client))
    }

    /// A client of which the test controls every byte, joined.
    pub fn raw_caller(&mut self, room: u64, shape: &raw::Shape) -> usize {
        let index = self.clients.len();
        let (client, offer) = Raw::new(index, self.now, shape);
        self.join(room, &offer, Box::new(client))
    }

    pub fn raw(&mut self, client: usize) -> &mut Raw {
        self.clients[client].as_any().downcast_mut().expect("a raw client")
    }

    pub fn connect(&mut self) {
        self.run_until(s(5), "everybody is connected", |sim| {
            sim.clients.iter().all(|peer| peer.is_connected())
        });
    }

    pub fn media(&mut self, client: usize) -> &mut MediaEnd {
        self.clients[client].media()
    }

    pub fn start_media(&mut self) {
        let now = self.now;
        self.clients.iter_mut().for_each(|peer| peer.media().start(now));
    }

    /// Everybody falls silent, and what is on its way arrives or is repaired.
    pub fn drain(&mut self) {
        self.clients.iter_mut().for_each(|peer| peer.media().stop());
        self.run_for(ms(900));
    }

    pub fn want(&mut self, client: usize, height: u16) {
        let now = self.now;
        let want = Want { n: 1, default: Wish { height, priority: 0 }, ..Want::default() };
        self.server.command(now, client, |participant, epoch| Command::Want { participant, epoch, want });
    }

    pub fn publication(&self, client: usize, mid: &str) -> u32 {
        let publications = &self.server.members[client].publications;
        publications.iter().find(|publish| publish.mid.as_str() == mid).expect("published").publication.0
    }

    /// Whose every publication ever was, by the publishers' tags (which are the clients' numbers).
    pub fn owners(&self) -> BTreeMap<u32, u32> {
        let mut owners = BTreeMap::new();
        for (client, member) in self.server.members.iter().enumerate() {
            owners.extend(member.publications.iter().map(|publish| (publish.publication.0, client as u32)));
        }
        owners
    }

    /// What holds at every time for everybody.
    pub fn check(&mut self) {
        let owners = self.owners();
        for (client, peer) in self.clients.iter_mut().enumerate() {
            for stream in peer.media().streams() {
                stream.check(&owners);
                assert!(!stream.publishers().contains(&(client as u32)), "nobody gets own media");
            }
        }
        assert_eq!(self.server.dropped(Reason::SealTwice), 0, "nothing is sealed twice");
        assert_eq!(self.server.dropped(Reason::Panicked), 0);
    }

    pub fn links(&mut self, client: usize, up: Link, down: Link) {
        self.network.set_up(client, up);
        self.network.set_down(client, down);
    }

    /// Bytes arrive at the server from anywhere. What the server has to say to that address at once.
    pub fn inject(&mut self, from: SocketAddr, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.server.handle_datagram(self.now, from, bytes);
        let sent = self.server.turn(self.now);
        let (answers, rest): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(pair, _)| pair.remote == from);
        for (pair, bytes) in rest {
            self.network.send_down(self.now, pair.remote, bytes);
        }
        answers.into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// The server's process is paused, as by a laptop's lid. What arrives waits in its socket, as much as that holds.
    pub fn pause_server(&mut self, duration: Duration) {
        // What the kernel keeps by default.
        const SOCKET: usize = 92;
        let end = self.now + duration;
        let mut waiting = Vec::new();
        loop {
            let clients =
                awake(&mut self.clients, &self.suspended).filter_map(|(_, peer)| peer.poll_timeout());
            let next = clients.chain(self.network.next()).min().unwrap_or(end);
            self.now = next.max(self.now + Duration::from_micros(50)).min(end);
            while let Some(datagram) = self.network.arrive(self.now) {
                match datagram.receiver {
                    End::Server if waiting.len() < SOCKET => waiting.push(datagram),
                    End::Server => self.network.lost += 1,
                    End::Client(client) => {
                        let peer = &mut self.clients[client];
                        peer.media().heard.push(self.now);
                        peer.handle_datagram(self.now, datagram.from, datagram.to, &datagram.bytes);
                    }
                }
            }
            for (client, peer) in awake(&mut self.clients, &self.suspended) {
                peer.handle_timeout(self.now);
                while let Some((from, to, bytes)) = peer.poll_transmit(self.now) {
                    self.network.send_up(self.now, client, from, to, bytes);
                }
            }
            if self.now >= end {
                break;
            }
        }
        self.server.skipped += duration;
        for datagram in waiting {
            self.server.handle_datagram(self.now, datagram.from, &datagram.bytes);
        }
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
    }

    /// Runs until the condition holds; how long that took. Panics where it does not within `limit`.
    pub fn run_until(
        &mut self,
        limit: Duration,
        what: &str,
        mut reached: impl FnMut(&mut Self) -> bool,
    ) -> Duration {
        let began = self.now;
        while !reached(self) {
            if !self.step(began + limit) {
                let dropped: Vec<_> = self.server.worker.traffic().dropped.nonzero().collect();
                panic!("not within {limit:?}: {what}; dropped: {dropped:?}");
            }
        }
        self.now - began
    }

    /// The next event. Returns false once `end` is reached.
    fn step(&mut self, end: Instant) -> bool {
        self.flush();
        self.look_for_statements();
        let acknowledged = self.seen.front().map(|(at, ..)| *at);
        let mut next = [self.network.next(), self.server.poll_timeout(), acknowledged]
            .into_iter()
            .flatten()
            .chain(awake(&mut self.clients, &self.suspended).filter_map(|(_, peer)| peer.poll_timeout()))
            .min()
            .unwrap_or(end);
        // Whoever asks for the past is called a little later, so that time goes on.
        next = next.max(self.now + Duration::from_micros(50));
        if next > end {
            self.now = end;
            return false;
        }
        self.now = next;
        while let Some(datagram) = self.network.arrive(self.now) {
            match datagram.receiver {
                End::Server => {
                    if let Some(captured) = &mut self.captured {
                        captured.push((datagram.from, datagram.bytes.clone()));
                    }
                    self.server.handle_datagram(self.now, datagram.from, &datagram.bytes);
                }
                End::Client(client) if self.suspended.contains(&client) => {}
                End::Client(client) => {
                    let peer = &mut self.clients[client];
                    peer.media().heard.push(self.now);
                    peer.handle_datagram(self.now, datagram.from, datagram.to, &datagram.bytes);
                }
            }
        }
        while self.seen.front().is_some_and(|(at, ..)| *at <= self.now) {
            let Some((_, member, version)) = self.seen.pop_front() else { break };
            let seen = |participant, epoch| Command::Seen { participant, epoch, version };
            self.server.command(self.now, member, seen);
        }
        for (_, peer) in awake(&mut self.clients, &self.suspended) {
            peer.handle_timeout(self.now);
        }
        true
    }

    /// What clients are told of their slots, they acknowledge.
    fn look_for_statements(&mut self) {
        let Some(after) = self.acknowledges else { return };
        for (at, update) in &self.server.updates[self.looked_at..] {
            if let Update::Have { participant, version, .. } = update
                && let Some(member) = self.server.members.iter().position(|member| member.id == *participant)
            {
                self.seen.push_back((*at + after, member, *version));
            }
        }
        self.looked_at = self.server.updates.len();
    }

    /// Hands over to the network what everybody has to send.
    fn flush(&mut self) {
        for (pair, bytes) in self.server.turn(self.now) {
            assert_eq!(pair.local, Some(self.server.address.ip()), "from the address that was asked");
            assert!(bytes.len() <= 1232, "{} bytes are too many for some paths", bytes.len());
            self.network.send_down(self.now, pair.remote, bytes);
        }
        for (client, peer) in awake(&mut self.clients, &self.suspended) {
            while let Some((from, to, bytes)) = peer.poll_transmit(self.now) {
                self.network.send_up(self.now, client, from, to, bytes);
            }
        }
    }
}
