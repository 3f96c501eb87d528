//! What a participant says after joining: publications, wishes, offers, the name.

use std::time::{Duration, Instant};

use crate::control::{Command, Join};
use crate::id::{Epoch, ParticipantId, PublicationId, TransportNumber};
use crate::observe::reason::Reason;
use crate::room::{Publish, Want};

use super::join::{check_count, check_name, check_sections, negotiate};
use super::message::{Answer, FromServer, Mute, Objection, Offer, PublishItem, RoomDelta, Stall, Who};
use super::negotiate::Answered;
use super::room::{Participant, Room, Transport};
use super::rooms::worker_of;

/// In which offers are counted.
pub(super) const OFFER_WINDOW: Duration = Duration::from_secs(10);

impl Room {
    pub(super) fn handle_publish(
        &mut self,
        now: Instant,
        id: ParticipantId,
        items: &[PublishItem],
    ) -> Result<(), Objection> {
        let count = self.participant(id)?.publications.len() + items.len();
        check_count(count, &self.door.settings)?;
        let participant = self.participant(id)?;
        let Some(transport) = &participant.transport else {
            return Err(Objection::new(Reason::WrongState, "The transport is gone: offer a new one first."));
        };
        check_sections(&transport.media, &participant.publications, items)?;
        if items.is_empty() {
            return Ok(());
        }
        let epoch = participant.epoch;
        let mut published = Vec::new();
        for publish in self.number(items)? {
            self.command(Command::Publish { participant: id, epoch, publish })?;
            let participant = self.participant(id)?;
            participant.publications.push(publish);
            published.push(participant.published(&publish));
        }
        self.announce(now, RoomDelta { published, ..RoomDelta::default() }, None);
        Ok(())
    }

    pub(super) fn handle_unpublish(
        &mut self,
        now: Instant,
        id: ParticipantId,
        publication: PublicationId,
    ) -> Result<(), Objection> {
        let (epoch, _) = self.own(id, publication)?;
        self.command(Command::Unpublish { participant: id, epoch, publication })?;
        let participant = self.participant(id)?;
        participant.publications.retain(|publish| publish.publication != publication);
        self.announce(now, RoomDelta { unpublished: vec![publication], ..RoomDelta::default() }, None);
        self.notice_unpublished(id);
        Ok(())
    }

    pub(super) fn handle_mute(
        &mut self,
        now: Instant,
        id: ParticipantId,
        mute: Mute,
    ) -> Result<(), Objection> {
        let Mute { publication, muted } = mute;
        let (epoch, publish) = self.own(id, publication)?;
        if publish.muted == muted {
            return Ok(());
        }
        self.command(Command::Mute { participant: id, epoch, publication, muted })?;
        let participant = self.participant(id)?;
        let entries = participant.publications.iter_mut().filter(|p| p.publication == publication);
        entries.for_each(|publish| publish.muted = muted);
        let published = vec![participant.published(&Publish { muted, ..publish })];
        self.announce(now, RoomDelta { published, ..RoomDelta::default() }, None);
        Ok(())
    }

    pub(super) fn handle_want(&mut self, id: ParticipantId, want: Want) -> Result<(), Objection> {
        let participant = self.participant(id)?;
        participant.want = want.clone();
        let epoch = participant.epoch;
        self.command(Command::Want { participant: id, epoch, want })
    }

    pub(super) fn handle_stall(&mut self, id: ParticipantId, stall: Stall) -> Result<(), Objection> {
        let epoch = self.participant(id)?.epoch;
        self.command(Command::Stall { participant: id, epoch, slot: stall.slot })
    }

    pub(super) fn handle_who(&mut self, now: Instant, id: ParticipantId, who: Who) -> Result<(), Objection> {
        self.participant(id)?;
        let page = self.page(who.after);
        self.say(now, id, &FromServer::Who(page));
        Ok(())
    }

    pub(super) fn handle_name(
        &mut self,
        now: Instant,
        id: ParticipantId,
        name: &str,
    ) -> Result<(), Objection> {
        check_name(name)?;
        let participant = self.participant(id)?;
        if participant.name != name {
            participant.name = name.to_owned();
            let changed = self.changed(id);
            self.announce(now, RoomDelta { changed, ..RoomDelta::default() }, None);
        }
        Ok(())
    }

