//! How participants go: by saying so, by closing the page, by falling silent, or because the server must
//! remove them.

use std::time::{Duration, Instant};

use crate::control::Command;
use crate::id::ParticipantId;
use crate::observe::reason::Reason;

use super::carrier::Close;
use super::message::{FromServer, GoAway, RoomDelta};
use super::room::{CARRIER_SILENT, MEDIA_SILENT, Participant, Room};

/// How soon an away participant's connection is looked at again: its pongs do not wake the room.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Participant {
    fn media_heard(&self, now: Instant) -> Instant {
        if self.life.media_flows { now } else { self.life.media }
    }

    fn silent_since(&self, now: Instant) -> Instant {
        self.media_heard(now).max(self.carrier_heard())
    }

    fn is_away(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.media_heard(now)) >= MEDIA_SILENT
            && now.saturating_duration_since(self.carrier_heard()) >= CARRIER_SILENT
    }

    /// When something about this participant may change though nothing arrives. Later signs of life only move
    /// it back, so it may be too early, never too late.
    fn deadline(&self, now: Instant, removed_after: Duration) -> Option<Instant> {
        let acknowledge = self.stream.poll_timeout();
        if self.life.media_flows {
            return acknowledge;
        }
        let removed = self.silent_since(now) + removed_after;
        let life = if self.away {
            if self.carrier.is_some() { removed.min(now + LOOK_AGAIN) } else { removed }
        } else {
            removed.min((self.life.media + MEDIA_SILENT).max(self.carrier_heard() + CARRIER_SILENT))
        };
        Some(acknowledge.map_or(life, |at| at.min(life)))
    }
}

impl Room {
    /// The carrier closed. `clean`: the client meant it.
    pub(super) fn handle_lost(&mut self, now: Instant, carrier: u64, clean: bool) {
        let Some(id) = self.carriers.remove(&carrier) else { return };
        if clean {
            self.remove(now, id, Reason::Bye);
        } else if let Some(participant) = self.participants.get_mut(&id) {
            participant.lose_carrier();
            tracing::info!(room = self.key.0, participant = %id, "carrier lost");
            self.schedule(now, id);
        }
    }

    /// The server stops: everyone is told, and nothing is kept.
    pub(super) fn handle_stop(&mut self, now: Instant, reason: Reason) {
        let body = FromServer::GoAway(GoAway { in_ms: 0, reason });
        for id in self.everyone() {
            self.say(now, id, &body);
        }
        for (id, participant) in std::mem::take(&mut self.participants) {
            self.directory.remove(participant.session);
            if let Some(carrier) = participant.carrier {
                carrier.close(Close::GoAway);
            }
            let _ = self.command(Command::Leave { participant: id, epoch: participant.epoch, reason });
        }
        self.sessions.clear();
        self.carriers.clear();
        self.doomed.clear();
    }

    /// Ends a participant's presence, whatever the reason.
    pub(super) fn remove(&mut self, now: Instant, id: ParticipantId, reason: Reason) {
        let Some(participant) = self.participants.remove(&id) else { return };
        tracing::info!(room = self.key.0, participant = %id, reason = reason.as_str(), "left");
        self.forget_session(&participant, if reason == Reason::Bye { Close::Bye } else { Close::Ended });
        let epoch = participant.epoch;
        if self.command(Command::Leave { participant: id, epoch, reason }).is_err() {
            self.owed.push((id, epoch, reason));
            self.owed_at.get_or_insert(now + LOOK_AGAIN);
        }
        self.deadlines.remove(id);
        if self.participants.is_empty() {
            self.empty_since = Some(now);
            self.handle.set_vacant(true);
        }
        self.announce_departure(now, id, reason);
    }

    /// Nobody can continue the session, and its carrier ends.
    pub(super) fn forget_session(&mut self, participant: &Participant, close: Close) {
        self.sessions.remove(&participant.session);
        self.directory.remove(participant.session);
        if let Some(carrier) = &participant.carrier {
            self.carriers.remove(&carrier.id());
            carrier.close(close);
        }
    }

    /// Those who were found to be beyond help while others were served. Removing one may doom another.
    pub(super) fn remove_doomed(&mut self, now: Instant) {
        while let Some((id, epoch, reason)) = self.doomed.pop() {
            if self.participants.get(&id).is_some_and(|participant| participant.epoch == epoch) {
                self.door.refused.count(reason);
                self.remove(now, id, reason);
            }
        }
    }

    /// Whoever fell silent or came back is announced as such.
    pub(super) fn notice_life(&mut self, now: Instant, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let away = participant.is_away(now);
        if away == participant.away {
            return;
        }
        participant.away = away;
        let epoch = participant.epoch;
        tracing::info!(room = self.key.0, participant = %id, away, "away");
        let _ = self.command(Command::Away { participant: id, epoch, away });
        let changed = self.changed_if_known(id);
        self.announce(now, RoomDelta { changed, ..RoomDelta::default() }, None);
    }

    /// Acts on what did not happen to one participant.
    pub(super) fn handle_timeout(&mut self, now: Instant, id: ParticipantId) {
        let removed_after = self.door.settings.removed_after;
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if now.saturating_duration_since(participant.silent_since(now)) >= removed_after {
            self.remove(now, id, Reason::Silent);
        } else {
            participant.flush(now);
            self.notice_life(now, id);
            self.schedule(now, id);
        }
        self.remove_doomed(now);
    }

    /// Whoever is to be looked at now; [`Self::handle_timeout`] is to be called for each.
    pub(super) fn due(&mut self, now: Instant) -> Vec<ParticipantId> {
        self.deadlines.due(now)
    }

    /// What is due and concerns nobody in particular.
    pub(super) fn handle_room_timeout(&mut self, now: Instant) {
        self.handle_roster_timeout(now);
        if self.owed_at.is_some_and(|at| at <= now) {
            self.retry_owed(now);
        }
        self.remove_doomed(now);
    }

    /// Something happened to `id` that may have brought its deadline nearer.
    pub(super) fn schedule(&mut self, now: Instant, id: ParticipantId) {
        let Some(participant) = self.participants.get(&id) else { return };
        if let Some(at) = participant.deadline(now, self.door.settings.removed_after) {
            self.deadlines.schedule(id, at);
        }
    }

    pub(super) fn everyone(&self) -> Vec<ParticipantId> {
        self.participants.keys().copied().collect()
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let grace = self.empty_since.map(|since| since + self.door.settings.room_grace);
        let times = [self.deadlines.next(), self.poll_roster_timeout(), self.owed_at, grace];
        times.into_iter().flatten().min()
    }

    /// Whether the room has been empty for long enough to be forgotten.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let grace = self.door.settings.room_grace;
        self.empty_since.is_some_and(|since| now.saturating_duration_since(since) >= grace)
    }

    /// A departure that the worker missed would leave a ghost there.
    fn retry_owed(&mut self, now: Instant) {
        self.owed_at = None;
        for (id, epoch, reason) in std::mem::take(&mut self.owed) {
            if self.command(Command::Leave { participant: id, epoch, reason }).is_err() {
                self.owed.push((id, epoch, reason));
                self.owed_at = Some(now + LOOK_AGAIN);
            }
        }
    }
}
