//! Which layer each slot gets, when it may begin, and what its publisher is told of all that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Worker;
use super::assign::wish;
use crate::control::Update;
use crate::id::{Mid, PublicationId};
use crate::room::Kind;
use crate::room::demand::MOST_LAYERS;
use crate::room::keyframe::OPENS_FOR;
use crate::room::registry::{ParticipantKey, PublicationKey};
use crate::room::select::{choose, ideal};
use crate::room::slot::Slot;

/// Shortest time between two complaints of one slot that are acted upon. Shorter lets a broken decoder make the publisher
/// send keyframes only, longer leaves a viewer before a still picture.
const STALLS: Duration = Duration::from_secs(1);

impl Worker {
    /// The layers that all receivers of a publication get, chosen anew.
    pub(super) fn retarget_receivers(&mut self, now: Instant, publication: PublicationKey) {
        let Some(entry) = self.publications.get_mut(publication) else { return };
        entry.layers_changed = false;
        for route in entry.routes.as_slice().to_vec() {
            self.retarget_slot(now, route.receiver, usize::from(route.slot));
        }
    }

    pub(super) fn retarget_slot(&mut self, now: Instant, key: ParticipantKey, index: usize) {
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
        let (target, best) = (choose(&infos[..count], wish.height), ideal(&infos[..count], wish.height));
        let sent = target.is_some_and(|layer| infos[usize::from(layer)].alive);
        if (binding.target, binding.sent, binding.ideal) == (target, sent, best) {
            return;
        }
        let needs_keyframe = slot.retarget(target, best, sent) && publication.kind == Kind::Video;
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
        self.demand_changed(binding.publication);
        if (binding.target, binding.sent) != (target, sent) {
            self.have_changed(key);
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

    /// What may begin only now begins with a keyframe that has just come, or else with another.
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

    /// A viewer shows nothing new in a slot: the cheapest cure.
    pub(super) fn stall(&mut self, now: Instant, key: ParticipantKey, mid: Mid) {
        let Some(member) = self.members.get_mut(key) else { return };
        let Some(index) = member.media.slots.iter().position(|slot| slot.section.mid == mid) else { return };
        let slot = &mut member.media.slots[index];
        if slot.stalled.is_some_and(|at| now.saturating_duration_since(at) < STALLS) {
            return;
        }
        slot.stalled = Some(now);
        let binding = slot.decided().copied();
        // Perhaps he only does not know what he should see.
        self.have_changed(key);
        let Some(binding) = binding else { return };
        let Some(publication) = self.publications.get_mut(binding.publication) else { return };
        let muted = publication.published.is_none_or(|published| published.muted);
        if muted || publication.kind == Kind::Audio {
            return;
        }
        let mut layer = binding.layer.or(binding.target);
        if let Some(silent) = binding.layer.filter(|layer| publication.handle_stall(*layer, now)) {
            self.retarget_receivers(now, binding.publication);
            let slot = &self.members[key].media.slots[index];
            // Where another is sent, that has been asked for now.
            layer = slot.decided().and_then(|binding| binding.target).filter(|target| *target == silent);
        }
        let layers = &mut self.publications[binding.publication].layers;
        if let Some(layer) = layer.and_then(|layer| layers.get_mut(usize::from(layer))) {
            layer.keyframe.request();
            self.keyframes.push(binding.publication);
        }
    }

    /// Somebody may want other layers of a publication than before.
    pub(super) fn demand_changed(&mut self, publication: PublicationKey) {
        if let Some(entry) = self.publications.get_mut(publication)
            && entry.kind == Kind::Video
            && !std::mem::replace(&mut entry.demand.changed, true)
        {
            self.demanded.push(publication);
        }
    }

    /// Looks at the wishes for one publication. Returns whether there was one.
    pub(super) fn look_at_next_demand(&mut self, now: Instant) -> bool {
        let Some(key) = self.demanded.pop() else { return false };
        let Some(publication) = self.publications.get_mut(key) else { return true };
        publication.demand.changed = false;
        if publication.published.is_none() {
            return true;
        }
        let mut wanted = [false; MOST_LAYERS];
        for route in publication.routes.as_slice() {
            let slot =
                self.members.get(route.receiver).map(|member| &member.media.slots[usize::from(route.slot)]);
            let Some(binding) = slot.and_then(|slot| slot.binding_of(key)) else { continue };
            for layer in [binding.layer, binding.target, binding.ideal].into_iter().flatten() {
                if let Some(wanted) = wanted.get_mut(usize::from(layer)) {
                    *wanted = true;
                }
            }
        }
        let owner = publication.owner;
        if publication.demand.handle_wishes(now, wanted) {
            self.layers_changed(owner);
        }
        if let Some(at) = self.publications[key].demand.poll_timeout() {
            self.wake_at(owner, at);
        }
        true
    }

    /// What nobody has watched for a while.
    pub(super) fn give_layers_up(&mut self, now: Instant, key: ParticipantKey) {
        let Some(member) = self.members.get(key) else { return };
        let mut changed = false;
        for section in &member.media.sections {
            let publication = &mut self.publications[section.publication];
            changed |= publication.kind == Kind::Video
                && publication.published.is_some()
                && publication.demand.handle_timeout(now);
        }
        if changed {
            self.layers_changed(key);
        }
    }

    /// A publisher is to be told which of its layers anybody watches.
    fn layers_changed(&mut self, key: ParticipantKey) {
        if !self.layered.contains(&key) {
            self.layered.push(key);
        }
    }

    /// What the next publisher is told of its layers.
    pub(super) fn poll_layers(&mut self) -> bool {
        let Some(key) = self.layered.pop() else { return false };
        let Some(member) = self.members.get(key) else { return true };
        let mut layers: BTreeMap<PublicationId, Vec<u8>> = BTreeMap::new();
        for section in &member.media.sections {
            let publication = &self.publications[section.publication];
            if let Some(published) = publication.published.filter(|_| publication.kind == Kind::Video) {
                layers.insert(published.id, publication.demand.kept(publication.layers.len()));
            }
        }
        let (participant, epoch) = (member.id, member.epoch);
        self.updates.push_back((member.room, Update::Layers { participant, epoch, layers }));
        true
    }
}
