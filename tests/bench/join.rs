//! What a participant costs the server: CPU time of a join with an offer that Chromium made, and memory while
//! it is idle and while it publishes three layers of a picture, and sound.
//!
//! Only the server's own steps count; the client's end runs in between. Signaling around the offer (JSON, tasks)
//! is not part of it.
//!
//! `cargo bench --bench join`
#![allow(clippy::print_stdout, reason = "a benchmark speaks on stdout")]

mod measure;
mod peer;

use std::time::{Duration, Instant};

use measure::{Cost, measured, median};
use motet::control::{Command, Join};
use motet::id::{AddressPair, Epoch, ParticipantId, PublicationId, Rid, RoomKey, Ssrc, TransportNumber};
use motet::net::SendBatch;
use motet::room::{Kind, Publish, SendingSection, Source, Want};
use motet::signal::negotiate::{Environment, Limits, Negotiator};
use motet::transport::DtlsRole;
use motet::transport::certificate::Certificate;
use motet::transport::srtp::{SealStream, Sealer, split};
use motet::worker::{Outlet, Settings, Worker};
use peer::{Collect, PROFILE, check, handshake, imagined};

const OFFER: &str = include_str!("../data/offers/chromium-join.sdp");
const JOINS: usize = 60;
/// Participants of each room.
const ROOM: usize = 4;
/// How long everybody publishes: until the histories are full.
const PUBLISHED: Duration = Duration::from_secs(3);

fn main() {
    let mut call = Call::new();
    let mut members = Vec::new();
    let mut costs = Vec::new();
    for index in 0..JOINS {
        let (member, cost) = call.join(index);
        members.push(member);
        costs.push(cost);
    }
    // The first ones pay for what is made once.
    let settled = &costs[ROOM..];
    println!(
        "CPU of the server for each join, us; medians of {} joins in rooms of {ROOM}, {} kB of offer",
        settled.len(),
        OFFER.len() / 1000
    );
    let row = |name: &str, step: fn(&Steps) -> Cost| {
        println!(
            "  {name:<28} {:>8.0}",
            median(settled.iter().map(|cost| step(cost).time.as_secs_f64() * 1e6).collect())
        );
    };
    row("offer and answer", |steps| steps.negotiate);
    row("transport, slots, routes", |steps| steps.command);
    row("check and DTLS handshake", |steps| steps.handshake);
    row("all", Steps::all);
    let idle = median(settled.iter().map(|cost| cost.all().bytes as f64).collect());
    println!("memory of each participant, kB of heap");
    println!("  idle                         {:>8.0}", idle / 1e3);

    let published = call.publish(&mut members);
    println!("  publishing sound and picture {:>8.0}", (idle + published.bytes as f64 / JOINS as f64) / 1e3);
}

/// The steps of one join.
#[derive(Clone, Copy)]
struct Steps {
    negotiate: Cost,
    command: Cost,
    handshake: Cost,
}

impl Steps {
    fn all(&self) -> Cost {
        let mut all = self.negotiate;
        all += self.command;
        all += self.handshake;
        all
    }
}

struct Call {
    now: Instant,
    environment: Environment,
    worker: Worker,
    batch: SendBatch,
    dropped: Collect,
}

/// A publisher's end.
struct Member {
    pair: AddressPair,
    sealer: Sealer,
    streams: Vec<Stream>,
    /// Part of what a participant keeps allocated.
    _negotiator: Negotiator,
}

struct Stream {
    seal: SealStream,
    section: SendingSection,
    rid: Option<Rid>,
    interval: Duration,
    /// Bytes of each packet of a frame.
    frame: &'static [usize],
    due: Instant,
    sequence: u16,
    timestamp: u32,
}

impl Call {
    fn new() -> Self {
        let now = Instant::now();
        let certificate = Certificate::generate().expect("generates");
        let environment = Environment {
            candidates: vec!["192.0.2.1:7882".parse().expect("an address")],
            fingerprint: certificate.fingerprint_sdp(),
            worker: 0,
            limits: Limits::default(),
        };
        let worker = Worker::new(Settings::default(), certificate, now, Duration::from_secs(1 << 30));
        Self { now, environment, worker, batch: SendBatch::new(), dropped: Collect::default() }
    }

    fn join(&mut self, index: usize) -> (Member, Steps) {
        self.now += Duration::from_millis(20);
        let certificate = dimpl::certificate::generate_self_signed_certificate().expect("generates");
        let fingerprint: Vec<String> =
            certificate.fingerprint().iter().map(|byte| format!("{byte:02X}")).collect();
        let offer = with_fingerprint(&fingerprint.join(":"));
        let (negotiate, (negotiator, answered)) = measured(|| {
            let mut negotiator = Negotiator::new(&self.environment);
            let answered = negotiator.answer(&offer).expect("Chromium's offer is answered");
            (negotiator, answered)
        });
        let sending = answered.media.sending.clone();
        let username = format!("{}:{}", negotiator.local().ufrag, answered.remote.credentials.ufrag);
        let check = check(&username, &negotiator.local().pwd);
        let publish = |(n, section): (usize, &SendingSection)| Publish {
            publication: PublicationId((1 + 8 * index + n) as u32),
            mid: section.mid,
            kind: section.kind,
            source: if section.kind == Kind::Audio { Source::Microphone } else { Source::Camera },
            muted: false,
        };
        let join = Join {
            room: RoomKey(1 + (index / ROOM) as u64),
            participant: ParticipantId(1 + index as u64),
            epoch: Epoch(1),
            transport: TransportNumber(0),
            local: negotiator.local().clone(),
            remote: answered.remote.clone(),
            media: answered.media.clone(),
            publish: sending.iter().take(2).enumerate().map(publish).collect(),
            want: Want::default(),
        };
        let (command, ()) = measured(|| self.worker.handle_command(self.now, Command::Join(Box::new(join))));
        let pair = imagined(index);
        let (keys, mut handshake) =
            handshake(&mut self.worker, &mut self.batch, self.now, pair, check, certificate);
        handshake += measured(|| {
            self.worker.handle_timeout(self.now, &mut self.batch, &mut self.dropped);
        })
        .0;
        self.batch.clear();
        let (local, _) = split(PROFILE, &keys, DtlsRole::Client).expect("as many bytes as the profile's");
        let streams = streams(index, &sending, self.now);
        let member = Member { pair, sealer: Sealer::new(PROFILE, &local), streams, _negotiator: negotiator };
        (member, Steps { negotiate, command, handshake })
    }

