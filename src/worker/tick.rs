//! Timers: everything that recurs for one participant, and its handshake.

use std::time::{Duration, Instant};

use super::member::Stage;
use super::receive::forward_space;
use super::report::REPORTS;
use super::{Outlet, Worker};
use crate::control::Update;
use crate::net::SendBatch;
use crate::observe::reason::Reason;
use crate::room::Kind;
use crate::room::registry::ParticipantKey;
use crate::room::slot::Slot;
use crate::transport::{DTLS_DEADLINE, Event};

/// Nothing authenticated for so long: the participant may be away.
const SILENT: Duration = Duration::from_secs(8);

impl Worker {
    /// Everything that recurs for one participant.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) {
        let Some(member) = self.members.get_mut(key) else { return };
        member.trip(Stage::Tick);
        member.transport.handle_timeout(now);
        self.drive_transport(now, key, batch, outlet);
        self.give_layers_up(now, key);
        let Some(member) = self.members.get_mut(key) else { return };
        if member.agenda.again.take_if(|at| *at <= now).is_some() {
            self.reassign(key, false);
        }
        let Some(member) = self.members.get_mut(key) else { return };
        let heard = member.transport.last_heard().unwrap_or(member.joined);
        let silence = now.saturating_duration_since(heard);
        if member.retires.is_some_and(|at| at <= now) {
            return self.give_up(key, Reason::Replaced);
        }
        if (silence >= SILENT) != member.silent && member.retires.is_none() {
            member.silent = silence >= SILENT;
            let (participant, epoch, silent) = (member.id, member.epoch, member.silent);
            let since_ms = silence.as_millis() as u64;
            self.updates.push_back((member.room, Update::Heard { participant, epoch, silent, since_ms }));
        }
        if member.secured {
            self.open_late_slots(now, key);
            self.ask_for_missing(now, key, batch, outlet);
            self.send_feedback(now, key, batch, outlet);
            self.send_reports(now, key, batch, outlet);
        } else if now.saturating_duration_since(member.joined) > 2 * DTLS_DEADLINE
            && member.transport.last_heard().is_none()
        {
            // The handshake's own deadline runs from the first check; nobody ever came here.
            return self.give_up(key, Reason::DtlsDeadline);
        }
        self.schedule(now, key);
    }

    fn schedule(&mut self, now: Instant, key: ParticipantKey) {
        let Some(member) = self.members.get_mut(key) else { return };
        let mut wake = member.due.reports;
        if !member.secured {
            wake = now + REPORTS;
        } else if member.media.is_sending(now) {
            wake = wake.min(member.due.feedback);
        }
        for section in &member.media.sections {
            let publication = &self.publications[section.publication];
            if publication.published.is_some() && publication.kind == Kind::Video {
                wake = publication.demand.poll_timeout().into_iter().fold(wake, Instant::min);
            }
            for layer in &publication.layers {
                let missing = layer.nack.poll_timeout(member.media.round_trip);
                wake = [missing, layer.keyframe.poll_timeout(now)]
                    .into_iter()
                    .flatten()
                    .fold(wake, Instant::min);
            }
        }
        let gates = member.media.slots.iter().filter_map(Slot::poll_timeout);
        let also = [member.transport.poll_timeout(), member.retires, member.agenda.again];
        wake = gates.chain(also.into_iter().flatten()).fold(wake, Instant::min);
        // Never at once: what is due now was done now, and a handshake that asks for the past must not spin.
        member.wake = wake.max(now + Duration::from_millis(1));
        self.wheel.schedule(key, member.wake);
    }

    /// Sends the handshake's datagrams and takes the transport's events.
    pub(super) fn drive_transport(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        batch: &mut SendBatch,
        outlet: &mut dyn Outlet,
    ) {
        loop {
            let Some(member) = self.members.get_mut(key) else { return };
            let out = forward_space(batch, outlet);
            let Some((pair, len)) = member.transport.poll_transmit(out) else { break };
            batch.push(pair, member.tag, false, len);
            self.traffic.sent(1, len as u64);
        }
        while let Some(event) = self.members.get_mut(key).and_then(|member| member.transport.poll_event()) {
            let member = &mut self.members[key];
            match event {
                Event::Secured => {
                    member.secured = true;
                    let bound = member.media.slots.iter().filter_map(Slot::decided);
                    let awaits = bound.into_iter().any(|binding| binding.sent);
                    member.progress.secured(now, awaits, &self.traffic.joins);
                    let (participant, epoch, transport) = (member.id, member.epoch, member.number);
                    self.updates
                        .push_back((member.room, Update::Connected { participant, epoch, transport }));
                    self.succeed(now, key);
                    let member = &mut self.members[key];
                    // What it is to see may begin at once, out of the history.
                    let bound =
                        member.media.slots.iter().filter_map(|slot| Some(slot.decided()?.publication));
                    self.fresh.extend(bound);
                    self.wake_at(key, now);
                }
                Event::Failed(reason) => return self.give_up(key, reason),
                Event::Closed => return self.give_up(key, Reason::DtlsClosed),
            }
        }
        if let Some(at) = self.members.get(key).and_then(|member| member.transport.poll_timeout()) {
            self.wake_at(key, at.max(now));
        }
    }
}
