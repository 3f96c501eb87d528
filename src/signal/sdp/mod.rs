//! Session descriptions (RFC 8866): what a browser's offer says and how the answer is written.
//!
//! [`offer`] (with [`codec`]) reads the few facts that matter out of an offer, [`answer`] writes an answer
//! from what [`super::negotiate`] decided. Neither keeps state.

pub mod answer;
pub mod codec;
pub mod offer;

use crate::observe::reason::Reason;
use crate::rtp::extension::ExtensionIds;

/// Why an offer is not answered; the participant is told both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    /// One English sentence for the client's developer; holds nothing of the offer's text.
    pub hint: String,
}

impl Refusal {
    fn malformed(hint: &str) -> Self {
        Self { reason: Reason::SdpMalformed, hint: hint.to_owned() }
    }

    pub(super) fn unsupported(hint: &str) -> Self {
        Self { reason: Reason::SdpUnsupported, hint: hint.to_owned() }
    }
}

/// What one offer may ask for. Each bounds memory and work per participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of SDP. Firefox's untrimmed offer with 100 video slots has 200 kB; more costs parsing time before
    /// anything is known about the sender.
    pub text: usize,
    /// Sections of any kind. Firefox fails above 128; each costs about 0.4 kB of answer and a slot's state.
    pub sections: usize,
    /// Sections on which the client sends; those beyond are rejected one by one.
    pub sending: usize,
    /// Audio sections on which the client receives; those beyond are rejected one by one.
    pub audio_slots: usize,
    /// Video sections on which the client receives; those beyond are rejected one by one. A client that shows
    /// more people pages.
    pub video_slots: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { text: 512 * 1024, sections: 96, sending: 8, audio_slots: 16, video_slots: 49 }
    }
}

/// The RTP header extensions that are ever answered. All others are dropped silently, among them the
/// dependency descriptor: where it is answered, Chromium's VP8 carries no picture id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    Mid,
    Rid,
    RepairedRid,
    TransportCc,
    AudioLevel,
    VideoOrientation,
}

impl Extension {
    pub(super) const ALL: [Self; 6] = [
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::TransportCc,
        Self::AudioLevel,
        Self::VideoOrientation,
    ];

    pub(super) fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::TransportCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::VideoOrientation => "urn:3gpp:video-orientation",
        }
    }

    /// Where its id is kept.
    pub(super) fn id_in(self, ids: &mut ExtensionIds) -> &mut u8 {
        match self {
            Self::Mid => &mut ids.mid,
            Self::Rid => &mut ids.rid,
            Self::RepairedRid => &mut ids.repaired_rid,
            Self::TransportCc => &mut ids.transport_cc,
            Self::AudioLevel => &mut ids.audio_level,
            Self::VideoOrientation => &mut ids.video_orientation,
        }
    }

    fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.uri() == uri)
    }
}

/// Codec feedback (RFC 4585 §4.2), as offered for one payload type or as answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RtcpFeedback {
    pub(super) nack: bool,
    pub(super) pli: bool,
    pub(super) fir: bool,
    pub(super) transport_cc: bool,
    pub(super) remb: bool,
}

impl RtcpFeedback {
    fn add(&mut self, text: &str) {
        match text {
            "nack" => self.nack = true,
            "nack pli" => self.pli = true,
            "ccm fir" => self.fir = true,
            "transport-cc" => self.transport_cc = true,
            "goog-remb" => self.remb = true,
            _ => {}
        }
    }

    fn lines(self) -> impl Iterator<Item = &'static str> {
        let Self { nack, pli, fir, transport_cc, remb } = self;
        [
            (nack, "nack"),
            (pli, "nack pli"),
            (fir, "ccm fir"),
            (transport_cc, "transport-cc"),
            (remb, "goog-remb"),
        ]
        .into_iter()
        .filter_map(|(on, line)| on.then_some(line))
    }
}
