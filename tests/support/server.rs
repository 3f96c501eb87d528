//! Our server core: a worker without thread and socket, and the SDP half for each participant.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::allocation;
use motet::control::{Command, Join, Update};
use motet::id::{AddressPair, Epoch, ParticipantId, PublicationId, RoomKey, TransportNumber};
use motet::net::SendBatch;
use motet::observe::reason::Reason;
use motet::room::{Have, Kind, Publish, Source, Want};
use motet::signal::negotiate::{Answered, Environment, Limits, Negotiator};
use motet::transport::certificate::Certificate;
use motet::worker::{Outlet, Settings, Worker};

static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| Certificate::generate().expect("generates"));

/// What the worker sent, in order.
#[derive(Default)]
struct Sent(Vec<(AddressPair, Vec<u8>)>);

impl Outlet for Sent {
    fn flush(&mut self, batch: &mut SendBatch) {
        self.0.extend(batch.datagrams().map(|(pair, bytes)| (pair, bytes.to_vec())));
        batch.clear();
    }
}

pub struct Server {
    pub worker: Worker,
    pub address: SocketAddr,
    pub updates: Vec<(Instant, Update)>,
    /// The same for a test that has rooms to tell.
    pub news: Vec<(RoomKey, Update)>,
    pub members: Vec<Member>,
    batch: SendBatch,
    sent: Sent,
    fresh: bool,
    publications: u32,
    /// By the worker, while it received and forwarded.
    pub allocations: u64,
    /// How many pieces of what can wait are done in a turn; `None`: all.
    pub pieces: Option<usize>,
    /// Time that the process was paused for: its clock leaves it out.
    pub skipped: Duration,
}

/// A participant as its room's signaling half knows it.
pub struct Member {
    pub room: RoomKey,
    pub id: ParticipantId,
    pub epoch: Epoch,
    pub negotiator: Negotiator,
    pub publications: Vec<Publish>,
}

impl Server {
    pub fn new(now: Instant, settings: Settings) -> Self {
        let worker = Worker::new(settings, CERTIFICATE.clone(), now, Duration::from_secs(1_795_000_000));
        Self {
            worker,
            address: "198.51.100.1:7882".parse().expect("an address"),
            updates: Vec::new(),
            news: Vec::new(),
            members: Vec::new(),
            batch: SendBatch::new(),
            sent: Sent::default(),
            fresh: false,
            publications: 0,
            allocations: 0,
            pieces: None,
            skipped: Duration::ZERO,
        }
    }

    pub fn environment(&self) -> Environment {
        Environment {
            candidates: vec![self.address],
            fingerprint: CERTIFICATE.fingerprint_sdp(),
            worker: 0,
            limits: Limits::default(),
        }
    }

    /// Answers an offer and lets its maker in. Returns the answer and the participant's place in `members`.
    pub fn join(
        &mut self,
        now: Instant,
        room: u64,
        offer: &str,
        publish: &[(String, Kind, Source)],
    ) -> (String, usize) {
        let id = ParticipantId(self.members.len() as u64 + 1);
        let answer = self.enter(now, room, id, Epoch(1), offer, publish);
        (answer, self.members.len() - 1)
    }

    /// As [`Self::join`], with an identity; the newest of `members` is the one who entered.
    pub fn enter(
        &mut self,
        now: Instant,
        room: u64,
        id: ParticipantId,
        epoch: Epoch,
        offer: &str,
        publish: &[(String, Kind, Source)],
    ) -> String {
        let mut negotiator = Negotiator::new(&self.environment());
        let answered = negotiator.answer(offer).expect("the offer is answered");
        let Answered { sdp, media, remote, .. } = answered;
        let publish: Vec<Publish> =
            publish.iter().map(|(mid, kind, source)| self.publication(mid, *kind, *source)).collect();
        let member = Member { room: RoomKey(room), id, epoch, negotiator, publications: publish.clone() };
        let join = Join {
            room: member.room,
            participant: id,
            epoch,
            transport: TransportNumber(0),
            local: member.negotiator.local().clone(),
            remote,
            media,
            publish,
            want: Want::default(),
        };
        self.worker.handle_command(now - self.skipped, Command::Join(Box::new(join)));
        self.members.push(member);
        sdp
    }

