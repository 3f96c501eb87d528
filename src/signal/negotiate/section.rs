//! What is agreed on for one section, and what of it may not change.

use super::SsrcSequence;
use crate::id::Mid;
use crate::room::{Feedback, Kind, ReceiveSection, SendingSection};
use crate::rtp::extension::ExtensionIds;
use crate::signal::sdp::answer::{Accepted, AnsweredExtension, Slot};
use crate::signal::sdp::codec::Codec;
use crate::signal::sdp::offer::{Offer, OfferedExtension, Section};
use crate::signal::sdp::{Extension, Limits, Refusal, RtcpFeedback};

/// Slots of each kind that are paired: sound and picture of one person are played in step in these. More let
/// more people be in step; fewer leave more slots free to carry anybody.
const PAIRS: u8 = 3;

/// What depends on the browser. Decided by a transport's first offer, for its life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    pub(super) feedback: Feedback,
    /// The client repeats audio packets when asked although its offer does not say so.
    audio_nack: bool,
}

impl Mode {
    /// The one place where browsers are told apart. Firefox needs 5.7 s to its top layer with transport-wide
    /// feedback and 0.2 s with REMB, but only where the extension is not answered; and it ignores `nack` for
    /// Opus. A client that cannot number its packets gets REMB as well.
    pub(super) fn of(offer: &Offer) -> Self {
        let numbers_packets = |section: &Section| {
            section.extensions.iter().any(|offered| offered.extension == Extension::TransportCc)
        };
        let cannot = offer.sections.iter().any(|section| {
            section.in_use
                && section.sends
                && section.kind == Some(Kind::Video)
                && section.codec.is_some()
                && !numbers_packets(section)
        });
        let feedback = if offer.firefox || cannot { Feedback::Remb } else { Feedback::TransportCc };
        Self { feedback, audio_nack: !offer.firefox }
    }
}

/// How many more sections a transport may have, and which pairs are free.
#[derive(Debug)]
pub(super) struct Capacity {
    sending: usize,
    slots: [usize; 2],
    /// By kind and number.
    pairs: [[bool; PAIRS as usize]; 2],
}

impl Capacity {
    /// What the limits leave beside the sections that go on.
    pub(super) fn new<'a>(limits: &Limits, kept: impl Iterator<Item = &'a Live>) -> Self {
        let mut capacity = Self {
            sending: limits.sending,
            slots: [limits.audio_slots, limits.video_slots],
            pairs: [[true; PAIRS as usize]; 2],
        };
        for live in kept {
            if live.sending.is_some() {
                capacity.sending = capacity.sending.saturating_sub(1);
            }
            if let Some((_, slot)) = &live.receiving {
                let kind = live.kind as usize;
                capacity.slots[kind] = capacity.slots[kind].saturating_sub(1);
                if let Some(pair) = slot.pair {
                    capacity.pairs[kind][usize::from(pair)] = false;
                }
            }
        }
        capacity
    }

    fn take_sending(&mut self) -> bool {
        take_one(&mut self.sending)
    }

    fn take_slot(&mut self, kind: Kind) -> bool {
        take_one(&mut self.slots[kind as usize])
    }

    fn take_pair(&mut self, kind: Kind) -> Option<u8> {
        let (number, free) = (0..).zip(&mut self.pairs[kind as usize]).find(|(_, free)| **free)?;
        *free = false;
        Some(number)
    }
}

fn take_one(left: &mut usize) -> bool {
    let some = *left > 0;
    *left -= usize::from(some);
    some
}

/// A section in use.
#[derive(Clone, Debug)]
pub(super) struct Live {
    mid: Mid,
    kind: Kind,
    codec: Codec,
    /// What the client sends; kept while it has turned this direction off.
    sending: Option<SendingSection>,
    /// What the client receives; kept likewise.
    receiving: Option<(ReceiveSection, Slot)>,
    sends: bool,
    receives: bool,
}

