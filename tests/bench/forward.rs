//! The cost of a forwarded packet on the production path, beside a bare loop in the same run.
//!
//! * User time: a [`Worker`] with connected participants is handed sealed frames of 5 packets, the receivers'
//!   reports, and the time; what it writes is thrown away, but for one packet of 64, which its receiver opens and
//!   compares. Beside it, aws-lc-rs seals the same number of bytes with a key for each receiver, and nothing else.
//! * System time: the same worker between real sockets on loopback. Beside it, a bare loop sends as many bytes to the same
//!   receivers in the same runs, twice: sealed on their way into the batch, and only copied. The kernel is some
//!   percent slower after a stretch of ciphers, whoever called them, so the first is the measure. Only time within the
//!   socket's calls counts; what waiting and receiving take, which the loop does not do, is shown beside it.
//!
//! Both sides take turns, and medians are compared: other work on the machine hits both alike.
//!
//! `cargo bench --bench forward`; `-- user` or `-- system` runs one half.
#![allow(clippy::print_stdout, reason = "a benchmark speaks on stdout")]

mod measure;
mod peer;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use measure::{cpu, each, median, timed};
use motet::id::AddressPair;
use motet::net::{Poller, RECEIVE_MESSAGES, ReceiveBatch, SendBatch, UdpSocket};
use motet::transport::certificate::Certificate;
use motet::worker::{Outlet, Settings, Worker};
use peer::{HEADER, Peer, imagined, slot_ssrcs};

const PACKETS_PER_FRAME: usize = 5;
const FRAME: Duration = Duration::from_millis(33);
/// Frames that are forwarded in one go before the bare loop gets its turn.
const FRAMES: usize = 32;
const ROUNDS: usize = 21;
/// One packet in so many is opened and compared.
const SAMPLED: u64 = 64;
/// Header of a forwarded packet: fixed part, CSRC, transport-wide number.
const FORWARDED_HEADER: usize = 24;
const TAG: usize = 16;

/// Who sends to whom.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    publishers: usize,
    receivers: usize,
    /// Pictures that each receiver gets.
    slots: usize,
    /// Bytes of a publisher's packet before it is sealed.
    packet: usize,
    /// At most so many times the bare loop's user time.
    target: f64,
}

impl Shape {
    fn participants(&self) -> usize {
        if self.publishers == 1 { 1 + self.receivers } else { self.publishers }
    }

    fn publishes(&self, index: usize) -> bool {
        index < self.publishers
    }

    fn receives(&self, index: usize) -> bool {
        self.publishers > 1 || index > 0
    }

    /// Forwarded packets of one frame of each publisher.
    fn forwarded(&self) -> u64 {
        (self.receivers * self.slots * PACKETS_PER_FRAME) as u64
    }
}

fn shapes() -> [Shape; 4] {
    let one = Shape { name: "1 to 100", publishers: 1, receivers: 100, slots: 1, packet: 1200, target: 3.0 };
    let all = Shape { name: "10 x 10", publishers: 10, receivers: 10, slots: 9, ..one };
    [one, all, Shape { packet: 120, target: 3.5, ..one }, Shape { packet: 120, target: 3.5, ..all }]
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |half: &str| wanted.is_empty() || wanted.iter().any(|arg| arg == half);
    if wants("user") {
        println!("user ns for each forwarded packet; medians of {ROUNDS} rounds");
        println!("{:<9} {:>6} {:>9} {:>9} {:>6}  target", "call", "bytes", "worker", "bare seal", "ratio");
        shapes().iter().for_each(user);
    }
    if wants("system") {
        println!("system ns for each forwarded packet, on loopback; medians of {ROUNDS} rounds");
        println!(
            "{:<9} {:>6} {:>8} {:>6} {:>7} {:>7} {:>6}  target  (to copied; with receiving)",
            "call", "bytes", "receive", "send", "sealed", "copied", "ratio"
        );
        shapes().iter().for_each(system);
    }
}

/// A worker with everybody connected.
struct Call {
    shape: Shape,
    start: Instant,
    now: Instant,
    worker: Worker,
    batch: SendBatch,
    peers: Vec<Peer>,
    frame: u32,
}

/// What arrives in one turn of the loop.
struct Turn {
    now: Instant,
    datagrams: Vec<(AddressPair, Vec<u8>)>,
}

impl Call {
    /// `pair` says where a participant sits.
    fn new(shape: Shape, pair: impl Fn(usize) -> AddressPair) -> Self {
        let start = Instant::now();
        let certificate = Certificate::generate().expect("generates");
        let mut worker = Worker::new(Settings::default(), certificate, start, Duration::from_secs(1 << 30));
        let mut batch = SendBatch::new();
        let mut now = start;
        let peers = (0..shape.participants())
            .map(|index| {
                now += Duration::from_millis(1);
                let slots = if shape.receives(index) { shape.slots } else { 0 };
                Peer::join(&mut worker, &mut batch, now, index, pair(index), shape.publishes(index), slots)
            })
            .collect();
        let mut call = Self { shape, start, now, worker, batch, peers, frame: 0 };
        call.begin();
        call
    }

