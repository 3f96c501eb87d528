//! A network whose every decision follows from one seed.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// SplitMix64 (Steele, Lea and Flood 2014): small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give shifted copies of one sequence.
        let mut rng = Self(seed ^ 0x5851_f42d_4c95_7f2d);
        Self(rng.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        // 53 bits, as many as fit.
        ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.next() % (most.as_nanos() as u64 + 1))
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// One direction of one client's way to the server.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub delay: Duration,
    /// At most this is added to the delay; datagrams overtake each other by it.
    pub jitter: Duration,
    /// Probabilities.
    pub loss: f64,
    pub duplicate: f64,
    /// A datagram that comes 5 to 30 ms late.
    pub reorder: f64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
        }
    }
}

impl Link {
    pub fn losing(loss: f64) -> Self {
        Self { loss, ..Self::default() }
    }

    pub fn dead() -> Self {
        Self::losing(1.0)
    }
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Server,
    Client(usize),
}

#[derive(Clone, Debug)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
    pub receiver: End,
}

#[derive(Debug)]
pub struct Network {
    seed: u64,
    /// How many datagrams each direction of each client has seen: what becomes of the nth does not depend on the others.
    counts: HashMap<(usize, bool), u64>,
    pub server: SocketAddr,
    /// By client.
    up: HashMap<usize, Link>,
    down: HashMap<usize, Link>,
    /// Where a client's datagrams seem to come from, instead of its own address.
    nat: HashMap<usize, SocketAddr>,
    owners: HashMap<SocketAddr, (usize, SocketAddr)>,
    flying: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
    pub lost: u64,
    pub duplicated: u64,
}

impl Network {
    pub fn new(seed: u64, server: SocketAddr) -> Self {
        Self {
            seed,
            counts: HashMap::new(),
            server,
            up: HashMap::new(),
            down: HashMap::new(),
            nat: HashMap::new(),
            owners: HashMap::new(),
            flying: BTreeMap::new(),
            sent: 0,
            lost: 0,
            duplicated: 0,
        }
    }

    /// How datagrams of a client fare from now on.
    pub fn set_up(&mut self, client: usize, link: Link) {
        self.up.insert(client, link);
    }

    /// How datagrams to a client fare from now on.
    pub fn set_down(&mut self, client: usize, link: Link) {
        self.down.insert(client, link);
    }

    /// The client's address translator forgot it: everything comes from another address, and what is sent to the former
    /// one arrives nowhere.
    pub fn rebind(&mut self, client: usize, public: SocketAddr) {
        self.owners.retain(|_, (owner, _)| *owner != client);
        self.nat.insert(client, public);
    }

    pub fn send_up(&mut self, now: Instant, client: usize, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let public = self.nat.get(&client).copied().unwrap_or(from);
        self.owners.insert(public, (client, from));
        if to != self.server {
            self.lost += 1;
            return;
        }
        let link = self.up.get(&client).copied().unwrap_or_default();
        self.fly(now, client, link, Datagram { from: public, to, bytes, receiver: End::Server });
    }

    pub fn send_down(&mut self, now: Instant, to: SocketAddr, bytes: Vec<u8>) {
        let Some(&(client, inner)) = self.owners.get(&to) else {
            self.lost += 1;
            return;
        };
        let link = self.down.get(&client).copied().unwrap_or_default();
        self.fly(
            now,
            client,
            link,
            Datagram { from: self.server, to: inner, bytes, receiver: End::Client(client) },
        );
    }

    fn fly(&mut self, now: Instant, client: usize, link: Link, datagram: Datagram) {
        let upwards = datagram.receiver == End::Server;
        let count = self.counts.entry((client, upwards)).or_default();
        *count += 1;
        let mut rng =
            Rng::new(self.seed.wrapping_add(*count << 16 | (client as u64) << 1 | u64::from(upwards)));
        if rng.chance(link.loss) {
            self.lost += 1;
            return;
        }
        let copies = 1 + usize::from(rng.chance(link.duplicate));
        self.duplicated += copies as u64 - 1;
        for _ in 0..copies {
            let mut at = now + link.delay + rng.up_to(link.jitter);
            if rng.chance(link.reorder) {
                at += Duration::from_millis(5) + rng.up_to(Duration::from_millis(25));
            }
            self.sent += 1;
            self.flying.insert((at, self.sent), datagram.clone());
        }
    }

    pub fn next(&self) -> Option<Instant> {
        self.flying.keys().next().map(|(at, _)| *at)
    }

    /// The next datagram that arrives no later than `now`.
    pub fn arrive(&mut self, now: Instant) -> Option<Datagram> {
        let entry = self.flying.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}