impl Live {
    /// A section that was not in use before. `None`: it has to be rejected.
    pub(super) fn new(
        section: &Section,
        mode: Mode,
        capacity: &mut Capacity,
        ssrcs: &mut SsrcSequence,
    ) -> Option<Self> {
        if !section.in_use || !section.rtcp_mux {
            return None;
        }
        let mut live = Self {
            mid: section.mid?,
            kind: section.kind?,
            codec: section.codec?,
            sending: None,
            receiving: None,
            sends: false,
            receives: false,
        };
        live.turn(section, mode, capacity, ssrcs);
        let wanted = section.sends || section.receives;
        (live.sends || live.receives || !wanted).then_some(live)
    }

    /// The section as a further offer shows it.
    ///
    /// # Errors
    /// `SdpUnsupported` where payload types, extension ids or encodings are not those from before: packets on
    /// their way, and what was latched from earlier ones, would be misread.
    pub(super) fn continued(
        &self,
        section: &Section,
        mode: Mode,
        capacity: &mut Capacity,
        ssrcs: &mut SsrcSequence,
    ) -> Result<Self, Refusal> {
        let changed = || Refusal::unsupported("A section in use changed its payload types or extensions.");
        let codec = section.codec.ok_or_else(changed)?;
        if (codec.payload_type, codec.rtx) != (self.codec.payload_type, self.codec.rtx) {
            return Err(changed());
        }
        let mut live = Self { codec, sends: false, receives: false, ..self.clone() };
        live.turn(section, mode, capacity, ssrcs);
        let same_sending = match (&self.sending, &live.sending) {
            (Some(old), Some(new)) => old.extensions == new.extensions && old.rids == new.rids,
            _ => true,
        };
        let same_receiving = match (&self.receiving, &live.receiving) {
            (Some((old, _)), Some((new, _))) => old == new,
            _ => true,
        };
        if same_sending && same_receiving { Ok(live) } else { Err(changed()) }
    }

    /// Turns each direction on as the section asks and as far as there is capacity.
    fn turn(&mut self, section: &Section, mode: Mode, capacity: &mut Capacity, ssrcs: &mut SsrcSequence) {
        self.sends = section.sends && (self.sending.is_some() || capacity.take_sending());
        self.receives = section.receives && (self.receiving.is_some() || capacity.take_slot(self.kind));
        if self.sends {
            self.sending = Some(self.new_sending(section, mode));
        }
        if self.receives {
            let slot = self.receiving.as_ref().map(|(_, slot)| *slot).unwrap_or_else(|| Slot {
                ssrc: ssrcs.next(),
                rtx: self.codec.rtx.map(|_| ssrcs.next()),
                pair: capacity.take_pair(self.kind),
            });
            let receive_section = ReceiveSection {
                mid: self.mid,
                kind: self.kind,
                payload_type: self.codec.payload_type,
                rtx_payload_type: self.codec.rtx,
                extensions: self.ids(section, mode, Role::Receiving),
                ssrc: slot.ssrc,
                rtx_ssrc: slot.rtx,
                nack: self.feedback(mode).nack,
            };
            self.receiving = Some((receive_section, slot));
        }
    }

    fn new_sending(&self, section: &Section, mode: Mode) -> SendingSection {
        let extensions = self.ids(section, mode, Role::Sending);
        SendingSection {
            mid: self.mid,
            kind: self.kind,
            payload_type: self.codec.payload_type,
            rtx_payload_type: self.codec.rtx,
            extensions,
            // Without the extension nothing tells the encodings apart.
            rids: if extensions.rid == 0 { Vec::new() } else { section.rids.clone() },
            ssrcs: section.ssrcs.clone(),
            nack: self.feedback(mode).nack,
        }
    }

    fn ids(&self, section: &Section, mode: Mode, role: Role) -> ExtensionIds {
        let mut ids = ExtensionIds::default();
        for offered in &section.extensions {
            if self.uses(offered, mode, role) {
                *offered.extension.id_in(&mut ids) = offered.id;
            }
        }
        ids
    }

