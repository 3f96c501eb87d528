//! A participant as its worker holds it: pipe, media, and when to look at it next.

use std::time::Instant;

use super::progress::Progress;
use crate::id::{Epoch, ParticipantId, RoomKey, Ssrc, TransportNumber};
use crate::room::Publish;
use crate::room::participant::Participant;
use crate::room::registry::{ParticipantKey, PublicationKey};
use crate::room::slot::Slot;
use crate::transport::Transport;
use crate::transport::srtp::SealStream;

/// See the module.
pub(super) struct Member {
    pub(super) id: ParticipantId,
    pub(super) epoch: Epoch,
    pub(super) room: RoomKey,
    pub(super) number: TransportNumber,
    pub(super) transport: Transport,
    pub(super) media: Participant,
    /// One for each slot of `media`.
    pub(super) seals: Vec<Seals>,
    /// Names the member in send errors.
    pub(super) tag: u32,
    pub(super) gso: bool,
    /// The source of the server's own reports towards this member.
    pub(super) ssrc: Ssrc,
    pub(super) secured: bool,
    pub(super) silent: bool,
    pub(super) joined: Instant,
    pub(super) progress: Progress,
    pub(super) wake: Instant,
    pub(super) due: Due,
    /// This participant's connection before this one, until it is gone.
    pub(super) predecessor: Option<ParticipantKey>,
    /// What is published here once the connection stands, because until then a predecessor carries it.
    pub(super) held: Vec<Publish>,
    /// When a connection whose place another took is forgotten, whatever its client does.
    pub(super) retires: Option<Instant>,
    /// Of the last statement of what the slots carry.
    pub(super) version: u64,
    /// What is to be looked at when its slots are next assigned.
    pub(super) agenda: Agenda,
    pub(super) fault: Option<Stage>,
}

/// What may concern a receiver's slots.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// It waits for its turn.
    pub(super) queued: bool,
    /// Everything, not only the offers.
    pub(super) all: bool,
    /// The receiver is to be told, whether or not anything changes.
    pub(super) tell: bool,
    /// Publications that may find a place now.
    pub(super) offers: Vec<PublicationKey>,
    /// Somebody found no place because another has just begun: look again then.
    pub(super) again: Option<Instant>,
}

/// When each recurring duty is next due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) reports: Instant,
    pub(super) feedback: Instant,
}

/// The cipher's counters of one slot.
pub(super) struct Seals {
    pub(super) media: SealStream,
    pub(super) rtx: Option<SealStream>,
}

impl Seals {
    pub(super) fn new(slot: &Slot) -> Self {
        Self { media: SealStream::new(slot.section.ssrc), rtx: slot.section.rtx_ssrc.map(SealStream::new) }
    }
}

/// Where a test can make the handling of a participant panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Receive,
    Seal,
    Tick,
}

impl Member {
    /// Panics where a test asked for it; costs nothing in release builds.
    #[inline]
    pub(super) fn trip(&self, stage: Stage) {
        if cfg!(debug_assertions) {
            assert!(self.fault != Some(stage), "a fault injected by a test");
        }
    }
}
