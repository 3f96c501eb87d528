//! Who sees whom. Whatever happens in a room only notes which receivers it may concern, and what they are to look at; each
//! of them is then assigned anew once, when its turn comes, however much happened meanwhile.

use std::time::{Duration, Instant};

use super::Worker;
use super::member::Member;
use crate::id::RoomKey;
use crate::room::registry::{ParticipantKey, PublicationKey, Room};
use crate::room::route::Route;
use crate::room::subscription::{Candidate, Place, place};
use crate::room::{Kind, Source, Want, WantAudio, WantVideo, Wish};

/// A voice keeps its slot for so long, whoever else speaks. Longer keeps out who speaks next, shorter cuts words.
const VOICE_KEPT_FOR: Duration = Duration::from_millis(500);

/// Offers noted for one receiver before it is simpler to look at everything.
const MOST_OFFERS: usize = 16;

/// Rank of what competes with nobody's turn to speak.
const ABOVE_SPEAKERS: u32 = 0xffff;

/// How often something was done that grows with a room, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Receivers whose slots were assigned.
    pub assignments: u64,
    /// Publications that were considered for a place.
    pub candidates: u64,
}

/// Buffers that are used anew each time.
#[derive(Default)]
pub(super) struct Table {
    places: Vec<Place>,
    waiting: Vec<Candidate>,
}

/// Whose slots are being assigned.
struct Viewer<'a> {
    key: ParticipantKey,
    member: &'a Member,
    room: &'a Room,
    video_slots: usize,
}

impl Worker {
    /// All of a receiver's slots are to be looked at; with `tell` he is told of them in any case.
    pub(super) fn reassign(&mut self, key: ParticipantKey, tell: bool) {
        let Some(member) = self.members.get_mut(key) else { return };
        member.agenda.all = true;
        member.agenda.tell |= tell;
        self.enqueue(key);
    }

    /// A publication may find a place with a receiver.
    pub(super) fn offer(&mut self, key: ParticipantKey, publication: PublicationKey) {
        let Some(member) = self.members.get_mut(key) else { return };
        if member.agenda.offers.len() < MOST_OFFERS {
            member.agenda.offers.push(publication);
        } else {
            member.agenda.all = true;
        }
        self.enqueue(key);
    }

    /// Something was published: everybody in the room may find a place for it.
    pub(super) fn offer_to_room(&mut self, room: RoomKey, publication: PublicationKey) {
        let owner = self.publications.get(publication).map(|publication| publication.owner);
        for index in 0..self.registry.room(room).map_or(0, |room| room.participants.len()) {
            let Some(&key) = self.registry.room(room).and_then(|room| room.participants.get(index)) else {
                return;
            };
            if Some(key) != owner {
                self.offer(key, publication);
            }
        }
    }

    /// A publication ended, or its owner is away: whoever received it looks for something else.
    pub(super) fn withdraw(&mut self, publication: PublicationKey) {
        let Some(entry) = self.publications.get_mut(publication) else { return };
        for route in std::mem::take(&mut entry.routes).as_slice() {
            let Some(member) = self.members.get_mut(route.receiver) else { continue };
            if member.media.slots[usize::from(route.slot)].forget(publication) {
                self.have_changed(route.receiver);
                self.reassign(route.receiver, false);
            }
        }
        self.demand_changed(publication);
    }

    fn enqueue(&mut self, key: ParticipantKey) {
        if let Some(member) = self.members.get_mut(key)
            && !std::mem::replace(&mut member.agenda.queued, true)
        {
            self.unassigned.push_back(key);
        }
    }

    /// Assigns the slots of the receiver who has waited longest. Returns whether there was one.
    pub(super) fn assign_next(&mut self, now: Instant) -> bool {
        let Some(key) = self.unassigned.pop_front() else { return false };
        self.guard(key, |worker| worker.assign_slots(now, key));
        true
    }

    fn assign_slots(&mut self, now: Instant, key: ParticipantKey) {
        let Some(member) = self.members.get_mut(key) else { return };
        let agenda = std::mem::take(&mut member.agenda);
        let mut table = std::mem::take(&mut self.table);
        self.fill(&mut table, now, key, agenda.all, &agenda.offers);
        self.work.assignments += 1;
        self.work.candidates += table.waiting.len() as u64;
        let postponed = place(&mut table.places, &mut table.waiting);
        let mut changed = false;
        for (index, place) in table.places.iter().enumerate() {
            let Some(member) = self.members.get_mut(key) else { break };
            let before = member.media.slots[index].decided().map(|binding| binding.publication);
            let next = place.holds.map(|holder| holder.publication);
            if before != next {
                if let Some(next) = next.filter(|_| place.kind == Kind::Audio) {
                    member.media.remember_home(next, index as u16);
                }
                changed = true;
                self.bind(now, Route { receiver: key, slot: index as u16 }, next);
            }
            if agenda.all || before != next {
                self.retarget_slot(now, key, index);
            }
        }
        self.table = table;
        if postponed {
            self.look_again(now, key);
        }
        if let Some(member) = self.members.get_mut(key) {
            member.media.answered = member.media.want.n;
        }
        if changed || agenda.tell {
            self.have_changed(key);
        }
    }

