//! A room's roster: who is there, what they publish, and telling everyone.
//!
//! A room is driven by its task ([`super::rooms`]): it is told the time, owns every participant's session,
//! and waits for nobody. What it does on a `hello` stands in [`super::join`], on later messages in
//! [`super::track`], and how participants go in [`super::leave`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::{Command, Update};
use crate::id::{Epoch, ParticipantId, PublicationId, RoomKey, SessionId, TransportNumber};
use crate::observe::people::Present;
use crate::observe::reason::Reason;
use crate::room::{Have, Media, Publish, Want};

use super::carrier::{Carrier, Close};
use super::chat::History;
use super::deadlines::Deadlines;
use super::limit::Rate;
use super::message::{Acked, Layers, Participant as Listed, Publication, Restart, Speakers};
use super::message::{FromClient, FromServer, Incoming, Objection, Refuse, Resume, Resumed};
use super::rooms::{Event, Handle, Sessions, subject};
use super::roster::Roster;
use super::session::{Body, Session, Tokens};
use super::{Door, Negotiate};

/// Nothing authenticated arrived by UDP for this long: half of being away. Browsers that send nothing else
/// check their connection every 2.7 s (Chromium) to 6 s (Firefox), and one check may be lost.
pub const MEDIA_SILENT: Duration = Duration::from_secs(8);
/// Nothing arrived on the carrier for this long: the other half. The connection asks after 2 s.
pub const CARRIER_SILENT: Duration = Duration::from_secs(5);

/// One participant: the session, what is published, and the negotiation.
pub(super) struct Participant {
    pub(super) id: ParticipantId,
    pub(super) epoch: Epoch,
    pub(super) session: SessionId,
    pub(super) tokens: Tokens,
    /// Whether the newest token is known to have arrived.
    pub(super) confirmed: bool,
    pub(super) stream: Session,
    pub(super) carrier: Option<Carrier>,
    pub(super) life: Life,
    pub(super) away: bool,
    pub(super) name: String,
    pub(super) publications: Vec<Publish>,
    pub(super) want: Want,
    pub(super) have: Have,
    /// The number of the message that told the newest `have`, and its version, until that is acknowledged.
    pub(super) stated: Option<(u64, u64)>,
    /// `None` after the worker gave it up.
    pub(super) transport: Option<Transport>,
    /// The number of the present or last transport.
    pub(super) transport_number: TransportNumber,
    pub(super) offers: Rate,
    pub(super) chats: Rate,
    /// Its place in the metrics.
    pub(super) present: Present,
}

/// A peer connection's negotiation and what it agreed on.
pub(super) struct Transport {
    pub(super) negotiator: Box<dyn Negotiate>,
    pub(super) media: Media,
}

/// When the last signs of life came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// On carriers that are gone.
    pub(super) carrier: Instant,
    /// By UDP, before it fell silent.
    pub(super) media: Instant,
    /// UDP is not silent now.
    pub(super) media_flows: bool,
}

impl Participant {
    pub(super) fn listed(&self) -> Listed {
        Listed { id: self.id, name: self.name.clone(), away: self.away }
    }

    /// As the owner sees it; others do not see the section.
    pub(super) fn published(&self, publish: &Publish) -> Publication {
        Publication {
            id: publish.publication,
            participant: self.id,
            kind: publish.kind,
            source: publish.source,
            muted: publish.muted,
            mid: Some(publish.mid),
        }
    }

    pub(super) fn carrier_heard(&self) -> Instant {
        let present = self.carrier.as_ref().map(Carrier::last_heard);
        present.map_or(self.life.carrier, |heard| heard.max(self.life.carrier))
    }

    /// Says something now or, without a carrier, later. Returns its number.
    pub(super) fn say(&mut self, now: Instant, body: Body) -> Result<u64, Reason> {
        let s = self.stream.push(body)?;
        self.flush(now);
        Ok(s)
    }

    /// The client has everything up to `a`. Returns the version of the slots' state that it knows by that, once.
    fn acknowledged(&mut self, a: u64) -> Option<u64> {
        let (_, version) = self.stated.take_if(|(s, _)| *s <= a)?;
        Some(version)
    }

