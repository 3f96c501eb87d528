//! `hello` → `welcome` in one round trip.
//!
//! What concerns the newcomer alone (reading the message, answering the offer) happens in the connection's own
//! task; then the room takes the snapshot and enters the newcomer in one step.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::control::{Command, Join};
use crate::id::{Epoch, ParticipantId, RoomId, SessionId, TransportNumber};
use crate::observe::people::Present;
use crate::observe::reason::Reason;
use crate::room::{Have, Media, Publish, Want};

use super::carrier::{Carrier, Close};
use super::limit::Rate;
use super::message::{FromServer, Hello, Limits, Objection, PublishItem, RoomDelta, Snapshot, Welcome};
use super::negotiate::Answered;
use super::room::{Life, Participant, Room, Transport, refuse};
use super::session::{Session, Tokens};
use super::track::OFFER_WINDOW;
use super::{Door, Negotiate, Settings};

/// Characters of a display name. More makes rosters of big rooms heavy, fewer cuts real names.
pub const NAME_CHARS: usize = 64;
/// Capabilities that a client may list, and bytes of each.
const CAPS: (usize, usize) = (32, 64);
/// When to try again where a place may have become free.
const RETRY_FULL_MS: u64 = 30_000;
/// When to try again where the server was only busy.
const RETRY_BUSY_MS: u64 = 2_000;

/// A `hello` whose parts are valid by themselves.
pub(super) struct Valid {
    pub(super) room: RoomId,
    name: String,
    publish: Vec<PublishItem>,
    want: Want,
    offer: String,
    continues: Option<(SessionId, String)>,
    /// When the `hello` was read.
    began: Instant,
}

/// Everything the room needs to enter somebody.
pub(super) struct Enter {
    pub(super) carrier: Carrier,
    /// The number of the `hello`.
    s: u64,
    valid: Valid,
    negotiator: Box<dyn Negotiate>,
    answered: Answered,
}

/// Checks what can be checked without the room.
pub(super) fn validate(hello: Hello, settings: &Settings) -> Result<Valid, Objection> {
    let room = hello.room.parse().map_err(|_| {
        Objection::new(Reason::RoomId, "1 to 64 bytes of A-Z a-z 0-9 . _ ~ - and percent-escaped UTF-8.")
    })?;
    check_name(&hello.name)?;
    if hello.caps.len() > CAPS.0 || hello.caps.iter().any(|cap| cap.len() > CAPS.1) {
        return Err(Objection::new(Reason::MessageMalformed, "At most 32 caps of at most 64 bytes."));
    }
    check_count(hello.publish.len(), settings)?;
    // A session that cannot be read is one that does not exist: the client is somebody new.
    let session = hello.session.and_then(|session| session.parse().ok());
    Ok(Valid {
        room,
        name: hello.name,
        publish: hello.publish,
        want: hello.want.unwrap_or_default(),
        offer: hello.offer,
        continues: session.zip(hello.token),
        began: super::now(),
    })
}

