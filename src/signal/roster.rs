//! What everybody is told of everybody: revisions, snapshots, pages, and what big rooms leave out.
//!
//! A room's truth changes at once; what is said of it may wait a moment in a big room. Snapshots and pages show the
//! truth, so a change that is still to be said may repeat what they showed: joining twice or leaving unseen means
//! nothing to a client. Whatever is said takes along all that waits, hence every revision is the truth of its moment.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

use crate::id::ParticipantId;
use crate::observe::reason::Reason;

use super::message::{
    FromServer, Left, Participant as Listed, Publication, RoomDelta, RoomInfo, Snapshot, WhoPage,
};
use super::room::{Participant, Room};
use super::session::Body;

/// How long a departure or arrival in a big room may wait for others. Longer saves messages, shorter shows
/// people sooner; a quarter of a second is hardly noticed among a hundred people.
const GATHER: Duration = Duration::from_millis(250);
/// Arrivals with publications that wait at most: each owner is written a version of its own, so the cost of one
/// message grows with the square of this. More saves messages in a rush, fewer bounds the longest turn.
const GATHER_OWNERS: usize = 32;

/// What was said of the room.
#[derive(Debug, Default)]
pub(super) struct Roster {
    rev: u64,
    /// How many there were when that was last said.
    total: usize,
    /// Those who publish. Everybody knows them.
    publishing: BTreeSet<ParticipantId>,
    /// Those whom anybody else knows, and since which revision everybody does; 0: only some.
    known: BTreeMap<ParticipantId, u64>,
    /// The revision of the last snapshot that did not name everybody.
    partial: Option<u64>,
    /// Arrivals that are to be said.
    joined: BTreeSet<ParticipantId>,
    /// Departures likewise, of those who were known.
    left: Vec<Left>,
    /// When they are to be said.
    due: Option<Instant>,
    /// Somebody was shown a number of participants that was not said to the others.
    shown_ahead: bool,
}

impl Roster {
    /// Whether `id` may be missing in somebody's picture of the room.
    fn is_obscure(&self, id: ParticipantId) -> bool {
        let known = self.known.get(&id).copied().unwrap_or(0);
        known == 0 || self.partial.is_some_and(|partial| known <= partial)
    }

    fn gather(&mut self, now: Instant) {
        self.due.get_or_insert(now + GATHER);
    }
}

impl Room {
    /// When [`Self::handle_roster_timeout`] is to be called.
    pub(super) fn poll_roster_timeout(&self) -> Option<Instant> {
        self.roster.due
    }

    pub(super) fn handle_roster_timeout(&mut self, now: Instant) {
        if self.roster.due.is_some_and(|due| due <= now) {
            self.announce(now, RoomDelta::default(), None);
        }
    }

    /// The newcomer `id` is in the room; it will be shown a snapshot and needs no other news.
    pub(super) fn announce_arrival(&mut self, now: Instant, id: ParticipantId) {
        let Some(participant) = self.participants.get(&id) else { return };
        if self.participants.len() <= self.door.settings.gather_above {
            let published = participant.publications.iter().map(|p| participant.published(p)).collect();
            let delta = RoomDelta { joined: self.changed(id), published, ..RoomDelta::default() };
            self.announce(now, delta, Some(id));
            return;
        }
        if !participant.publications.is_empty() {
            self.roster.publishing.insert(id);
        }
        self.roster.joined.insert(id);
        self.roster.gather(now);
        let owners = self.roster.joined.intersection(&self.roster.publishing).take(GATHER_OWNERS);
        if owners.count() == GATHER_OWNERS {
            self.announce(now, RoomDelta::default(), Some(id));
        }
    }

    /// `id` is no longer in the room.
    pub(super) fn announce_departure(&mut self, now: Instant, id: ParticipantId, reason: Reason) {
        let known = self.roster.known.remove(&id).is_some();
        self.roster.publishing.remove(&id);
        self.roster.joined.remove(&id);
        if known {
            self.roster.left.push(Left { id, reason });
        }
        if self.participants.len() < self.door.settings.gather_above {
            self.announce(now, RoomDelta::default(), None);
        } else {
            self.roster.gather(now);
        }
    }

    /// The next revision of the roster goes to everyone but `skip`, with everything that waited to be said.
    /// `delta.published` holds entries with their sections, which only the owner sees.
    pub(super) fn announce(&mut self, now: Instant, delta: RoomDelta, skip: Option<ParticipantId>) {
        let delta = self.complete(delta);
        let nothing = delta == RoomDelta { total: delta.total, ..RoomDelta::default() };
        if nothing && delta.total == self.roster.total && !self.roster.shown_ahead {
            return;
        }
        self.roster.shown_ahead = false;
        self.roster.rev += 1;
        self.roster.total = delta.total;
        let rev = self.roster.rev;
        self.roster.known.extend(delta.joined.iter().map(|joined| (joined.id, rev)));
        self.note_known(delta.changed.iter().map(|changed| changed.id));
        let owners: BTreeSet<_> = delta.published.iter().map(|entry| entry.participant).collect();
        self.roster.publishing.extend(&owners);
        let written = |viewer: Option<ParticipantId>| {
            let published = delta.published.iter().map(|entry| seen_by(entry, viewer)).collect();
            Body::new(&FromServer::Room(Box::new(RoomDelta { rev, published, ..delta.clone() })))
        };
        let own: BTreeMap<_, _> =
            owners.iter().filter(|id| Some(**id) != skip).map(|&id| (id, written(Some(id)))).collect();
        let others = written(None);
        for participant in self.participants.values_mut().filter(|p| Some(p.id) != skip) {
            let body = own.get(&participant.id).unwrap_or(&others);
            if let Err(reason) = participant.say(now, body.clone()) {
                self.doomed.push((participant.id, participant.epoch, reason));
            }
        }
    }