    /// Sends on the carrier what is to be sent. A client that does not read loses the carrier, not the session.
    pub(super) fn flush(&mut self, now: Instant) {
        // Whatever changes somebody has something to say to everybody, and so comes by here.
        self.present.update(self.publications.len(), self.carrier.as_ref().map(Carrier::kind));
        while let Some(text) = self.stream.poll_transmit(now) {
            let Some(carrier) = &self.carrier else { return };
            if !carrier.send(text) {
                carrier.close(Close::Slow);
                self.lose_carrier();
                return;
            }
        }
    }

    /// What belongs to the carrier is sent past the stream.
    pub(super) fn say_on_carrier(&self, message: &FromServer) {
        let text = serde_json::to_string(message).expect("messages are plain data");
        if let Some(carrier) = &self.carrier {
            // A full queue shows itself at the next numbered message.
            let _ = carrier.send(text);
        }
    }

    pub(super) fn lose_carrier(&mut self) {
        self.life.carrier = self.carrier_heard();
        self.carrier = None;
        self.stream.detach();
        self.present.update(self.publications.len(), None);
    }
}

/// The signaling half of a room; see the module.
pub(super) struct Room {
    pub(super) key: RoomKey,
    pub(super) door: Arc<Door>,
    /// Where sessions are found when they resume, and under which address.
    pub(super) directory: Arc<Sessions>,
    pub(super) handle: Handle,
    pub(super) participants: BTreeMap<ParticipantId, Participant>,
    pub(super) sessions: HashMap<SessionId, ParticipantId>,
    /// Whose carrier has which id; a carrier that was replaced is not here.
    pub(super) carriers: HashMap<u64, ParticipantId>,
    pub(super) roster: Roster,
    /// When each participant is to be looked at though nothing arrives.
    pub(super) deadlines: Deadlines,
    /// The highest publication id that was given.
    pub(super) last_publication: u32,
    /// To be removed when the present event is done.
    pub(super) doomed: Vec<(ParticipantId, Epoch, Reason)>,
    /// Departures that the worker could not take yet.
    pub(super) owed: Vec<(ParticipantId, Epoch, Reason)>,
    /// When the worker is asked again.
    pub(super) owed_at: Option<Instant>,
    /// Since when nobody is here.
    pub(super) empty_since: Option<Instant>,
    pub(super) chat: History,
}

impl Room {
    pub(super) fn new(door: Arc<Door>, directory: Arc<Sessions>, handle: Handle, now: Instant) -> Self {
        Self {
            key: handle.key,
            door,
            directory,
            handle,
            participants: BTreeMap::new(),
            sessions: HashMap::new(),
            carriers: HashMap::new(),
            roster: Roster::default(),
            deadlines: Deadlines::default(),
            last_publication: 0,
            doomed: Vec::new(),
            owed: Vec::new(),
            owed_at: None,
            empty_since: Some(now),
            chat: History::default(),
        }
    }