    /// Sends frames until every slot carries its picture.
    fn begin(&mut self) {
        let mut outlet = Sample::default();
        for _ in 0..30 {
            for turn in self.turns(1, true) {
                self.run(turn, &mut outlet);
            }
            while self.worker.poll_update().is_some() {}
        }
        let before = self.forwarded();
        for turn in self.turns(1, false) {
            self.run(turn, &mut outlet);
        }
        assert_eq!(self.forwarded() - before, self.shape.forwarded(), "every slot carries a picture");
        self.verify(outlet);
    }

    fn forwarded(&self) -> u64 {
        self.worker.traffic().forwarded.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// What arrives during some frames: each publisher's packets on their own, reports as they come.
    fn turns(&mut self, frames: usize, key: bool) -> Vec<Turn> {
        let mut turns = Vec::new();
        for _ in 0..frames {
            self.frame += 1;
            let packets = self.frame as usize * PACKETS_PER_FRAME * self.shape.slots;
            for publisher in 0..self.shape.publishers {
                self.now += FRAME / self.shape.publishers as u32;
                let mut datagrams = Vec::new();
                for peer in self.peers.iter_mut().filter(|peer| self.shape.receives(peer.index)) {
                    // Every 100 ms, not all at once.
                    let due = (self.frame as usize + peer.index).is_multiple_of(3);
                    if due && peer.index % self.shape.publishers == publisher {
                        let slots = slot_ssrcs(peer.index, self.shape.slots);
                        let since = self.now.duration_since(self.start);
                        datagrams.push((peer.pair, peer.feedback(packets as u16, since, &slots)));
                    }
                }
                let peer = &mut self.peers[publisher];
                let media = peer.frame(self.frame, key, PACKETS_PER_FRAME, self.shape.packet);
                datagrams.extend(media.into_iter().map(|packet| (peer.pair, packet)));
                turns.push(Turn { now: self.now, datagrams });
            }
        }
        turns
    }

    /// One turn as the worker's thread makes it.
    fn run(&mut self, mut turn: Turn, outlet: &mut dyn Outlet) {
        let now = turn.now;
        for (pair, datagram) in &mut turn.datagrams {
            self.worker.handle_datagram(now, *pair, datagram, &mut self.batch, outlet);
        }
        self.worker.handle_fresh(now, &mut self.batch, outlet);
        outlet.flush(&mut self.batch);
        self.worker.handle_timeout(now, &mut self.batch, outlet);
        outlet.flush(&mut self.batch);
    }

    /// Lets the receivers open what was kept.
    fn verify(&mut self, sample: Sample) {
        let mut verified = 0;
        for (pair, packet) in sample.kept {
            let peer = self.peers.iter_mut().find(|peer| peer.pair == pair).expect("one of the receivers");
            verified += u64::from(peer.verify(packet));
        }
        assert!(verified * SAMPLED * 2 > sample.seen, "{verified} of {} were verified", sample.seen);
    }
}

/// Throws away all but one packet of [`SAMPLED`].
#[derive(Default)]
struct Sample {
    seen: u64,
    kept: Vec<(AddressPair, Vec<u8>)>,
}

impl Outlet for Sample {
    fn flush(&mut self, batch: &mut SendBatch) {
        for (pair, datagram) in batch.datagrams() {
            self.seen += 1;
            if self.seen.is_multiple_of(SAMPLED) {
                self.kept.push((pair, datagram.to_vec()));
            }
        }
        batch.clear();
    }
}

/// The least that forwarding can cost: sealing the same bytes.
struct Bare {
    shape: Shape,
    keys: Vec<LessSafeKey>,
    /// A second of each publisher's payloads, which is what the worker keeps.
    payloads: Vec<Vec<u8>>,
    arena: Vec<u8>,
    next: u64,
}

impl Bare {
    fn new(shape: Shape) -> Self {
        let key = |n| {
            let key = UnboundKey::new(&AES_256_GCM, &[n as u8; 32]).expect("32 bytes");
            LessSafeKey::new(key)
        };
        let payload = vec![7; shape.packet - HEADER];
        Self {
            shape,
            keys: (0..shape.receivers).map(key).collect(),
            payloads: vec![payload; 150 * shape.publishers],
            arena: vec![0; 256 << 10],
            next: 0,
        }
    }