    /// Another connection of a member in the same session, publishing the same.
    pub fn second(&mut self, now: Instant, member: usize, transport: u8, offer: &str) -> String {
        let mut negotiator = Negotiator::new(&self.environment());
        let answered = negotiator.answer(offer).expect("the offer is answered");
        let Answered { sdp, media, remote, .. } = answered;
        let Member { room, id, epoch, ref publications, .. } = self.members[member];
        let publish = publications.clone();
        let member = Member { room, id, epoch, negotiator, publications: publish.clone() };
        let local = member.negotiator.local().clone();
        let transport = TransportNumber(transport);
        let want = Want::default();
        let join = Join { room, participant: id, epoch, transport, local, remote, media, publish, want };
        self.worker.handle_command(now - self.skipped, Command::Join(Box::new(join)));
        self.members.push(member);
        sdp
    }

    /// A publication that was not there before.
    pub fn publication(&mut self, mid: &str, kind: Kind, source: Source) -> Publish {
        self.publications += 1;
        Publish {
            publication: PublicationId(self.publications),
            mid: mid.parse().expect("a mid"),
            kind,
            source,
            muted: false,
        }
    }

    pub fn command(
        &mut self,
        now: Instant,
        member: usize,
        make: impl FnOnce(ParticipantId, Epoch) -> Command,
    ) {
        let member = &self.members[member];
        self.worker.handle_command(now - self.skipped, make(member.id, member.epoch));
    }

    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let pair = AddressPair { local: Some(self.address.ip()), remote: from };
        let mut bytes = bytes.to_vec();
        self.allocations += allocation::during(|| {
            self.worker.handle_datagram(
                now - self.skipped,
                pair,
                &mut bytes,
                &mut self.batch,
                &mut self.sent,
            );
        });
        self.fresh = true;
    }

    /// The end of a turn of the loop, in the order of the real one. What is to be sent.
    pub fn turn(&mut self, now: Instant) -> Vec<(AddressPair, Vec<u8>)> {
        if std::mem::take(&mut self.fresh) {
            self.allocations += allocation::during(|| {
                self.worker.handle_fresh(now - self.skipped, &mut self.batch, &mut self.sent);
            });
        }
        let mut left = self.pieces.unwrap_or(usize::MAX);
        let mut go_on = || {
            left = left.saturating_sub(1);
            left > 0
        };
        self.worker.handle_some(now - self.skipped, &mut self.batch, &mut self.sent, &mut go_on);
        self.sent.flush(&mut self.batch);
        while let Some((room, update)) = self.worker.poll_update() {
            self.news.push((room, update.clone()));
            self.updates.push((now, update));
        }
        std::mem::take(&mut self.sent.0)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.worker.poll_timeout()? + self.skipped)
    }

    pub fn dropped(&self, reason: Reason) -> u64 {
        self.worker.traffic().dropped.get(reason)
    }

    /// The newest of what a member was told of its slots.
    pub fn have(&self, member: usize) -> Have {
        let id = self.members[member].id;
        let of = |update: &Update| match update {
            Update::Have { participant, have, .. } if *participant == id => Some(have.clone()),
            _ => None,
        };
        self.updates.iter().rev().find_map(|(_, update)| of(update)).expect("told at least once")
    }

    /// Why the worker gave a member up, if it did.
    pub fn closed(&self, member: usize) -> Option<Reason> {
        let id = self.members[member].id;
        self.updates.iter().find_map(|(_, update)| match update {
            Update::Closed { participant, reason, .. } if *participant == id => Some(*reason),
            _ => None,
        })
    }

    pub fn is_connected(&self, member: usize) -> bool {
        let id = self.members[member].id;
        self.updates
            .iter()
            .any(|(_, update)| matches!(update, Update::Connected { participant, .. } if *participant == id))
    }
}
