//! Who speaks in each room, and what follows from that for those who cannot hear or see everybody.

use std::time::Instant;

use super::Worker;
use crate::control::Update;
use crate::id::RoomKey;
use crate::room::registry::{ParticipantKey, PublicationKey};
use crate::room::speaker::{Activity, STRETCH, Voice};
use crate::room::{Source, WantAudio};

/// Buffers that are used anew each time.
#[derive(Default)]
pub(super) struct Hearing {
    voices: Vec<(PublicationKey, Voice)>,
    rises: Vec<PublicationKey>,
}

impl Worker {
    /// Sound came from a publication that was silent: the room listens to it from now on.
    pub(super) fn listen(&mut self, now: Instant, room: RoomKey, publication: PublicationKey) {
        let Some(entry) = self.registry.room_mut(room) else { return };
        self.publications[publication].voice.listed = true;
        if !entry.voices.contains(&publication) {
            entry.voices.push(publication);
        }
        if !std::mem::replace(&mut entry.listens, true) {
            self.listening.schedule(room, now + STRETCH);
        }
    }

    /// The end of a stretch for all voices of a room.
    pub(super) fn hear_room(&mut self, now: Instant, room: RoomKey) {
        let Some(entry) = self.registry.room_mut(room) else { return };
        let mut hearing = std::mem::take(&mut self.hearing);
        hearing.voices.clear();
        hearing.rises.clear();
        let publications = &mut self.publications;
        let turns = &mut entry.turns;
        let mut fell = false;
        entry.voices.retain(|&key| {
            let Some(publication) = publications.get_mut(key) else { return false };
            let before = publication.voice.activity();
            let listed = publication.voice.handle_stretch() && publication.published.is_some();
            publication.voice.listed = listed;
            if publication.voice.activity() > before {
                *turns += 1;
                publication.voice.spoke = *turns;
                hearing.rises.push(key);
            }
            let heard = publication.voice.activity() != Activity::Silent;
            fell |= std::mem::replace(&mut publication.voice.heard, heard) && !heard;
            if publication.published.is_some_and(|published| published.source == Source::Microphone) {
                hearing.voices.push((key, publication.voice));
            }
            listed
        });
        entry.speakers.handle_stretch(&hearing.voices);
        if let Some(present) = entry.speakers.poll(now) {
            let owners = present.iter().filter_map(|key| self.publications.get(*key));
            let members = owners.filter_map(|publication| self.members.get(publication.owner));
            let mut speakers = Vec::new();
            for member in members {
                if !speakers.contains(&member.id) {
                    speakers.push(member.id);
                }
            }
            self.updates.push_back((room, Update::Speakers { speakers }));
        }
        entry.listens = !entry.voices.is_empty() || entry.speakers.is_pending();
        if entry.listens {
            self.listening.schedule(room, now + STRETCH);
        }
        for &key in &hearing.rises {
            self.take_turn(room, key);
        }
        if fell {
            // Who found no place may find that of whoever is silent now.
            hearing.voices.retain(|(_, voice)| voice.activity() != Activity::Silent);
            for (key, _) in &hearing.voices {
                self.offer_voice(room, *key);
            }
        }
        self.hearing = hearing;
    }

    /// Somebody began to be heard, or to speak: whoever does not hear or see him may want to now.
    fn take_turn(&mut self, room: RoomKey, key: PublicationKey) {
        let Some(publication) = self.publications.get(key) else { return };
        let (owner, speaks) = (publication.owner, publication.voice.activity() == Activity::Speaks);
        let Some(entry) = self.registry.room_mut(room) else { return };
        let camera = entry.cameras.iter().position(|camera| *camera == owner).filter(|_| speaks);
        if let Some(position) = camera.filter(|position| *position > 0) {
            entry.cameras[..=position].rotate_right(1);
            let people = entry.participants.len();
            for index in 0..people {
                let Some(viewer) = self.participant(room, index).filter(|viewer| *viewer != owner) else {
                    continue;
                };
                if self.misses_picture(viewer, owner) {
                    self.reassign(viewer, false);
                }
            }
        }
        self.offer_voice(room, key);
    }

    /// Offers a voice to all who do not hear it.
    fn offer_voice(&mut self, room: RoomKey, key: PublicationKey) {
        let Some(publication) = self.publications.get(key) else { return };
        let (owner, receivers) = (publication.owner, publication.routes.as_slice().len());
        let people = self.registry.room(room).map_or(0, |room| room.participants.len());
        if receivers + 1 >= people {
            return;
        }
        for index in 0..people {
            let Some(viewer) = self.participant(room, index).filter(|viewer| *viewer != owner) else {
                continue;
            };
            if self.misses_sound(viewer, key) {
                self.offer(viewer, key);
            }
        }
    }

    fn participant(&self, room: RoomKey, index: usize) -> Option<ParticipantKey> {
        self.registry.room(room)?.participants.get(index).copied()
    }

    /// Whether a receiver wants the cameras of those who spoke last, and has not this one.
    fn misses_picture(&self, viewer: ParticipantKey, owner: ParticipantKey) -> bool {
        let Some(member) = self.members.get(viewer) else { return false };
        member.media.want.video.is_some()
            && !member.media.slots.iter().filter_map(|slot| slot.decided()).any(|binding| {
                self.publications.get(binding.publication).is_some_and(|publication| {
                    publication.owner == owner
                        && publication.published.is_some_and(|published| published.source == Source::Camera)
                })
            })
    }

    fn misses_sound(&self, viewer: ParticipantKey, key: PublicationKey) -> bool {
        let Some(member) = self.members.get(viewer) else { return false };
        let id = self.publications.get(key).and_then(|publication| publication.published).map(|of| of.id);
        let wanted = match &member.media.want.audio {
            WantAudio::Loudest => true,
            WantAudio::Only(ids) => id.is_some_and(|id| ids.contains(&id)),
        };
        wanted && !member.media.slots.iter().filter_map(|slot| slot.decided()).any(|b| b.publication == key)
    }
}