    /// Everybody publishes for some seconds.
    fn publish(&mut self, members: &mut [Member]) -> Cost {
        let mut cost = Cost::default();
        let end = self.now + PUBLISHED;
        while self.now < end {
            self.now += Duration::from_millis(5);
            for member in members.iter_mut() {
                for mut packet in member.packets(self.now) {
                    cost += measured(|| {
                        let (batch, outlet) = (&mut self.batch, &mut Discard);
                        self.worker.handle_datagram(self.now, member.pair, &mut packet, batch, outlet);
                    })
                    .0;
                }
            }
            cost += measured(|| {
                let (batch, outlet) = (&mut self.batch, &mut Discard);
                self.worker.handle_fresh(self.now, batch, outlet);
                self.worker.handle_timeout(self.now, batch, outlet);
                batch.clear();
                while self.worker.poll_update().is_some() {}
            })
            .0;
        }
        let traffic = self.worker.traffic();
        let forwarded = traffic.forwarded.load(std::sync::atomic::Ordering::Relaxed);
        assert!(forwarded > (JOINS * (ROOM - 1) * 100) as u64, "{forwarded} packets reached their receivers");
        cost
    }
}

/// Throws everything away.
struct Discard;

impl Outlet for Discard {
    fn flush(&mut self, batch: &mut SendBatch) {
        batch.clear();
    }
}

/// The offer, as if made with this certificate.
fn with_fingerprint(fingerprint: &str) -> String {
    let line = |line: &str| {
        if line.starts_with("a=fingerprint:") {
            format!("a=fingerprint:sha-256 {fingerprint}\r\n")
        } else {
            format!("{}\r\n", line.trim_end())
        }
    };
    OFFER.lines().map(line).collect()
}

/// A microphone at 40 kbit/s and a camera at 1500, 500 and 150 kbit/s, 30 pictures a second.
fn streams(index: usize, sections: &[SendingSection], now: Instant) -> Vec<Stream> {
    let frames: [&'static [usize]; 3] = [&[1050; 6], &[1050; 2], &[625]];
    let stream = |n: usize, section: &SendingSection, rid, interval, frame| Stream {
        seal: SealStream::new(Ssrc((0x1000 + index * 16 + n) as u32)),
        section: section.clone(),
        rid,
        interval,
        frame,
        due: now,
        sequence: 2000,
        timestamp: 0,
    };
    let mut streams = vec![stream(0, &sections[0], None, Duration::from_millis(20), &[100])];
    assert_eq!(sections[1].rids.len(), frames.len(), "the camera's encodings");
    for (n, (rid, frame)) in sections[1].rids.iter().zip(frames).enumerate() {
        streams.push(stream(1 + n, &sections[1], Some(*rid), Duration::from_millis(33), frame));
    }
    streams
}

impl Member {
    /// What is due to be sent.
    fn packets(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for stream in &mut self.streams {
            while stream.due <= now {
                stream.due += stream.interval;
                stream.timestamp = stream.timestamp.wrapping_add(stream.section.kind.clock_rate() / 40);
                for (n, len) in stream.frame.iter().enumerate() {
                    let last = n + 1 == stream.frame.len();
                    packets.push(stream.packet(&mut self.sealer, n == 0, last, *len));
                }
            }
        }
        packets
    }
}

impl Stream {
    /// One packet, sealed; every frame is a keyframe.
    fn packet(&mut self, sealer: &mut Sealer, first: bool, last: bool, payload: usize) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let ids = self.section.extensions;
        let mut elements = element(ids.mid, self.section.mid.as_bytes());
        if let Some(rid) = self.rid {
            elements.extend(element(ids.rid, rid.as_bytes()));
        }
        elements.resize(elements.len().next_multiple_of(4), 0);
        let mut packet = vec![0x90, self.section.payload_type | if last { 0x80 } else { 0 }];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.timestamp.to_be_bytes());
        packet.extend(self.seal.ssrc().0.to_be_bytes());
        packet.extend([0xBE, 0xDE, 0, (elements.len() / 4) as u8]);
        packet.extend(elements);
        let header = packet.len();
        match self.section.kind {
            Kind::Audio => packet.push(0x78),
            Kind::Video => {
                let id = (self.timestamp / 2250) as u16 & 0x7FFF | 0x8000;
                packet.extend([if first { 0x90 } else { 0x80 }, 0x80]);
                packet.extend(id.to_be_bytes());
                packet.extend([0x10, 0, 0, 0x9D, 1, 0x2A, 0x40, 1, 0xB4, 0]);
            }
        }
        packet.resize(header + payload + PROFILE.tag_len(), 0);
        sealer
            .seal_rtp_in_place(&mut self.seal, self.sequence, &mut packet, header, payload)
            .expect("a fresh number");
        packet
    }
}

/// A one-byte header extension element.
fn element(id: u8, name: &[u8]) -> Vec<u8> {
    let mut element = vec![id << 4 | (name.len() - 1) as u8];
    element.extend(name);
    element
}
