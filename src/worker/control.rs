//! Stage 4: the commands of the signaling half.

use std::time::Instant;

use rand::RngExt as _;

use super::Worker;
use super::member::{Agenda, Due, Member, Seals};
use super::progress::Progress;
use crate::control::{Command, Join, Update};
use crate::id::{PublicationId, Ssrc};
use crate::observe::reason::Reason;
use crate::room::participant::Participant;
use crate::room::publication::{Publication, Published};
use crate::room::registry::{ParticipantKey, PublicationKey};
use crate::room::route::Route;
use crate::room::{Media, Publish, Source};
use crate::transport::Transport;

impl Worker {
    pub(super) fn control(&mut self, now: Instant, command: Command) {
        match command {
            Command::Join(join) => self.join(now, *join),
            Command::Restart { participant, epoch, transport, remote } => {
                if let Some(member) = self.registry.find(participant, epoch).map(|key| &mut self.members[key])
                    && member.number == transport
                {
                    member.transport.restart(&remote);
                }
            }
            Command::Sections { participant, epoch, transport, media } => {
                if let Some(key) = self.registry.find(participant, epoch)
                    && self.members[key].number == transport
                {
                    self.add_sections(key, &media);
                    self.reassign(key, true);
                }
            }
            Command::Publish { participant, epoch, publish } => {
                if let Some(key) = self.registry.find(participant, epoch) {
                    self.publish(key, publish);
                }
            }
            Command::Unpublish { participant, epoch, publication } => {
                if let Some(key) = self.registry.find(participant, epoch) {
                    self.unpublish(key, publication);
                }
            }
            Command::Mute { participant, epoch, publication, muted } => {
                if let Some(key) = self.registry.find(participant, epoch) {
                    self.mute(key, publication, muted);
                }
            }
            Command::Want { participant, epoch, want } => {
                if let Some(key) = self.registry.find(participant, epoch) {
                    self.members[key].media.want = want;
                    self.reassign(key, true);
                }
            }
            Command::Seen { participant, epoch, version } => {
                if let Some(key) = self.registry.find(participant, epoch) {
                    self.seen(now, key, version);
                }
            }
            Command::Stall { participant, epoch, slot } => {
                if let Some(key) = self.registry.find(participant, epoch) {
                    self.stall(now, key, slot);
                }
            }
            Command::Away { participant, epoch, away } => {
                if let Some(key) = self.registry.find(participant, epoch) {
                    if let Some(former) = self.members[key].predecessor {
                        self.set_away(former, away);
                    }
                    self.set_away(key, away);
                }
            }
            Command::Leave { participant, epoch, reason } => {
                if let Some(key) = self.registry.find(participant, epoch) {
                    self.drop_for(reason);
                    self.remove(key);
                }
            }
        }
    }

    fn join(&mut self, now: Instant, join: Join) {
        let mut predecessor = None;
        if let Some((key, epoch)) = self.registry.present(join.participant) {
            if epoch > join.epoch || (epoch == join.epoch && self.members[key].number >= join.transport) {
                return;
            }
            if epoch == join.epoch {
                predecessor = self.retire(now, key);
            } else {
                self.drop_for(Reason::Replaced);
                self.remove(key);
            }
        }
        let transport = Transport::new(&self.certificate, &join.local, &join.remote, now);
        let media = Participant::new(&join.media, join.want);
        let key = self.members.insert_with_key(|key| Member {
            id: join.participant,
            epoch: join.epoch,
            room: join.room,
            number: join.transport,
            transport,
            seals: media.slots.iter().map(Seals::new).collect(),
            media,
            tag: slotmap::Key::data(&key).as_ffi() as u32,
            gso: self.settings.gso,
            ssrc: Ssrc(rand::rng().random()),
            secured: false,
            silent: false,
            joined: now,
            progress: Progress::new(now),
            wake: now,
            due: Due { reports: now, feedback: now },
            predecessor,
            held: Vec::new(),
            retires: None,
            version: 0,
            agenda: Agenda::default(),
            fault: None,
        });
        self.demux.insert(&join.local.ufrag, key);
        self.registry.enter(join.room, join.participant, join.epoch, key);
        self.wheel.schedule(key, now);
        self.add_sections(key, &join.media);
        if predecessor.is_some() {
            self.members[key].held = join.publish;
        } else {
            join.publish.into_iter().for_each(|publish| self.publish(key, publish));
        }
        self.reassign(key, true);
    }

    /// Adds the sections of an offer that are not known yet.
    fn add_sections(&mut self, key: ParticipantKey, media: &Media) {
        let member = &mut self.members[key];
        for section in &media.sending {
            if member.media.section(section.mid).is_none() {
                let publication = self.publications.insert(Publication::new(key, section));
                member.media.add_section(section.clone(), publication);
            }
        }
        member.media.add_slots(&media.slots);
        let known = member.seals.len();
        member.seals.extend(member.media.slots[known..].iter().map(Seals::new));
    }

