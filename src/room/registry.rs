//! The rooms of one worker and who is in them.

use std::collections::HashMap;

use slotmap::new_key_type;

use crate::id::{Epoch, ParticipantId, PublicationId, RoomKey};
use crate::room::speaker::Speakers;

new_key_type! {
    /// A participant on this worker; never names another one, even after he left.
    pub struct ParticipantKey;
    /// A sending section on this worker.
    pub struct PublicationKey;
}

/// One room's members and what they publish, in order of arrival.
#[derive(Debug, Default)]
pub struct Room {
    pub participants: Vec<ParticipantKey>,
    pub publications: Vec<PublicationKey>,
    /// Those with a camera: who spoke last comes first, who never did in order of arrival.
    pub cameras: Vec<ParticipantKey>,
    /// Publications of sound whose levels are looked at.
    pub voices: Vec<PublicationKey>,
    pub speakers: Speakers<PublicationKey>,
    /// How often somebody's turn to speak began.
    pub turns: u64,
    /// A look at the voices is planned.
    pub listens: bool,
}

/// Finds participants by the ids that the room's task uses. Not on the packet path.
#[derive(Debug, Default)]
pub struct Registry {
    rooms: HashMap<RoomKey, Room>,
    by_id: HashMap<ParticipantId, (ParticipantKey, Epoch)>,
}

impl Registry {
    /// Enters a participant.
    pub fn enter(&mut self, room: RoomKey, id: ParticipantId, epoch: Epoch, key: ParticipantKey) {
        self.rooms.entry(room).or_default().participants.push(key);
        self.by_id.insert(id, (key, epoch));
    }

    /// Somebody who is in a room already is again the one whom this id means.
    pub fn reinstate(&mut self, id: ParticipantId, epoch: Epoch, key: ParticipantKey) {
        self.by_id.insert(id, (key, epoch));
    }

    /// Removes a participant; a room without any is forgotten.
    pub fn leave(&mut self, room: RoomKey, id: ParticipantId, key: ParticipantKey) {
        if self.by_id.get(&id).is_some_and(|(known, _)| *known == key) {
            self.by_id.remove(&id);
        }
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.participants.retain(|other| *other != key);
            if entry.participants.is_empty() && entry.publications.is_empty() {
                self.rooms.remove(&room);
            }
        }
    }

    /// The participant of exactly this epoch.
    #[must_use]
    pub fn find(&self, id: ParticipantId, epoch: Epoch) -> Option<ParticipantKey> {
        self.by_id.get(&id).filter(|(_, present)| *present == epoch).map(|(key, _)| *key)
    }

    /// Whoever has this id now.
    #[must_use]
    pub fn present(&self, id: ParticipantId) -> Option<(ParticipantKey, Epoch)> {
        self.by_id.get(&id).copied()
    }

    #[must_use]
    pub fn room(&self, room: RoomKey) -> Option<&Room> {
        self.rooms.get(&room)
    }

    pub fn room_mut(&mut self, room: RoomKey) -> Option<&mut Room> {
        self.rooms.get_mut(&room)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

/// The publication that a participant means by an id; ids are only ever looked up among few.
pub type PublicationIds = Vec<(PublicationId, PublicationKey)>;
