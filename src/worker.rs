//! THE LOOP of a media thread, without its thread: one [`Worker`] holds the rooms that live on it, is handed datagrams,
//! commands and the time, and writes what is to be sent into a batch. [`run`] adds the socket and the clock.
//!
//! One turn, stage by stage:
//!
//! 1. receive ([`receive`]): each datagram is demultiplexed, opened once, latched to its publication and kept once;
//! 2. forward ([`forward`]): for each publication with fresh packets, for each receiver: select, rewrite, seal into
//!    the send batch, so that the packets of one receiver stand together and leave in one run;
//! 3. answer ([`answer`]): reports taken, packets repeated, keyframes asked for;
//! 4. commands of the signaling half ([`control`], [`succeed`]);
//! 5. what can wait: timers ([`tick`]), among them what the server reports of its own accord ([`report`]), handshakes, who
//!    speaks ([`speak`]), who sees whom ([`assign`]) and in which layer ([`target`]).
//!
//! Media comes first in every turn: what can wait is done piece by piece, and goes on in the next turn when its time is
//! over. Whatever is done for one participant is guarded: a panic removes that participant alone.

mod answer;
mod assign;
mod control;
mod forward;
mod member;
mod progress;
mod receive;
mod report;
pub mod run;
mod speak;
mod succeed;
mod target;
mod tick;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use slotmap::SlotMap;

use crate::control::{Command, Update};
use crate::id::{AddressPair, Epoch, ParticipantId, RoomKey};
use crate::net::SendBatch;
use crate::observe::reason::Reason;
use crate::observe::traffic::Traffic;
use crate::room::clock::ServerClock;
use crate::room::publication::Publication;
use crate::room::registry::{ParticipantKey, PublicationKey, Registry};
use crate::transport::certificate::Certificate;
use crate::transport::demux::Demux;
use crate::transport::timer::Wheel;
use crate::units::Bitrate;

pub use assign::Work;
use member::Member;
pub use member::Stage;

/// What can be switched.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether packets of one receiver may leave in one segmented send.
    pub gso: bool,
    /// Whether packets whose sizes differ a little are padded to the same size, which makes longer runs.
    pub padding: bool,
    /// Whether a newcomer's picture may begin with a young keyframe out of the history.
    pub history_opening: bool,
    /// What publishers without transport-wide feedback are told they may send.
    pub remb: Bitrate,
}

impl Default for Settings {
    fn default() -> Self {
        Self { gso: true, padding: true, history_opening: true, remb: Bitrate(5_000_000) }
    }
}

/// Where a full batch goes. The worker asks for it in the middle of a turn only when the batch is full.
pub trait Outlet {
    /// Sends and empties the batch.
    fn flush(&mut self, batch: &mut SendBatch);
}

/// See the module.
pub struct Worker {
    settings: Settings,
    certificate: Certificate,
    clock: ServerClock,
    members: SlotMap<ParticipantKey, Member>,
    publications: SlotMap<PublicationKey, Publication>,
    registry: Registry,
    demux: Demux<ParticipantKey>,
    wheel: Wheel<ParticipantKey>,
    /// Publications with packets that wait to be forwarded in this turn.
    fresh: Vec<PublicationKey>,
    /// Publications that a keyframe was asked of in this turn.
    keyframes: Vec<PublicationKey>,
    /// Members whose slots changed in this turn.
    changed: Vec<ParticipantKey>,
    /// Members whose slots are to be assigned, in order.
    unassigned: VecDeque<ParticipantKey>,
    /// Pictures whose receivers may want other layers.
    demanded: Vec<PublicationKey>,
    /// Publishers that are to be told of their layers.
    layered: Vec<ParticipantKey>,
    /// When each room's voices are next looked at.
    listening: Wheel<RoomKey>,
    /// Datagrams of handshakes that wait.
    handshakes: VecDeque<(ParticipantKey, AddressPair, Vec<u8>)>,
    /// One was taken in this turn already.
    handshook: bool,
    /// The last time that was told with what can wait.
    told: Instant,
    work: Work,
    table: assign::Table,
    hearing: speak::Hearing,
    scratch: forward::Scratch,
    updates: VecDeque<(RoomKey, Update)>,
    traffic: Arc<Traffic>,
}

impl Worker {
    /// `since_unix`: the time of day at `now`, for sender reports.
    #[must_use]
    pub fn new(settings: Settings, certificate: Certificate, now: Instant, since_unix: Duration) -> Self {
        Self {
            settings,
            certificate,
            clock: ServerClock::new(now, since_unix),
            members: SlotMap::with_key(),
            publications: SlotMap::with_key(),
            registry: Registry::default(),
            demux: Demux::new(),
            wheel: Wheel::new(now),
            fresh: Vec::new(),
            keyframes: Vec::new(),
            changed: Vec::new(),
            unassigned: VecDeque::new(),
            demanded: Vec::new(),
            layered: Vec::new(),
            listening: Wheel::new(now),
            handshakes: VecDeque::new(),
            handshook: false,
            told: now,
            work: Work::default(),
            table: assign::Table::default(),
            hearing: speak::Hearing::default(),
            scratch: forward::Scratch::default(),
            updates: VecDeque::new(),
            traffic: Arc::default(),
        }
    }