    pub(super) fn publish(&mut self, key: ParticipantKey, publish: Publish) {
        let member = &mut self.members[key];
        if member.predecessor.is_some() && !member.secured {
            return member.held.push(publish);
        }
        let Some(section) = member.media.section(publish.mid) else { return };
        let publication_key = section.publication;
        if section.section.kind != publish.kind {
            return;
        }
        let room = member.room;
        let published = Published { id: publish.publication, source: publish.source, muted: publish.muted };
        if let Some(present) = self.publications[publication_key].published
            && present.id == published.id
        {
            if present.muted != published.muted {
                self.mute(key, published.id, published.muted);
            }
            return;
        }
        // Whatever was on the section before has ended.
        self.withdraw(publication_key);
        self.publications[publication_key].set_published(Some(published));
        self.demand_changed(publication_key);
        if let Some(entry) = self.registry.room_mut(room) {
            if !entry.publications.contains(&publication_key) {
                entry.publications.push(publication_key);
            }
            if publish.source == Source::Camera && !entry.cameras.contains(&key) {
                entry.cameras.push(key);
            }
        }
        if !self.members[key].media.away {
            self.offer_to_room(room, publication_key);
        }
    }

    pub(super) fn unpublish(&mut self, key: ParticipantKey, id: PublicationId) {
        if let Some(predecessor) = self.members[key].predecessor {
            self.members[key].held.retain(|held| held.publication != id);
            self.unpublish(predecessor, id);
        }
        let Some(publication) = self.publication_of(key, id) else { return };
        let room = self.members[key].room;
        self.withdraw(publication);
        self.publications[publication].set_published(None);
        let films = self.films(key);
        if let Some(room) = self.registry.room_mut(room) {
            room.publications.retain(|other| *other != publication);
            room.cameras.retain(|other| *other != key || films);
        }
    }

    /// Whether somebody publishes a camera.
    fn films(&self, key: ParticipantKey) -> bool {
        self.members[key].media.sections.iter().any(|section| {
            let published = self.publications[section.publication].published;
            published.is_some_and(|published| published.source == Source::Camera)
        })
    }

    /// Who is away keeps the place in the room, and nobody's slots.
    fn set_away(&mut self, key: ParticipantKey, away: bool) {
        let member = &mut self.members[key];
        if std::mem::replace(&mut member.media.away, away) == away {
            return;
        }
        let room = member.room;
        let own: Vec<_> = member.media.sections.iter().map(|section| section.publication).collect();
        for publication in own {
            self.publications[publication].voice.silence();
            if away {
                self.withdraw(publication);
            } else if self.publications[publication].published.is_some() {
                self.offer_to_room(room, publication);
            }
        }
    }

    fn mute(&mut self, key: ParticipantKey, id: PublicationId, muted: bool) {
        let member = &mut self.members[key];
        member.held.iter_mut().filter(|held| held.publication == id).for_each(|held| held.muted = muted);
        if let Some(predecessor) = member.predecessor {
            self.mute(predecessor, id, muted);
        }
        let Some(publication) = self.publication_of(key, id) else { return };
        let entry = &mut self.publications[publication];
        entry.set_muted(muted);
        // Whatever is sent after an interruption begins a new stretch of numbers, with a keyframe.
        for route in entry.routes.as_slice() {
            if let Some(member) = self.members.get_mut(route.receiver) {
                member.media.slots[usize::from(route.slot)].interrupt(publication);
            }
        }
    }

    pub(super) fn publication_of(&self, key: ParticipantKey, id: PublicationId) -> Option<PublicationKey> {
        let sections = &self.members[key].media.sections;
        sections.iter().map(|section| section.publication).find(|&publication| {
            self.publications[publication].published.is_some_and(|published| published.id == id)
        })
    }

    /// The worker's own decision: the transport failed, or handling the participant panicked.
    pub(super) fn give_up(&mut self, key: ParticipantKey, reason: Reason) {
        let Some(member) = self.members.get(key) else { return };
        if member.retires.is_none() {
            let (participant, epoch, transport) = (member.id, member.epoch, member.number);
            self.updates.push_back((member.room, Update::Closed { participant, epoch, transport, reason }));
        }
        self.drop_for(reason);
        let member = &mut self.members[key];
        let first = member.predecessor.take_if(|_| !member.secured);
        self.remove(key);
        if let Some(first) = first {
            self.reinstate(first);
        }
    }

    /// Forgets a participant and everything that it published or received.
    pub(super) fn remove(&mut self, key: ParticipantKey) {
        let Some(member) = self.members.remove(key) else { return };
        if let Some(predecessor) = member.predecessor {
            self.remove(predecessor);
        }
        self.demux.remove(key);
        self.wheel.cancel(key);
        for (index, slot) in member.media.slots.iter().enumerate() {
            let route = Route { receiver: key, slot: index as u16 };
            for binding in [slot.binding, slot.next].into_iter().flatten() {
                if let Some(publication) = self.publications.get_mut(binding.publication) {
                    publication.routes.remove(route);
                }
                self.demand_changed(binding.publication);
            }
        }
        if let Some(room) = self.registry.room_mut(member.room) {
            room.publications.retain(|publication| {
                member.media.sections.iter().all(|own| own.publication != *publication)
            });
            room.cameras.retain(|other| *other != key);
        }
        self.registry.leave(member.room, member.id, key);
        for section in &member.media.sections {
            self.withdraw(section.publication);
            self.publications.remove(section.publication);
        }
        if let Some((successor, _)) = self.registry.present(member.id) {
            self.orphan(key, successor);
        }
    }
}