    /// Whether an extension is answered for one direction of this section.
    fn uses(&self, offered: &OfferedExtension, mode: Mode, role: Role) -> bool {
        let sent = role == Role::Sending;
        if offered.only_sent.is_some_and(|only_sent| only_sent != sent) {
            return false;
        }
        match offered.extension {
            Extension::Mid => sent,
            Extension::Rid | Extension::RepairedRid => sent && self.kind == Kind::Video,
            // Firefox must not see it anywhere in a section on which it sends.
            Extension::TransportCc => !self.sends || mode.feedback == Feedback::TransportCc,
            Extension::AudioLevel => self.kind == Kind::Audio,
            // Chromium encodes nothing from a rotated camera where this is not answered.
            Extension::VideoOrientation => self.kind == Kind::Video,
        }
    }

    /// The codec feedback that is answered.
    fn feedback(&self, mode: Mode) -> RtcpFeedback {
        let offered = self.codec.feedback;
        let video = self.kind == Kind::Video;
        let remb = mode.feedback == Feedback::Remb;
        RtcpFeedback {
            // Chromium repeats lost sound and asks for it where this is answered, though it does not offer it.
            nack: if video { offered.nack } else { mode.audio_nack },
            pli: offered.pli && video,
            fir: offered.fir && video,
            transport_cc: offered.transport_cc && !(self.sends && remb),
            remb: offered.remb && self.sends && remb,
        }
    }

    /// Compares the ids with those of all other sections, and adds new ones.
    ///
    /// # Errors
    /// `SdpUnsupported` where one extension has two ids or one id two extensions.
    pub(super) fn latch_extensions(&self, known: &mut ExtensionIds) -> Result<(), Refusal> {
        let sending = self.sending.as_ref().map(|sending| sending.extensions);
        let receiving = self.receiving.as_ref().map(|(receiving, _)| receiving.extensions);
        for mut ids in [sending, receiving].into_iter().flatten() {
            for extension in Extension::ALL {
                let id = *extension.id_in(&mut ids);
                let taken =
                    Extension::ALL.into_iter().any(|other| other != extension && *other.id_in(known) == id);
                let latched = extension.id_in(known);
                if id == 0 || *latched == id {
                    continue;
                }
                if *latched != 0 || taken {
                    return Err(Refusal::unsupported("Header extension ids differ between sections."));
                }
                *latched = id;
            }
        }
        Ok(())
    }

    /// What the answer says about it.
    pub(super) fn accepted(&self, section: &Section, mode: Mode) -> Accepted {
        let used = |offered: &&OfferedExtension| {
            (self.sends && self.uses(offered, mode, Role::Sending))
                || (self.receives && self.uses(offered, mode, Role::Receiving))
        };
        Accepted {
            mid: self.mid,
            kind: self.kind,
            codec: self.codec,
            feedback: self.feedback(mode),
            extensions: section
                .extensions
                .iter()
                .filter(used)
                .map(|offered| AnsweredExtension {
                    extension: offered.extension,
                    id: offered.id,
                    only_received: offered.only_sent,
                })
                .collect(),
            receives: self.sends,
            rids: self.sending().map(|sending| sending.rids.clone()).unwrap_or_default(),
            slot: self.receives.then(|| self.receiving.as_ref().map(|(_, slot)| *slot)).flatten(),
        }
    }

    pub(super) fn mid(&self) -> Mid {
        self.mid
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// What the client sends at present.
    pub(super) fn sending(&self) -> Option<&SendingSection> {
        self.sending.as_ref().filter(|_| self.sends)
    }

    /// What the client receives at present.
    pub(super) fn receiving(&self) -> Option<&ReceiveSection> {
        self.receiving.as_ref().filter(|_| self.receives).map(|(section, _)| section)
    }
}

/// A direction of a section, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Sending,
    Receiving,
}
