//! Who sees whom: after each change, the slots of a room's members and the layers in them.

use std::time::Instant;

use super::Worker;
use crate::id::RoomKey;
use crate::room::keyframe::OPENS_FOR;
use crate::room::registry::{ParticipantKey, PublicationKey};
use crate::room::route::Route;
use crate::room::select::choose;
use crate::room::slot::Slot;
use crate::room::subscription::{Candidate, Place, assign};
use crate::room::{Kind, Want, Wish};

impl Worker {
    /// Something was published, withdrawn, muted or someone came or went: all receivers' slots.
    pub(super) fn assign_room(&mut self, now: Instant, room: RoomKey) {
        let Some(entry) = self.registry.room(room) else { return };
        for key in entry.participants.clone() {
            self.assign_slots(now, key);
        }
    }

    /// One receiver's slots.
    pub(super) fn assign_slots(&mut self, now: Instant, key: ParticipantKey) {
        let Some(member) = self.members.get(key) else { return };
        let candidates = self.candidates(key, member.room, &member.media.want);
        let places: Vec<Place> = member
            .media
            .slots
            .iter()
            .map(|slot| Place {
                kind: slot.section.kind,
                holds: slot.decided().map(|binding| binding.publication),
            })
            .collect();
        let result = assign(&places, &candidates);
        let mut changed = false;
        for (index, (place, next)) in places.iter().zip(result).enumerate() {
            if place.holds != next {
                changed = true;
                self.bind(now, Route { receiver: key, slot: index as u16 }, next);
            }
        }
        if changed {
            self.have_changed(key);
        }
        self.retarget(now, key);
    }

    /// The layers that one receiver gets, chosen anew.
    pub(super) fn retarget(&mut self, now: Instant, key: ParticipantKey) {
        let Some(member) = self.members.get(key) else { return };
        for index in 0..member.media.slots.len() {
            self.retarget_slot(now, key, index);
        }
    }

    /// The layers that all receivers of a publication get, chosen anew.
    pub(super) fn retarget_receivers(&mut self, now: Instant, publication: PublicationKey) {
        let Some(entry) = self.publications.get_mut(publication) else { return };
        entry.layers_changed = false;
        for route in entry.routes.as_slice().to_vec() {
            self.retarget_slot(now, route.receiver, usize::from(route.slot));
        }
    }

    fn retarget_slot(&mut self, now: Instant, key: ParticipantKey, index: usize) {
        let Some((wish, slot, secured)) = self.members.get_mut(key).and_then(|member| {
            let want = &member.media.want;
            let slot = member.media.slots.get_mut(index)?;
            Some((wish(want, slot.decided()?.id), slot, member.secured))
        }) else {
            return;
        };
        let Some(&binding) = slot.decided() else { return };
        let Some(publication) = self.publications.get_mut(binding.publication) else { return };
        let (infos, count) = publication.layer_infos();
        let target = choose(&infos[..count], wish.height);
        let sent = target.is_some_and(|layer| infos[usize::from(layer)].alive);
        if (binding.target, binding.sent) == (target, sent) {
            return;
        }
        let needs_keyframe = slot.retarget(target, sent) && publication.kind == Kind::Video;
        if needs_keyframe && !sent {
            // Whichever of its encodings answers is the one to be shown.
            publication.layers.iter_mut().for_each(|layer| layer.keyframe.request());
            self.keyframes.push(binding.publication);
        }
        if let Some(layer) = target.and_then(|layer| publication.layers.get_mut(usize::from(layer)))
            && needs_keyframe
            // Who is still connecting begins with a young one out of the history, and asks then if it is too old. Where
            // the history may not open, one that comes too early would be for nothing.
            && (secured || (self.settings.history_opening && layer.opening(now, OPENS_FOR / 2).is_none()))
        {
            layer.keyframe.request();
            self.keyframes.push(binding.publication);
        }
        self.have_changed(key);
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
            if let Some(former) = self.publications.get_mut(former) {
                former.routes.remove(route);
            }
        }
        for present in after.into_iter().flatten() {
            if let Some(present) = self.publications.get_mut(present) {
                present.routes.add(route);
            }
        }
        if let Some(opens) = opens {
            self.wake_at(route.receiver, opens);
        }
    }

    /// Slots whose viewer needed too long to say that he knows the next name.
    pub(super) fn open_late_slots(&mut self, now: Instant, key: ParticipantKey) {
        self.open_slots(now, key, |slot| slot.handle_timeout(now));
    }

    /// A viewer knows what its slots carry, up to a statement.
    pub(super) fn seen(&mut self, now: Instant, key: ParticipantKey, version: u64) {
        self.open_slots(now, key, |slot| slot.handle_seen(version));
    }

    fn open_slots(
        &mut self,
        now: Instant,
        key: ParticipantKey,
        mut open: impl FnMut(&mut Slot) -> Option<PublicationKey>,
    ) {
        let Some(member) = self.members.get_mut(key) else { return };
        for slot in &mut member.media.slots {
            let Some(publication) = open(slot) else { continue };
            let Some(target) = slot.decided().and_then(|binding| binding.target) else { continue };
            let Some(entry) = self.publications.get_mut(publication) else { continue };
            let Some(layer) = entry.layers.get_mut(usize::from(target)) else { continue };
            let opening = layer.opening(now, OPENS_FOR).filter(|_| self.settings.history_opening);
            if !opening.is_some_and(|(_, arrival)| slot.opens_from_history(arrival, now)) {
                layer.keyframe.urge(now);
                self.keyframes.push(publication);
            }
            self.fresh.push(publication);
        }
    }

    /// What a receiver could see and hear: everything published by others who are here.
    fn candidates(&self, receiver: ParticipantKey, room: RoomKey, want: &Want) -> Vec<Candidate> {
        let Some(entry) = self.registry.room(room) else { return Vec::new() };
        // One participant may have two connections for a moment; neither gets his own media.
        let id = self.members.get(receiver).map(|member| member.id);
        entry
            .publications
            .iter()
            .filter_map(|&key| {
                let publication = self.publications.get(key)?;
                let published = publication.published?;
                let owner = self.members.get(publication.owner)?;
                let wish = wish(want, published.id);
                let wanted = publication.kind == Kind::Audio || wish.height > 0;
                let shown = Some(owner.id) != id && !owner.media.away && wanted;
                shown.then_some(Candidate {
                    publication: key,
                    owner: publication.owner,
                    kind: publication.kind,
                    source: published.source,
                    priority: wish.priority,
                })
            })
            .collect()
    }
}

fn wish(want: &Want, id: crate::id::PublicationId) -> Wish {
    want.publications.get(&id).copied().unwrap_or(want.default)
}
