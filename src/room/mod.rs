//! Who receives what: the media half of a room, owned by one worker. No clock, socket or lock.
//!
//! The other half (roster, permissions, everything in JSON) is [`crate::signal::room`]. It compiles changes
//! into commands; [`crate::control`] is the contract.

pub mod clock;
pub mod demand;
pub mod history;
pub mod keyframe;
pub mod nack;
pub mod participant;
pub mod publication;
pub mod registry;
pub mod retransmit;
pub mod rewrite;
pub mod route;
pub mod select;
pub mod slot;
pub mod speaker;
pub mod subscription;

use std::collections::BTreeMap;

use crate::id::{Mid, PublicationId, Rid, Ssrc, TransportNumber};
use crate::rtp::extension::ExtensionIds;

/// Sound or picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Audio,
    Video,
}

/// What a publication shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    Microphone,
    Camera,
    Screen,
    ScreenAudio,
}

/// One track that the participant publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    pub publication: PublicationId,
    /// The sending section that carries it.
    pub mid: Mid,
    pub kind: Kind,
    pub source: Source,
    pub muted: bool,
}

/// What one offer and its answer agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Media {
    /// Sections on which the client may send, in SDP order.
    pub sending: Vec<SendingSection>,
    /// Sections on which the client receives, in SDP order.
    pub slots: Vec<ReceiveSection>,
    /// How this publisher learns what arrives.
    pub feedback: Feedback,
}

/// The congestion feedback that suits the publisher's browser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Feedback {
    /// Transport-wide feedback packets.
    #[default]
    TransportCc,
    /// A bitrate in REMB messages: Firefox reaches its top layer in 0.2 s with it, and in 5.7 s without.
    Remb,
}

/// A section of the offer on which the client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendingSection {
    pub mid: Mid,
    pub kind: Kind,
    /// Payload type of Opus or VP8.
    pub payload_type: u8,
    pub rtx_payload_type: Option<u8>,
    pub extensions: ExtensionIds,
    /// Simulcast encodings, largest first; empty without simulcast (one layer).
    pub rids: Vec<Rid>,
    /// SSRCs that the offer names, where it does; the browser may use others and name them by MID and RID.
    pub ssrcs: Vec<SignaledSsrc>,
    /// Whether lost packets may be asked for by NACK.
    pub nack: bool,
}

/// An SSRC that the offer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignaledSsrc {
    /// `None` where the offer does not say which encoding it is.
    pub rid: Option<Rid>,
    pub ssrc: Ssrc,
    pub rtx: Option<Ssrc>,
}

/// A section of the offer on which the client receives: a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveSection {
    pub mid: Mid,
    pub kind: Kind,
    pub payload_type: u8,
    pub rtx_payload_type: Option<u8>,
    pub extensions: ExtensionIds,
    /// The server's choice, for the slot's life.
    pub ssrc: Ssrc,
    pub rtx_ssrc: Option<Ssrc>,
    /// Whether the client may ask for lost packets; without RTX it gets the identical bytes.
    pub nack: bool,
}

/// What a participant wants to receive: always the whole wish, never a change to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Want {
    /// Counts up with each wish of a session.
    pub n: u32,
    /// For publications that are not named.
    pub default: Wish,
    pub publications: BTreeMap<PublicationId, Wish>,
    pub audio: WantAudio,
    /// Absent: every camera that has a wish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<WantVideo>,
}

/// Which voices.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WantAudio {
    /// As many of the loudest as there are slots.
    #[default]
    Loudest,
    /// Only these.
    #[serde(untagged)]
    Only(Vec<PublicationId>),
}

/// Which cameras, beside those that are wished for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WantVideo {
    /// Those of so many who spoke last.
    pub last: u16,
}

/// The wish for one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Wish {
    /// Height in physical pixels at which it is shown; 0: not at all.
    pub height: u16,
    /// Higher first where not everything fits.
    pub priority: u8,
}

impl Default for Wish {
    fn default() -> Self {
        Self { height: 360, priority: 0 }
    }
}

/// What the slots of one participant carry.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Have {
    /// Of the [`Want`] that this answers.
    pub n: u32,
    /// Whose slots these are.
    pub transport: TransportNumber,
    pub slots: Vec<SlotState>,
}

/// What one slot carries.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotState {
    /// The section's mid.
    pub slot: Mid,
    /// `None`: empty.
    pub publication: Option<PublicationId>,
    /// Decided but not begun: no name may be shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// The slot's RTP timestamp of the first packet of this binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_ts: Option<u32>,
    /// Index into the publication's encodings, 0 the largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u8>,
    /// Why not more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
}

/// Why a slot does not carry what was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The publisher sends nothing, or not this layer.
    NotSent,
    /// The wish has height 0.
    NotWanted,
    /// A keyframe has been asked for.
    Keyframe,
}