    fn run(&mut self, frames: usize) {
        let header = [9; FORWARDED_HEADER];
        let body = self.shape.packet - HEADER;
        let mut at = 0;
        for _ in 0..frames * self.shape.publishers {
            let first = self.next as usize;
            self.next += PACKETS_PER_FRAME as u64;
            let receivers = self.shape.receivers * self.shape.slots / self.shape.publishers;
            for receiver in 0..receivers {
                for n in 0..PACKETS_PER_FRAME {
                    let payload = &self.payloads[(first + n) % self.payloads.len()];
                    let mut nonce = [0; 12];
                    nonce[4..].copy_from_slice(&(self.next + n as u64).to_be_bytes());
                    let nonce = Nonce::assume_unique_for_key(nonce);
                    if at + 1500 > self.arena.len() {
                        at = 0;
                    }
                    let out = &mut self.arena[at..at + FORWARDED_HEADER + body + TAG];
                    at += out.len();
                    let (space, out) = out.split_at_mut(FORWARDED_HEADER);
                    space.copy_from_slice(&header);
                    let (out, tag) = out.split_at_mut(body);
                    self.keys[receiver]
                        .seal_out_of_place_scatter(nonce, Aad::from(&*space), payload, out, &[], tag)
                        .expect("room");
                }
            }
        }
    }
}

fn user(shape: &Shape) {
    let mut call = Call::new(*shape, imagined);
    let mut bare = Bare::new(*shape);
    let (mut worker, mut sealed, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let packets = shape.forwarded() * FRAMES as u64;
    for round in 0..ROUNDS + 2 {
        let turns = call.turns(FRAMES, false);
        let mut outlet = Sample::default();
        outlet.kept.reserve(packets as usize / SAMPLED as usize * 2);
        let before = call.forwarded();
        let (ours, ()) = timed(|| turns.into_iter().for_each(|turn| call.run(turn, &mut outlet)));
        assert_eq!(call.forwarded() - before, packets, "nothing was dropped");
        call.verify(outlet);
        let (theirs, ()) = timed(|| bare.run(FRAMES));
        // The first rounds fill caches and the history.
        if round >= 2 {
            worker.push(each(ours, packets));
            sealed.push(each(theirs, packets));
            ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
        }
    }
    let ratio = median(ratios);
    println!(
        "{:<9} {:>6} {:>9.0} {:>9.0} {:>6.2}  <= {} {}",
        shape.name,
        shape.packet,
        median(worker),
        median(sealed),
        ratio,
        shape.target,
        verdict(ratio, shape.target),
    );
}

fn verdict(ratio: f64, target: f64) -> &'static str {
    if ratio <= target { "met" } else { "MISSED" }
}

/// Sends through a socket and notes how long that takes.
struct Timed<'a> {
    socket: &'a UdpSocket,
    spent: Duration,
    failed: usize,
}

impl Outlet for Timed<'_> {
    fn flush(&mut self, batch: &mut SendBatch) {
        if !batch.is_empty() {
            let before = cpu();
            self.socket.send(batch, &mut |_, _, _| self.failed += 1);
            self.spent += cpu() - before;
        }
    }
}

/// The sockets of the participants, and the server's.
struct Network {
    server: UdpSocket,
    clients: Vec<std::net::UdpSocket>,
    pairs: Vec<AddressPair>,
}

impl Network {
    fn new(participants: usize) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let client = |_| {
            let socket = std::net::UdpSocket::bind(any).expect("binds");
            socket.set_nonblocking(true).expect("can be set");
            socket
        };
        let server = UdpSocket::bind(any, 4 << 20).expect("binds");
        let clients: Vec<_> = (0..participants).map(client).collect();
        let pair = |socket: &std::net::UdpSocket| AddressPair {
            local: Some(Ipv4Addr::LOCALHOST.into()),
            remote: socket.local_addr().expect("bound"),
        };
        let pairs = clients.iter().map(pair).collect();
        Self { server, clients, pairs }
    }

    fn send(&self, pair: AddressPair, datagram: &[u8]) {
        let from = self.pairs.iter().position(|known| *known == pair).expect("one of the clients");
        self.clients[from].send_to(datagram, self.server.local_addr()).expect("sent");
    }

    /// Takes what the clients received; how many datagrams.
    fn drain(&self) -> u64 {
        let mut buffer = [0; 2048];
        let mut count = 0;
        for socket in &self.clients {
            while socket.recv(&mut buffer).is_ok() {
                count += 1;
            }
        }
        count
    }
}

