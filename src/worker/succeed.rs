//! A participant's second connection takes the place of the first without a gap: make before break.
//!
//! While the second connects, the first carries everything. Once it stands, what the first published comes from the
//! second, in the same slots of the same viewers; the first goes on receiving until its client closes it.

use std::time::{Duration, Instant};

use super::Worker;
use crate::room::registry::{ParticipantKey, PublicationKey};

/// How long the first connection is kept once the second carries everything. Higher costs bandwidth towards clients that
/// forget to close it, lower may end it before the second has shown its first picture.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// The second connection has failed or stands before that.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

impl Worker {
    /// The client begins another connection in the same session. Returns the one that carries everything meanwhile: there
    /// are never more than two.
    pub(super) fn retire(&mut self, now: Instant, key: ParticipantKey) -> Option<ParticipantKey> {
        let member = &mut self.members[key];
        let before = member.predecessor.take();
        if !member.secured {
            // It never carried anything; whatever was there before it still does.
            self.remove(key);
            return before;
        }
        member.retires = Some(now + SETTLED_WITHIN);
        self.wake_at(key, now + SETTLED_WITHIN);
        if let Some(before) = before {
            self.remove(before);
        }
        Some(key)
    }

    /// The connection stands: what its predecessor published comes from here now.
    pub(super) fn succeed(&mut self, now: Instant, key: ParticipantKey) {
        let Some(predecessor) = self.members[key].predecessor else { return };
        for publish in std::mem::take(&mut self.members[key].held) {
            self.publish(key, publish);
            let id = publish.publication;
            if let (Some(old), Some(new)) =
                (self.publication_of(predecessor, id), self.publication_of(key, id))
            {
                self.rehome(old, new);
            }
        }
        let sections = &self.members[predecessor].media.sections;
        let publications: Vec<_> = sections.iter().map(|section| section.publication).collect();
        for &publication in &publications {
            // What the second does not publish any more has ended.
            self.withdraw(publication);
            self.publications[publication].set_published(None);
        }
        self.members[predecessor].retires = Some(now + KEPT_FOR);
        self.wake_at(predecessor, now + KEPT_FOR);
        let room = self.members[key].room;
        if let Some(room) = self.registry.room_mut(room) {
            room.publications.retain(|publication| !publications.contains(publication));
            // He spoke when he spoke, over whichever connection.
            let place = room.cameras.iter().position(|camera| *camera == predecessor);
            if let (Some(place), true) = (place, room.cameras.contains(&key)) {
                // The second connection's camera is the last to have come.
                room.cameras.pop_if(|camera| *camera == key);
                room.cameras[place] = key;
            }
            room.cameras.retain(|camera| *camera != predecessor);
        }
    }

    /// The second connection failed before it carried anything: the first goes on.
    pub(super) fn reinstate(&mut self, key: ParticipantKey) {
        let Some(member) = self.members.get_mut(key) else { return };
        member.retires = None;
        self.registry.reinstate(member.id, member.epoch, key);
        self.have_changed(key);
    }

    /// A connection is gone. If another was about to take its place, that one publishes at once.
    pub(super) fn orphan(&mut self, gone: ParticipantKey, successor: ParticipantKey) {
        let Some(member) = self.members.get_mut(successor).filter(|member| member.predecessor == Some(gone))
        else {
            return;
        };
        member.predecessor = None;
        for publish in std::mem::take(&mut member.held) {
            self.publish(successor, publish);
        }
    }

    /// Every viewer's slot keeps its place and its name; the next picture begins a new stretch of numbers.
    fn rehome(&mut self, old: PublicationKey, new: PublicationKey) {
        for route in self.publications[old].routes.as_slice().to_vec() {
            self.publications[old].routes.remove(route);
            if let Some(member) = self.members.get_mut(route.receiver) {
                member.media.slots[usize::from(route.slot)].rehome(old, new);
                self.publications[new].routes.add(route);
                self.reassign(route.receiver, false);
            }
        }
        let mut voice = self.publications[old].voice;
        voice.listed = false;
        self.publications[new].voice = voice;
    }
}