    /// Lists a receiver's places and who waits for one: of `offers`, or of everything.
    fn fill(
        &self,
        table: &mut Table,
        now: Instant,
        key: ParticipantKey,
        all: bool,
        offers: &[PublicationKey],
    ) {
        table.places.clear();
        table.waiting.clear();
        let Some(member) = self.members.get(key) else { return };
        let Some(room) = self.registry.room(member.room) else { return };
        let slots = &member.media.slots;
        let video_slots = slots.iter().filter(|slot| slot.section.kind == Kind::Video).count();
        let viewer = Viewer { key, member, room, video_slots };
        for slot in slots {
            let young = slot.bound.is_some_and(|at| now.saturating_duration_since(at) < VOICE_KEPT_FOR);
            table.places.push(Place {
                kind: slot.section.kind,
                holds: slot.decided().and_then(|binding| self.candidate(&viewer, binding.publication)),
                settled: slot.section.kind == Kind::Video || !young,
            });
        }
        for &publication in if all { &room.publications } else { offers } {
            let held = |place: &Place| place.holds.is_some_and(|holder| holder.publication == publication);
            let listed = |candidate: &Candidate| candidate.publication == publication;
            if !table.places.iter().any(held) && (all || !table.waiting.iter().any(listed)) {
                table.waiting.extend(self.candidate(&viewer, publication));
            }
        }
    }

    /// A voice found no place because another has just begun.
    fn look_again(&mut self, now: Instant, key: ParticipantKey) {
        let Some(member) = self.members.get_mut(key) else { return };
        let audio = member.media.slots.iter().filter(|slot| slot.section.kind == Kind::Audio);
        let settles =
            audio.filter_map(|slot| slot.bound).map(|at| at + VOICE_KEPT_FOR).filter(|at| *at > now).min();
        member.agenda.again = settles;
        if let Some(at) = settles {
            self.wake_at(key, at);
        }
    }

    /// Decides what a slot is to carry. Where it carries something, that goes on until the other can begin.
    fn bind(&mut self, now: Instant, route: Route, new: Option<PublicationKey>) {
        let Some(member) = self.members.get_mut(route.receiver) else { return };
        let version = member.version + 1;
        let slot = &mut member.media.slots[usize::from(route.slot)];
        let before = [&slot.binding, &slot.next].map(|binding| binding.map(|binding| binding.publication));
        let id = new.and_then(|new| Some((new, self.publications.get(new)?.published?.id)));
        match id {
            Some((publication, id)) => slot.bind(publication, id, version, now),
            None => slot.release(),
        }
        let after = [&slot.binding, &slot.next].map(|binding| binding.map(|binding| binding.publication));
        let opens = slot.poll_timeout();
        for former in before.into_iter().flatten().filter(|former| !after.contains(&Some(*former))) {
            if let Some(entry) = self.publications.get_mut(former) {
                entry.routes.remove(route);
            }
            self.demand_changed(former);
        }
        for present in after.into_iter().flatten() {
            if let Some(entry) = self.publications.get_mut(present) {
                entry.routes.add(route);
            }
            self.demand_changed(present);
        }
        if let Some(opens) = opens {
            self.wake_at(route.receiver, opens);
        }
    }

    /// Whether and how much a receiver wants a publication.
    fn candidate(&self, viewer: &Viewer<'_>, key: PublicationKey) -> Option<Candidate> {
        let publication = self.publications.get(key)?;
        let published = publication.published?;
        let owner = self.members.get(publication.owner)?;
        let media = &viewer.member.media;
        // One participant may have two connections for a moment; neither gets his own media.
        if owner.id == viewer.member.id || owner.media.away {
            return None;
        }
        let wish = wish(&media.want, published.id);
        let named = media.want.publications.contains_key(&published.id);
        let (turn, recency, home) = match publication.kind {
            Kind::Audio => {
                let wanted = match &media.want.audio {
                    WantAudio::Loudest => true,
                    WantAudio::Only(ids) => ids.contains(&published.id),
                };
                let turn = wanted.then(|| publication.voice.activity() as u32)?;
                (turn, publication.voice.spoke, media.home(key))
            }
            Kind::Video if wish.height == 0 => return None,
            Kind::Video => {
                let turn = match media.want.video {
                    None => 0,
                    Some(last) if published.source == Source::Camera && !named => {
                        self.turn(viewer, publication.owner, last)?
                    }
                    Some(_) => ABOVE_SPEAKERS,
                };
                (turn, 0, None)
            }
        };
        Some(Candidate {
            publication: key,
            owner: publication.owner,
            kind: publication.kind,
            source: published.source,
            rank: u32::from(wish.priority) << 16 | turn,
            recency,
            home,
        })
    }

    /// How recently somebody spoke, if he is among the last: higher is later. No more are counted than can be shown.
    fn turn(&self, viewer: &Viewer<'_>, owner: ParticipantKey, last: WantVideo) -> Option<u32> {
        let count = usize::from(last.last).min(viewer.video_slots);
        let here = |key: &&ParticipantKey| {
            **key != viewer.key && self.members.get(**key).is_some_and(|member| !member.media.away)
        };
        let position = viewer.room.cameras.iter().filter(here).take(count).position(|key| *key == owner)?;
        Some((count - position) as u32)
    }
}

/// What is wished for a publication.
pub(super) fn wish(want: &Want, id: crate::id::PublicationId) -> Wish {
    want.publications.get(&id).copied().unwrap_or(want.default)
}