fn system(shape: &Shape) {
    let network = Network::new(shape.participants());
    let mut call = Call::new(*shape, |index| network.pairs[index]);
    let (poller, _waker) = Poller::new(&network.server).expect("epoll");
    let mut received = ReceiveBatch::new();
    let mut bare = BareSend::new(shape);
    let mut figures = Vec::new();
    let frames = FRAMES / 4;
    let packets = shape.forwarded() * frames as u64;
    for round in 0..ROUNDS + 2 {
        let (mut receiving, mut sending) = (Duration::ZERO, Duration::ZERO);
        let (mut copied, mut sealed) = (Duration::ZERO, Duration::ZERO);
        for turn in call.turns(frames, false) {
            let now = turn.now;
            for (pair, datagram) in &turn.datagrams {
                network.send(*pair, datagram);
            }
            let mut outlet = Timed { socket: &network.server, spent: Duration::ZERO, failed: 0 };
            let (waited, _) = timed(|| poller.wait(Some(Duration::from_secs(1))).expect("waits"));
            receiving += waited;
            loop {
                let (spent, count) = timed(|| network.server.receive(&mut received).expect("receives"));
                receiving += spent;
                for (pair, datagram) in received.datagrams() {
                    call.worker.handle_datagram(now, pair, datagram, &mut call.batch, &mut outlet);
                }
                call.worker.handle_fresh(now, &mut call.batch, &mut outlet);
                outlet.flush(&mut call.batch);
                if count < RECEIVE_MESSAGES {
                    break;
                }
            }
            call.worker.handle_timeout(now, &mut call.batch, &mut outlet);
            outlet.flush(&mut call.batch);
            assert_eq!(outlet.failed, 0, "everything was sent");
            sending += outlet.spent;
            let arrived = network.drain();
            let least = (shape.receivers * shape.slots / shape.publishers * PACKETS_PER_FRAME) as u64;
            assert!(arrived >= least, "{arrived} datagrams of {least} arrived");
            copied += bare.run(&network, &mut call.batch, false);
            assert_eq!(network.drain(), least);
            sealed += bare.run(&network, &mut call.batch, true);
            assert_eq!(network.drain(), least);
        }
        if round >= 2 {
            figures.push([receiving, sending, sealed, copied].map(|spent| each(spent, packets)));
        }
    }
    let middle = |figure: &dyn Fn(&[f64; 4]) -> f64| median(figures.iter().map(figure).collect());
    let ratio = middle(&|[_, send, sealed, _]| send / sealed);
    println!(
        "{:<9} {:>6} {:>8.0} {:>6.0} {:>7.0} {:>7.0} {:>6.2}  <= 1.1 {}  ({:.2}; {:.2})",
        shape.name,
        shape.packet,
        middle(&|row| row[0]),
        middle(&|row| row[1]),
        middle(&|row| row[2]),
        middle(&|row| row[3]),
        ratio,
        verdict(ratio, 1.1),
        middle(&|[_, send, _, copied]| send / copied),
        middle(&|[receive, send, sealed, _]| (receive + send) / sealed),
    );
}

/// Sends one frame's datagrams to all receivers but its publisher, in the same runs, and notes how long the socket takes.
struct BareSend {
    keys: Vec<LessSafeKey>,
    datagrams: Vec<Vec<u8>>,
    nonce: u64,
}

impl BareSend {
    fn new(shape: &Shape) -> Self {
        let key = |n| LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[n as u8; 32]).expect("32 bytes"));
        let len = FORWARDED_HEADER + shape.packet - HEADER + TAG;
        Self {
            keys: (0..shape.participants()).map(key).collect(),
            datagrams: (0..shape.participants() * PACKETS_PER_FRAME).map(|n| vec![n as u8; len]).collect(),
            nonce: 0,
        }
    }

    /// With `sealed`, each datagram is sealed on its way into the batch, as the worker does it; else only copied.
    fn run(&mut self, network: &Network, batch: &mut SendBatch, sealed: bool) -> Duration {
        let mut outlet = Timed { socket: &network.server, spent: Duration::ZERO, failed: 0 };
        for (index, pair) in network.pairs.iter().enumerate().skip(1) {
            for n in 0..PACKETS_PER_FRAME {
                if batch.space().is_none() {
                    outlet.flush(batch);
                }
                let datagram = &self.datagrams[index * PACKETS_PER_FRAME + n];
                let out = &mut batch.space().expect("emptied")[..datagram.len()];
                if sealed {
                    self.nonce += 1;
                    seal(&self.keys[index], self.nonce, datagram, out);
                } else {
                    out.copy_from_slice(datagram);
                }
                batch.push(*pair, index as u32, true, datagram.len());
            }
        }
        outlet.flush(batch);
        outlet.spent
    }
}

/// Seals a datagram's worth of bytes into `out`.
fn seal(key: &LessSafeKey, number: u64, datagram: &[u8], out: &mut [u8]) {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let (header, payload) = datagram[..datagram.len() - TAG].split_at(FORWARDED_HEADER);
    let (space, out) = out.split_at_mut(FORWARDED_HEADER);
    space.copy_from_slice(header);
    let (body, tag) = out.split_at_mut(payload.len());
    key.seal_out_of_place_scatter(nonce, Aad::from(header), payload, body, &[], tag).expect("room");
}