    /// Something happened. A panic in here concerns [`Self::culprit`] alone.
    pub(super) fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Enter(enter) => self.handle_enter(now, *enter),
            Event::Resume { resume, carrier } => self.handle_resume(now, &resume, carrier),
            Event::Message { carrier, incoming } => self.handle_message(now, carrier, incoming),
            Event::Lost { carrier, clean } => self.handle_lost(now, carrier, clean),
            Event::Stop { reason } => self.handle_stop(now, reason),
        }
        self.remove_doomed(now);
    }

    /// Who is to be removed if handling this event panics.
    pub(super) fn culprit(&self, event: &Event) -> Option<ParticipantId> {
        match event {
            Event::Enter(_) | Event::Stop { .. } => None,
            Event::Resume { resume, .. } => self.sessions.get(&resume.session).copied(),
            Event::Message { carrier, .. } | Event::Lost { carrier, .. } => {
                self.carriers.get(carrier).copied()
            }
        }
    }

    fn handle_resume(&mut self, now: Instant, resume: &Resume, carrier: Carrier) {
        let known = self.sessions.get(&resume.session).and_then(|id| self.participants.get_mut(id));
        let Some(participant) = known else {
            refuse(&self.door, &carrier, session_unknown());
            return;
        };
        if !participant.tokens.rotate(&resume.token) {
            let hint = "Neither the newest token nor the one before it. Say hello.";
            refuse(&self.door, &carrier, Objection::new(Reason::ResumeToken, hint));
            return;
        }
        if let Some(old) = &participant.carrier {
            old.close(Close::Replaced);
            self.carriers.remove(&old.id());
        }
        participant.lose_carrier();
        self.carriers.insert(carrier.id(), participant.id);
        participant.carrier = Some(carrier);
        participant.confirmed = false;
        participant.stream.attach(resume.a);
        let seen = participant.acknowledged(resume.a);
        let (id, epoch) = (participant.id, participant.epoch);
        let token = participant.tokens.current().to_owned();
        participant
            .say_on_carrier(&FromServer::Resumed(Resumed { resume: token, a: participant.stream.seen() }));
        if participant.stream.snapshot_due() {
            self.say_snapshot(now, id);
        } else {
            participant.flush(now);
        }
        self.command_seen(id, epoch, seen);
        self.notice_life(now, id);
        self.schedule(now, id);
    }

    /// What was pending in the slots may begin. Should the worker miss it, it goes on by itself a little later.
    fn command_seen(&self, participant: ParticipantId, epoch: Epoch, seen: Option<u64>) {
        if let Some(version) = seen {
            let _ = self.command(Command::Seen { participant, epoch, version });
        }
    }

    fn say_snapshot(&mut self, now: Instant, id: ParticipantId) {
        let snapshot = self.snapshot(id);
        self.say(now, id, &FromServer::Snapshot(Box::new(snapshot)));
    }

    fn handle_message(&mut self, now: Instant, carrier: u64, incoming: Incoming) {
        let Some(&id) = self.carriers.get(&carrier) else { return };
        let Some(participant) = self.participants.get_mut(&id) else { return };
        participant.life.carrier = participant.life.carrier.max(now);
        if !participant.confirmed {
            participant.confirmed = true;
            participant.tokens.confirm();
        }
        let fresh = participant.stream.handle_envelope(now, incoming.s, incoming.a);
        let (seen, epoch) = (participant.acknowledged(incoming.a), participant.epoch);
        self.command_seen(id, epoch, seen);
        if fresh && let Err(objection) = self.obey(now, id, incoming.s, incoming.body) {
            self.object(now, id, incoming.s, objection);
        }
        self.notice_life(now, id);
        if let Some(participant) = self.participants.get_mut(&id) {
            participant.flush(now);
        }
        self.schedule(now, id);
    }

    fn obey(
        &mut self,
        now: Instant,
        id: ParticipantId,
        s: Option<u64>,
        body: Result<Option<FromClient>, Objection>,
    ) -> Result<(), Objection> {
        let Some(message) = body? else { return Ok(()) };
        match message {
            FromClient::Hello(_) | FromClient::Resume(_) | FromClient::Poll(_) => {
                Err(Objection::new(Reason::WrongState, "Only as the first message of a carrier."))
            }
            FromClient::Ack(_) => Ok(()),
            FromClient::Ping(_) => {
                if let Some(participant) = self.participants.get(&id) {
                    participant.say_on_carrier(&FromServer::Pong(Acked { a: participant.stream.seen() }));
                }
                Ok(())
            }
            FromClient::Bye(_) => {
                self.remove(now, id, Reason::Bye);
                Ok(())
            }
            FromClient::Offer(offer) => self.handle_offer(now, id, s, offer),
            FromClient::Publish(message) => self.handle_publish(now, id, &message.publish),
            FromClient::Unpublish(message) => self.handle_unpublish(now, id, message.publication),
            FromClient::Mute(message) => self.handle_mute(now, id, message),
            FromClient::Want(want) => self.handle_want(id, want),
            FromClient::Chat(chat) => self.handle_chat(now, id, chat),
            FromClient::Typing(typing) => self.handle_typing(id, typing),
            FromClient::Stall(stall) => self.handle_stall(id, stall),
            FromClient::Who(who) => self.handle_who(now, id, who),
            FromClient::Name(message) => self.handle_name(now, id, &message.name),
        }
    }

    /// What the worker reports.
    pub(super) fn handle_update(&mut self, now: Instant, update: Update) {
        let Some((id, epoch)) = subject(&update) else {
            self.handle_room_update(now, update);
            return;
        };
        let Some(participant) = self.participants.get_mut(&id).filter(|p| p.epoch == epoch) else { return };
        match update {
            Update::Connected { .. } => participant.life.media_flows = true,
            Update::Have { have, version, .. } => {
                participant.have = have.clone();
                let said = self.say(now, id, &FromServer::Have(have));
                if let Some(participant) = self.participants.get_mut(&id) {
                    participant.stated = said.map(|s| (s, version));
                }
            }
            Update::Layers { layers, .. } => {
                self.say(now, id, &FromServer::Layers(Layers { publications: layers }));
            }
            Update::Speakers { .. } => {}
            Update::Heard { silent, since_ms, .. } => {
                participant.life.media_flows = !silent;
                let since = Duration::from_millis(since_ms.min(3_600_000));
                let heard = now.checked_sub(since).unwrap_or(now);
                participant.life.media = participant.life.media.max(heard);
            }
            // A transport that was replaced meanwhile concerns nobody.
            Update::Closed { transport, .. } if transport != participant.transport_number => {}
            Update::Closed { reason, .. } => {
                // Without a connection that could be told, the client's next sign of life finds this event.
                participant.transport = None;
                participant.stated = None;
                participant.have = Have {
                    n: participant.want.n,
                    transport: participant.transport_number,
                    slots: Vec::new(),
                };
                if participant.life.media_flows {
                    participant.life.media_flows = false;
                    participant.life.media = now;
                }
                self.say(now, id, &FromServer::Restart(Restart { reason }));
            }
        }
        self.notice_life(now, id);
        self.schedule(now, id);
        self.remove_doomed(now);
    }

    /// What the worker reports of nobody in particular.
    fn handle_room_update(&mut self, now: Instant, update: Update) {
        if let Update::Speakers { speakers } = update {
            let body = Body::new(&FromServer::Speakers(Speakers { speakers }));
            for participant in self.participants.values_mut() {
                if let Err(reason) = participant.say(now, body.clone()) {
                    self.doomed.push((participant.id, participant.epoch, reason));
                }
            }
            self.remove_doomed(now);
        }
    }

    /// To one participant, as part of the stream. Returns the message's number.
    pub(super) fn say(&mut self, now: Instant, id: ParticipantId, message: &FromServer) -> Option<u64> {
        let participant = self.participants.get_mut(&id)?;
        let said = participant.say(now, Body::new(message));
        said.map_err(|reason| self.doomed.push((id, participant.epoch, reason))).ok()
    }

    fn object(&mut self, now: Instant, id: ParticipantId, s: Option<u64>, objection: Objection) {
        self.door.refused.count(objection.reason);
        self.say(now, id, &objection.error(s));
    }

    /// Tells the worker. What it cannot take is counted; [`Self::retry_owed`] repeats departures.
    pub(super) fn command(&self, command: Command) -> Result<(), Objection> {
        self.door.workers.command(self.key, command).map_err(|reason| {
            self.door.refused.count(reason);
            Objection::new(reason, "The media worker cannot take it now.").retry(1000)
        })
    }

    pub(super) fn next_publication(&mut self) -> Result<PublicationId, Objection> {
        let next = self.last_publication.checked_add(1);
        self.last_publication = next.ok_or_else(|| {
            Objection::new(Reason::TooManyPublications, "The room has used up its publication ids.")
        })?;
        Ok(PublicationId(self.last_publication))
    }
}

/// Answers a first message that is not accepted, and ends its carrier.
pub(super) fn refuse(door: &Door, carrier: &Carrier, objection: Objection) {
    door.refused.count(objection.reason);
    tracing::info!(reason = objection.reason.as_str(), "refused");
    let refusal: FromServer = FromServer::Refuse(Refuse {
        reason: objection.reason,
        hint: objection.hint,
        retry_ms: objection.retry_ms,
    });
    let _ = carrier.send(serde_json::to_string(&refusal).expect("messages are plain data"));
    carrier.close(Close::Refused);
}

pub(super) fn session_unknown() -> Objection {
    Objection::new(Reason::UnknownSession, "It ended, or never was. Say hello.")
}