    /// What was received, sent and dropped; readable from any thread.
    #[must_use]
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    /// Takes a datagram. What it causes at once (answers to checks, handshake flights) is in the batch
    /// afterwards; media waits for [`forward`](Self::forward).
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        pair: AddressPair,
        datagram: &mut [u8],
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) {
        self.traffic.received(datagram.len());
        if let Err(reason) = self.receive(now, pair, datagram, batch, outlet) {
            self.drop_for(reason);
        }
    }

    /// Forwards what arrived since the last call, and asks publishers for the keyframes that this needs.
    pub fn handle_fresh(&mut self, now: Instant, batch: &mut SendBatch, outlet: &mut dyn Outlet) {
        self.forward(now, batch, outlet);
        self.ask_for_keyframes(now, batch, outlet);
    }

    /// Takes a command of the signaling half. One for an epoch that is no longer present is ignored.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        let participant = command.participant();
        if catch_unwind(AssertUnwindSafe(|| self.control(now, command))).is_err()
            && let Some((key, _)) = self.registry.present(participant)
        {
            self.give_up(key, Reason::Panicked);
        }
    }

    /// Does all that is due: handshakes, reports, requests, liveness, slots.
    pub fn handle_timeout(&mut self, now: Instant, batch: &mut SendBatch, outlet: &mut dyn Outlet) {
        self.handle_some(now, batch, outlet, &mut || true);
    }

    /// As [`handle_timeout`](Self::handle_timeout), piece by piece for as long as `go_on` says yes. At least one piece of
    /// each kind is done, so that none starves; what is left is due at once.
    pub fn handle_some(
        &mut self,
        now: Instant,
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
        go_on: &mut dyn FnMut() -> bool,
    ) {
        (self.told, self.handshook) = (now, false);
        loop {
            let mut busy = false;
            if let Some(key) = self.wheel.poll(now) {
                self.guard(key, |worker| worker.tick(now, key, batch, outlet));
                busy = true;
            }
            if let Some(room) = self.listening.poll(now) {
                self.hear_room(now, room);
                busy = true;
            }
            busy |= self.shake_next_hand(now, batch, outlet);
            busy |= self.assign_next(now);
            busy |= self.look_at_next_demand(now);
            if !busy || !go_on() {
                break;
            }
        }
        // What timers and commands allowed to begin.
        self.handle_fresh(now, batch, outlet);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; `None` while nobody is here.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.unassigned.is_empty() && self.handshakes.is_empty() && self.demanded.is_empty() {
            [self.wheel.next(), self.listening.next()].into_iter().flatten().min()
        } else {
            Some(self.told)
        }
    }

    /// What was done so far that grows with rooms.
    #[doc(hidden)]
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
    }

    /// What changed, to be told to the rooms' signaling halves. To be called until `None`.
    pub fn poll_update(&mut self) -> Option<(RoomKey, Update)> {
        while let Some(key) = self.changed.pop() {
            let Some(member) = self.members.get_mut(key) else { continue };
            member.media.have_changed = false;
            if member.retires.is_some() {
                continue;
            }
            let (participant, epoch) = (member.id, member.epoch);
            member.version += 1;
            let (version, have) = (member.version, member.media.have(member.number));
            self.updates.push_back((member.room, Update::Have { participant, epoch, version, have }));
        }
        while self.poll_layers() {}
        let update = self.updates.pop_front();
        if update.is_none() {
            self.traffic.members.store(self.members.len() as u64, Ordering::Relaxed);
        }
        update
    }

    /// Makes handling this participant panic at a stage, so that tests can see that nobody else notices.
    #[doc(hidden)]
    pub fn inject_panic(&mut self, participant: ParticipantId, epoch: Epoch, stage: Stage) {
        if let Some(member) = self.registry.find(participant, epoch).and_then(|key| self.members.get_mut(key))
        {
            member.fault = Some(stage);
        }
    }

    /// The error of a send concerns its receiver only.
    pub fn handle_send_failure(&mut self, tag: u32, drop_gso: bool) {
        if drop_gso && let Some(member) = self.members.values_mut().find(|member| member.tag == tag) {
            member.gso = false;
        }
    }

    /// Does something for one participant; should it panic, that participant is removed and nobody else is
    /// affected.
    fn guard(&mut self, key: ParticipantKey, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            self.give_up(key, Reason::Panicked);
        }
    }

    fn drop_for(&self, reason: Reason) {
        self.traffic.dropped.count(reason);
    }

    /// Makes sure that the participant is looked at no later than `at`.
    fn wake_at(&mut self, key: ParticipantKey, at: Instant) {
        if let Some(member) = self.members.get_mut(key)
            && at < member.wake
        {
            member.wake = at;
            self.wheel.schedule(key, at);
        }
    }

    fn have_changed(&mut self, key: ParticipantKey) {
        if let Some(member) = self.members.get_mut(key)
            && !std::mem::replace(&mut member.media.have_changed, true)
        {
            self.changed.push(key);
        }
    }
}
