//! The contract between a room's two halves: the signaling task sends [`Command`]s, the worker answers with
//! [`Update`]s.
//!
//! The task decides who is there and what is published; the worker decides what goes where and knows whether media
//! flows. Neither waits for the other: commands carry the session's epoch, so one that comes late concerns nobody
//! any more, and of updates only the newest of a kind matters, so a full mailbox coalesces.

use std::collections::BTreeMap;

use crate::id::{Epoch, Mid, ParticipantId, PublicationId, RoomKey, TransportNumber};
use crate::observe::reason::Reason;
use crate::room::{Have, Media, Publish, Want};
use crate::transport::{Credentials, Remote};

/// From the room's task to the worker. `participant` and `epoch` always belong together; a command of an epoch
/// that is not the participant's present one is ignored.
#[derive(Debug)]
pub enum Command {
    /// A participant enters; replaces an older epoch of the same participant. Of the same epoch with a higher transport
    /// number, it is a second connection: the first keeps its media until the second is connected.
    Join(Box<Join>),
    /// The client offered an ICE restart: checks with its new name are answered beside the old ones.
    Restart {
        participant: ParticipantId,
        epoch: Epoch,
        transport: TransportNumber,
        remote: Credentials,
    },
    /// The offer grew: all sections anew. Those known before are unchanged (a section is for life).
    Sections {
        participant: ParticipantId,
        epoch: Epoch,
        transport: TransportNumber,
        media: Box<Media>,
    },
    Publish {
        participant: ParticipantId,
        epoch: Epoch,
        publish: Publish,
    },
    Unpublish {
        participant: ParticipantId,
        epoch: Epoch,
        publication: PublicationId,
    },
    Mute {
        participant: ParticipantId,
        epoch: Epoch,
        publication: PublicationId,
        muted: bool,
    },
    Want {
        participant: ParticipantId,
        epoch: Epoch,
        want: Want,
    },
    /// The client has been told what its slots carry, up to this [`Update::Have`]: what was pending there may begin.
    Seen {
        participant: ParticipantId,
        epoch: Epoch,
        version: u64,
    },
    /// The client shows nothing in a slot that should carry something.
    Stall {
        participant: ParticipantId,
        epoch: Epoch,
        slot: Mid,
    },
    /// Away participants keep their place and lose the slots that showed them.
    Away {
        participant: ParticipantId,
        epoch: Epoch,
        away: bool,
    },
    Leave {
        participant: ParticipantId,
        epoch: Epoch,
        reason: Reason,
    },
}

impl Command {
    /// Whom it concerns.
    #[must_use]
    pub fn participant(&self) -> ParticipantId {
        match self {
            Self::Join(join) => join.participant,
            Self::Restart { participant, .. }
            | Self::Sections { participant, .. }
            | Self::Publish { participant, .. }
            | Self::Unpublish { participant, .. }
            | Self::Mute { participant, .. }
            | Self::Want { participant, .. }
            | Self::Seen { participant, .. }
            | Self::Stall { participant, .. }
            | Self::Away { participant, .. }
            | Self::Leave { participant, .. } => *participant,
        }
    }
}

/// Everything the worker needs to let one participant in.
#[derive(Debug)]
pub struct Join {
    pub room: RoomKey,
    pub participant: ParticipantId,
    pub epoch: Epoch,
    pub transport: TransportNumber,
    /// What our answer says: for the transport's life.
    pub local: Credentials,
    /// What the offer says.
    pub remote: Remote,
    pub media: Media,
    pub publish: Vec<Publish>,
    pub want: Want,
}

/// From the worker to the room's task. State: only the newest of a kind, participant and epoch matters.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// The transport is secured: media can flow.
    Connected { participant: ParticipantId, epoch: Epoch, transport: TransportNumber },
    /// What the participant's slots carry now. `version` counts up.
    Have { participant: ParticipantId, epoch: Epoch, version: u64, have: Have },
    /// Which encodings of the participant's publications anybody watches, largest first; for every publication with a
    /// picture.
    Layers { participant: ParticipantId, epoch: Epoch, layers: BTreeMap<PublicationId, Vec<u8>> },
    /// Who speaks in the room, the dominant one first. About no participant in particular.
    Speakers { speakers: Vec<ParticipantId> },
    /// Whether anything authenticated arrived within the last 8 s. `since_ms`: how long ago the last was.
    Heard { participant: ParticipantId, epoch: Epoch, silent: bool, since_ms: u64 },
    /// The worker gave the participant up (handshake failed, handling it panicked); it is gone from the worker.
    Closed { participant: ParticipantId, epoch: Epoch, transport: TransportNumber, reason: Reason },
}