pub(super) fn check_name(name: &str) -> Result<(), Objection> {
    let hidden = |c: char| {
        // Separators and bidirectional overrides and isolates: they rearrange the text around a name.
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    if name.chars().count() > NAME_CHARS || name.chars().any(hidden) {
        let hint = "At most 64 characters, without control characters and bidirectional overrides.";
        return Err(Objection::new(Reason::Name, hint));
    }
    Ok(())
}

pub(super) fn check_count(publications: usize, settings: &Settings) -> Result<(), Objection> {
    if publications > settings.publications {
        let hint = format!("At most {} publications.", settings.publications);
        return Err(Objection::new(Reason::TooManyPublications, hint));
    }
    Ok(())
}

/// Whether `items` can be published on sections of `media` beside what `present` occupies.
pub(super) fn check_sections(
    media: &Media,
    present: &[Publish],
    items: &[PublishItem],
) -> Result<(), Objection> {
    let mut occupied: BTreeSet<_> = present.iter().map(|publish| publish.mid).collect();
    for item in items {
        let fits = media.sending.iter().any(|section| section.mid == item.mid && section.kind == item.kind);
        if !fits {
            let hint = format!("Section {} of the offer does not send this kind.", item.mid);
            return Err(Objection::new(Reason::UnknownSection, hint));
        }
        if !occupied.insert(item.mid) {
            let hint = format!("Section {} carries a publication already.", item.mid);
            return Err(Objection::new(Reason::WrongState, hint));
        }
    }
    Ok(())
}

/// A transport on the worker of the given index, and the answer to the offer that opens it.
pub(super) fn negotiate(
    door: &Door,
    worker: usize,
    offer: &str,
) -> Result<(Box<dyn Negotiate>, Answered), Objection> {
    // Nobody is in the room yet who could be removed; a panic here is the offer's fault alone.
    catch_unwind(AssertUnwindSafe(|| {
        let mut negotiator = (door.new_transport)(worker);
        let answered = negotiator.answer(offer);
        answered.map(|answered| (negotiator, answered))
    }))
    .unwrap_or_else(|_| {
        tracing::error!("answering an offer panicked");
        Err(super::negotiate::Refusal {
            reason: Reason::Panicked,
            hint: "Answering the offer failed.".into(),
        })
    })
    .map_err(|refusal| Objection::new(refusal.reason, refusal.hint))
}

impl Valid {
    /// Answers the offer for the worker of the given index.
    pub(super) fn negotiate(
        self,
        door: &Door,
        worker: usize,
        s: u64,
        carrier: Carrier,
    ) -> Result<Enter, Objection> {
        let (negotiator, answered) = negotiate(door, worker, &self.offer)?;
        check_sections(&answered.media, &[], &self.publish)?;
        Ok(Enter { carrier, s, valid: self, negotiator, answered })
    }
}

impl Enter {
    /// Back to before the negotiation: the room turned out to live on another worker.
    pub(super) fn undo(self) -> (Valid, u64, Carrier) {
        (self.valid, self.s, self.carrier)
    }
}

impl Room {
    pub(super) fn handle_enter(&mut self, now: Instant, enter: Enter) {
        let carrier = enter.carrier.clone();
        if let Err(objection) = self.enter(now, enter) {
            refuse(&self.door, &carrier, objection);
        }
    }

    fn enter(&mut self, now: Instant, enter: Enter) -> Result<(), Objection> {
        let Enter { carrier, s, valid, negotiator, answered } = enter;
        let earlier = self.earlier(valid.continues.as_ref());
        if earlier.is_none() && self.participants.len() >= self.door.settings.participants {
            let hint = format!("This room holds {} participants.", self.door.settings.participants);
            return Err(Objection::new(Reason::RoomFull, hint).retry(RETRY_FULL_MS));
        }
        let (id, epoch) = earlier.unwrap_or((ParticipantId::random(), Epoch(1)));
        let number = TransportNumber::default();
        let publications = self.number(&valid.publish)?;
        self.command(Command::Join(Box::new(Join {
            room: self.key,
            participant: id,
            epoch,
            transport: number,
            local: negotiator.local().clone(),
            remote: answered.remote.clone(),
            media: answered.media.clone(),
            publish: publications.clone(),
            want: valid.want.clone(),
        })))
        .map_err(|objection| objection.retry(RETRY_BUSY_MS))?;

        let offers = Rate::new(self.door.settings.offers_per_10s, OFFER_WINDOW);
        // The one that came with the hello.
        let _ = offers.pay(1);
        let participant = Participant {
            id,
            epoch,
            session: SessionId::random(),
            tokens: Tokens::new(),
            confirmed: true,
            stream: Session::new(s),
            carrier: Some(carrier.clone()),
            life: Life { carrier: now, media: now, media_flows: false },
            away: false,
            name: valid.name,
            publications,
            have: Have { n: valid.want.n, ..Have::default() },
            stated: None,
            want: valid.want,
            transport: Some(Transport { negotiator, media: answered.media }),
            transport_number: number,
            offers,
            chats: self.chat_rate(),
            present: Present::new(self.door.people.clone(), carrier.kind()),
        };
        self.sessions.insert(participant.session, id);
        self.directory.insert(participant.session, self.handle.clone());
        self.carriers.insert(carrier.id(), id);
        self.empty_since = None;
        self.handle.set_vacant(false);
        let published = participant.publications.iter().map(|p| participant.published(p)).collect();
        if let Some(replaced) = self.participants.insert(id, participant) {
            tracing::info!(room = self.key.0, participant = %id, epoch = epoch.0, "replaced");
            self.forget_session(&replaced, Close::Replaced);
            let unpublished = replaced.publications.iter().map(|publish| publish.publication).collect();
            let changed = self.changed_if_known(id);
            let delta = RoomDelta { unpublished, changed, published, ..RoomDelta::default() };
            self.announce(now, delta, Some(id));
            self.notice_unpublished(id);
        } else {
            tracing::info!(room = self.key.0, participant = %id, total = self.participants.len(), "joined");
            self.announce_arrival(now, id);
        }
        self.welcome(now, id, answered.sdp);
        self.door.people.welcome.share(super::now().saturating_duration_since(valid.began));
        self.schedule(now, id);
        Ok(())
    }

    /// The participant who is allowed to come back as a newer epoch.
    fn earlier(&self, continues: Option<&(SessionId, String)>) -> Option<(ParticipantId, Epoch)> {
        let (session, token) = continues?;
        let participant = self.participants.get(self.sessions.get(session)?)?;
        let epoch = Epoch(participant.epoch.0.checked_add(1)?);
        participant.tokens.accepts(token).then_some((participant.id, epoch))
    }

    /// Gives each item its publication id.
    pub(super) fn number(&mut self, items: &[PublishItem]) -> Result<Vec<Publish>, Objection> {
        let number = |item: &PublishItem| {
            let &PublishItem { mid, kind, source, muted } = item;
            Ok(Publish { publication: self.next_publication()?, mid, kind, source, muted })
        };
        items.iter().map(number).collect()
    }

    fn welcome(&mut self, now: Instant, id: ParticipantId, answer: String) {
        let Snapshot { room, participants, publications } = self.snapshot(id);
        let limits = self.limits();
        let chat = self.chat.recall(now, &self.door.settings);
        let Some(participant) = self.participants.get(&id) else { return };
        let welcome = Welcome {
            caps: Vec::new(),
            session: participant.session,
            epoch: participant.epoch,
            resume: participant.tokens.current().to_owned(),
            you: id,
            answer,
            room,
            participants,
            publications,
            have: participant.have.clone(),
            chat,
            limits,
        };
        self.say(now, id, &FromServer::Welcome(Box::new(welcome)));
    }

    fn limits(&self) -> Limits {
        let settings = &self.door.settings;
        Limits {
            frame_bytes: settings.sizes.frame_bytes,
            message_bytes: settings.sizes.message_bytes,
            messages_per_second: settings.messages_per_second,
            burst: settings.burst,
            offers_per10s: settings.offers_per_10s,
            participants: settings.participants,
            publications: settings.publications,
            name_chars: NAME_CHARS,
            chat_bytes: settings.chat_bytes,
            sections: settings.sections,
            resume_ms: u64::try_from(settings.removed_after.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