    /// Adds what waited, names those who begin to publish, and leaves out those whom nobody knows.
    fn complete(&mut self, mut delta: RoomDelta) -> RoomDelta {
        self.roster.due = None;
        delta.total = self.participants.len();
        delta.left.append(&mut self.roster.left);
        let counted = delta.total > self.door.settings.count_above;
        for id in std::mem::take(&mut self.roster.joined) {
            let Some(participant) = self.participants.get(&id) else { continue };
            if participant.publications.is_empty() && counted {
                continue;
            }
            delta.joined.push(participant.listed());
            let said = |entry: &Publication| delta.published.iter().any(|other| other.id == entry.id);
            let entries = participant.publications.iter().map(|publish| participant.published(publish));
            let unsaid: Vec<_> = entries.filter(|entry| !said(entry)).collect();
            delta.published.extend(unsaid);
        }
        let owners: BTreeSet<_> = delta.published.iter().map(|entry| entry.participant).collect();
        for id in owners {
            let named = delta.joined.iter().any(|joined| joined.id == id);
            // Whoever published before is known to everybody already.
            if !named && !self.roster.publishing.contains(&id) && self.roster.is_obscure(id) {
                delta.joined.extend(self.changed(id));
            }
        }
        delta.changed.retain(|changed| delta.joined.iter().all(|joined| joined.id != changed.id));
        delta
    }

    /// The entry of somebody who changed, unless nobody else was told of that one.
    pub(super) fn changed_if_known(&self, id: ParticipantId) -> Vec<Listed> {
        if self.roster.known.contains_key(&id) { self.changed(id) } else { Vec::new() }
    }

    /// The entry of somebody who changed.
    pub(super) fn changed(&self, id: ParticipantId) -> Vec<Listed> {
        self.participants.get(&id).map(Participant::listed).into_iter().collect()
    }

    /// Whoever publishes nothing any more may be left out by snapshots again.
    pub(super) fn notice_unpublished(&mut self, id: ParticipantId) {
        if self.participants.get(&id).is_some_and(|participant| participant.publications.is_empty()) {
            self.roster.publishing.remove(&id);
        }
    }

    /// The roster as `id` sees it: all who publish, and so many others that a page is full, those first whom
    /// somebody knows anyway.
    pub(super) fn snapshot(&mut self, id: ParticipantId) -> Snapshot {
        let page = self.door.settings.page;
        let mut named: BTreeSet<_> = self.roster.publishing.iter().copied().collect();
        named.insert(id);
        for other in self.roster.known.keys().chain(self.participants.keys()) {
            if named.len() >= page {
                break;
            }
            named.insert(*other);
        }
        if named.len() < self.participants.len() {
            self.roster.partial = Some(self.roster.rev);
        }
        let named: Vec<_> = named.iter().filter_map(|id| self.participants.get(id)).collect();
        let publications = named.iter().flat_map(|participant| {
            let entries = participant.publications.iter().map(|publish| participant.published(publish));
            entries.map(|entry| seen_by(&entry, Some(id)))
        });
        let publications = publications.collect();
        let participants: Vec<_> = named.iter().map(|participant| participant.listed()).collect();
        let snapshot = Snapshot { room: self.info(), participants, publications };
        self.note_known(snapshot.participants.iter().map(|named| named.id).filter(|named| *named != id));
        snapshot
    }

    /// A part of the roster, in the order of ids.
    pub(super) fn page(&mut self, after: Option<ParticipantId>) -> WhoPage {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.participants.range((from, Bound::Unbounded)).map(|(_, participant)| participant);
        let participants: Vec<_> =
            rest.by_ref().take(self.door.settings.page).map(Participant::listed).collect();
        let next = rest.next().and(participants.last()).map(|last| last.id);
        let page = WhoPage { room: self.info(), participants, next };
        self.note_known(page.participants.iter().map(|named| named.id));
        page
    }

    fn info(&mut self) -> RoomInfo {
        let total = self.participants.len();
        self.roster.shown_ahead |= total != self.roster.total;
        RoomInfo { rev: self.roster.rev, total }
    }

    fn note_known(&mut self, ids: impl Iterator<Item = ParticipantId>) {
        for id in ids {
            self.roster.known.entry(id).or_insert(0);
        }
    }
}

/// The section is its owner's business.
fn seen_by(entry: &Publication, viewer: Option<ParticipantId>) -> Publication {
    Publication { mid: entry.mid.filter(|_| viewer == Some(entry.participant)), ..entry.clone() }
}