    pub(super) fn handle_offer(
        &mut self,
        now: Instant,
        id: ParticipantId,
        s: Option<u64>,
        offer: Offer,
    ) -> Result<(), Objection> {
        let limit = self.door.settings.offers_per_10s;
        let participant = self.participant(id)?;
        participant.count_offer(limit)?;
        let present = participant.transport_number;
        if participant.transport.is_some() && offer.transport == present {
            self.renegotiate(now, id, offer.transport, &offer.sdp)?;
            // The answer has been given; what cannot be published is objected to by itself.
            if let Err(objection) = self.handle_publish(now, id, &offer.publish) {
                self.door.refused.count(objection.reason);
                self.say(now, id, &objection.error(s));
            }
            Ok(())
        } else if offer.transport > present {
            self.replace_transport(now, id, offer)
        } else {
            let hint = "The present transport's number, or a higher one for another connection.";
            Err(Objection::new(Reason::WrongState, hint))
        }
    }

    /// An ICE restart, or more sections.
    fn renegotiate(
        &mut self,
        now: Instant,
        id: ParticipantId,
        number: TransportNumber,
        sdp: &str,
    ) -> Result<(), Objection> {
        let participant = self.participant(id)?;
        let epoch = participant.epoch;
        let Some(transport) = &mut participant.transport else { return Ok(()) };
        let answered = transport
            .negotiator
            .answer(sdp)
            .map_err(|refusal| Objection::new(refusal.reason, refusal.hint))?;
        let Answered { sdp, media, remote, restart } = answered;
        let grown = transport.media != media;
        transport.media = media.clone();
        if grown {
            let media = Box::new(media);
            self.command(Command::Sections { participant: id, epoch, transport: number, media })?;
        }
        if restart {
            let remote = remote.credentials;
            self.command(Command::Restart { participant: id, epoch, transport: number, remote })?;
        }
        self.say(now, id, &FromServer::Answer(Answer { transport: number, sdp }));
        Ok(())
    }

    /// Another transport takes the place of the last one, which the worker gave up or which is kept until this one is
    /// connected. Publications of the same kind and source keep their ids, so that nobody's picture jumps.
    fn replace_transport(&mut self, now: Instant, id: ParticipantId, offer: Offer) -> Result<(), Objection> {
        check_count(offer.publish.len(), &self.door.settings)?;
        let (negotiator, answered) = negotiate(&self.door, worker_of(self.key), &offer.sdp)?;
        check_sections(&answered.media, &[], &offer.publish)?;
        let participant = self.participant(id)?;
        let mut before = participant.publications.clone();
        let mut publications = Vec::new();
        for item in &offer.publish {
            let same = before.iter().position(|p| p.kind == item.kind && p.source == item.source);
            let publication = match same {
                Some(index) => before.swap_remove(index).publication,
                None => self.next_publication()?,
            };
            let &PublishItem { mid, kind, source, muted } = item;
            publications.push(Publish { publication, mid, kind, source, muted });
        }
        let room = self.key;
        let participant = self.participant(id)?;
        let join = Join {
            room,
            participant: id,
            epoch: participant.epoch,
            transport: offer.transport,
            local: negotiator.local().clone(),
            remote: answered.remote,
            media: answered.media.clone(),
            publish: publications.clone(),
            want: participant.want.clone(),
        };
        self.command(Command::Join(Box::new(join)))?;
        let participant = self.participant(id)?;
        participant.transport = Some(Transport { negotiator, media: answered.media });
        participant.transport_number = offer.transport;
        participant.publications = publications;
        let published = participant.publications.iter().map(|p| participant.published(p)).collect();
        let unpublished: Vec<_> = before.iter().map(|publish| publish.publication).collect();
        let answer = Answer { transport: offer.transport, sdp: answered.sdp };
        self.say(now, id, &FromServer::Answer(answer));
        let delta = RoomDelta { published, unpublished, ..RoomDelta::default() };
        if !delta.published.is_empty() || !delta.unpublished.is_empty() {
            self.announce(now, delta, None);
        }
        Ok(())
    }

    /// Whoever said the message may have been removed by it.
    fn participant(&mut self, id: ParticipantId) -> Result<&mut Participant, Objection> {
        let known = self.participants.get_mut(&id);
        known.ok_or_else(|| Objection::new(Reason::UnknownSession, "The session ended."))
    }

    fn own(&mut self, id: ParticipantId, publication: PublicationId) -> Result<(Epoch, Publish), Objection> {
        let participant = self.participant(id)?;
        let own = participant.publications.iter().find(|publish| publish.publication == publication);
        own.map(|publish| (participant.epoch, *publish))
            .ok_or_else(|| Objection::new(Reason::UnknownPublication, "It does not exist or is not yours."))
    }
}

impl Participant {
    /// An offer costs a few milliseconds; a client that needs more of them has a fault.
    fn count_offer(&mut self, limit: u32) -> Result<(), Objection> {
        self.offers.pay(1).map_err(|wait| {
            let hint = format!("At most {limit} offers in 10 s.");
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            Objection::new(Reason::RateLimited, hint).retry(wait.saturating_add(1))
        })
    }
}
