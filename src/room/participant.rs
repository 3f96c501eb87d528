//! The media half of a participant: what it sends, by synchronisation source, and its receive slots.

use std::time::{Duration, Instant};

use crate::id::{Mid, Ssrc, TransportNumber};
use crate::observe::reason::Reason;
use crate::room::clock::SenderClock;
use crate::room::registry::PublicationKey;
use crate::room::retransmit::Budget;
use crate::room::slot::Slot;
use crate::room::{Feedback, Have, Media, ReceiveSection, SendingSection, Want};
use crate::rtp::extension::{ExtensionIds, Received};
use crate::rtp::header::Header;
use crate::rtp::twcc::Recorder;

/// Synchronisation sources latched per participant. A browser with four sections, three encodings and their
/// retransmissions uses 14; more would only help an attacker fill memory.
const MOST_STREAMS: usize = 64;

/// Voices whose slots are remembered. More finds the slot of who has been silent for longer, fewer keeps memory small.
const MOST_HOMES: usize = 32;

/// Taken for the round trip until a report tells: what most people have. Higher repeats lost packets later,
/// lower asks twice for what is on its way.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Participant {
    pub sections: Vec<Section>,
    pub slots: Vec<Slot>,
    /// The ids in this participant's packets; the same in all sections of one connection.
    pub extensions: ExtensionIds,
    pub want: Want,
    /// Number of the wish that the slots were last assigned by.
    pub answered: u32,
    pub have_changed: bool,
    /// Slots in which voices were before, the latest last: they come back there.
    homes: Vec<(PublicationKey, u16)>,
    pub away: bool,
    /// How this participant learns what of its media arrives.
    pub feedback: Feedback,
    pub twcc: Recorder,
    /// The next transport-wide number towards this participant.
    pub transport_cc: u16,
    pub clock: SenderClock,
    pub round_trip: Duration,
    pub budget: Budget,
    /// The last RTP packet from this participant.
    pub last_media: Option<Instant>,
    streams: Vec<Stream>,
}

/// A section on which the participant may send.
#[derive(Debug)]
pub struct Section {
    pub section: SendingSection,
    pub publication: PublicationKey,
}

/// What a synchronisation source was latched to, for the transport's life: browsers name section and encoding
/// only until the first receiver report, and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    pub ssrc: Ssrc,
    /// Index into [`Participant::sections`].
    pub section: u8,
    pub layer: u8,
    /// Retransmissions of the layer (RFC 4588).
    pub rtx: bool,
}

impl Participant {
    #[must_use]
    pub fn new(media: &Media, want: Want) -> Self {
        Self {
            sections: Vec::new(),
            extensions: ExtensionIds::default(),
            slots: media.slots.iter().map(new_slot).collect(),
            want,
            answered: 0,
            have_changed: false,
            homes: Vec::new(),
            away: false,
            feedback: media.feedback,
            twcc: Recorder::default(),
            transport_cc: 0,
            clock: SenderClock::default(),
            round_trip: FIRST_ROUND_TRIP,
            budget: Budget::default(),
            last_media: None,
            streams: Vec::new(),
        }
    }

    /// Adds a sending section; what the offer says of its sources is latched where it is unambiguous.
    pub fn add_section(&mut self, section: SendingSection, publication: PublicationKey) {
        let index = self.sections.len() as u8;
        if section.rids.is_empty() {
            for signaled in section.ssrcs.iter().take(1) {
                self.remember(Stream { ssrc: signaled.ssrc, section: index, layer: 0, rtx: false });
                if let Some(rtx) = signaled.rtx {
                    self.remember(Stream { ssrc: rtx, section: index, layer: 0, rtx: true });
                }
            }
        }
        self.extensions = self.extensions.or(&section.extensions);
        self.sections.push(Section { section, publication });
    }

    /// Adds the slots of a grown offer; those that are known stay as they are.
    pub fn add_slots(&mut self, sections: &[ReceiveSection]) {
        for section in sections {
            if !self.slots.iter().any(|slot| slot.section.mid == section.mid) {
                self.slots.push(new_slot(section));
            }
        }
    }

    #[must_use]
    pub fn section(&self, mid: Mid) -> Option<&Section> {
        self.sections.iter().find(|section| section.section.mid == mid)
    }

    /// The stream of a packet, latched if it is new (RFC 8843 §9.2, RFC 8852).
    ///
    /// # Errors
    /// [`Reason::UnknownStream`], [`Reason::StreamConflict`], [`Reason::UnknownPayloadType`],
    /// [`Reason::SrtpTooManySources`].
    pub fn latch(&mut self, header: &Header, extensions: &Received) -> Result<Stream, Reason> {
        if let Some(stream) = self.streams.iter().find(|stream| stream.ssrc == header.ssrc) {
            return self.check(*stream, header, extensions);
        }
        let mid = extensions.mid.ok_or(Reason::UnknownStream)?;
        let index = self
            .sections
            .iter()
            .position(|section| section.section.mid == mid)
            .ok_or(Reason::UnknownStream)?;
        let section = &self.sections[index].section;
        let rtx = section.is_rtx(header.payload_type)?;
        let rid = if rtx { extensions.repaired_rid } else { extensions.rid };
        let layer = match (section.rids.is_empty(), rid) {
            (true, _) => 0,
            (false, Some(rid)) => {
                section.rids.iter().position(|&known| known == rid).ok_or(Reason::UnknownStream)?
            }
            // A probe before the first packet of its encoding: no matter whose it is.
            (false, None) => return Err(Reason::UnknownStream),
        };
        let stream = Stream { ssrc: header.ssrc, section: index as u8, layer: layer as u8, rtx };
        let taken = |other: &Stream| Stream { ssrc: header.ssrc, ..*other } == stream;
        if self.streams.iter().any(taken) {
            return Err(Reason::StreamConflict);
        }
        if !self.remember(stream) {
            return Err(Reason::SrtpTooManySources);
        }
        Ok(stream)
    }

    /// The media stream with this source, for reports about it.
    #[must_use]
    pub fn stream(&self, ssrc: Ssrc) -> Option<Stream> {
        self.streams.iter().find(|stream| stream.ssrc == ssrc).copied()
    }

    /// The media streams that are latched.
    pub fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter()
    }

    /// Notes which slot a voice has.
    pub fn remember_home(&mut self, publication: PublicationKey, slot: u16) {
        self.homes.retain(|(known, _)| *known != publication);
        if self.homes.len() == MOST_HOMES {
            self.homes.remove(0);
        }
        self.homes.push((publication, slot));
    }

    /// The slot that a voice has, or had before.
    #[must_use]
    pub fn home(&self, publication: PublicationKey) -> Option<u16> {
        self.homes.iter().find(|(known, _)| *known == publication).map(|(_, slot)| *slot)
    }

    /// What the participant is told of its slots.
    #[must_use]
    pub fn have(&self, transport: TransportNumber) -> Have {
        Have { n: self.answered, transport, slots: self.slots.iter().map(Slot::state).collect() }
    }

    /// Whether anything was sent lately, so that feedback is worth its packets.
    #[must_use]
    pub fn is_sending(&self, now: Instant) -> bool {
        self.last_media.is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(2))
    }

    fn check(&self, stream: Stream, header: &Header, extensions: &Received) -> Result<Stream, Reason> {
        let section = &self.sections[usize::from(stream.section)].section;
        if extensions.mid.is_some_and(|mid| mid != section.mid) {
            return Err(Reason::StreamConflict);
        }
        if section.is_rtx(header.payload_type)? != stream.rtx {
            return Err(Reason::StreamConflict);
        }
        Ok(stream)
    }

    fn remember(&mut self, stream: Stream) -> bool {
        let room = self.streams.len() < MOST_STREAMS;
        if room {
            self.streams.push(stream);
        }
        room
    }
}

impl SendingSection {
    fn is_rtx(&self, payload_type: u8) -> Result<bool, Reason> {
        if payload_type == self.payload_type {
            Ok(false)
        } else if Some(payload_type) == self.rtx_payload_type {
            Ok(true)
        } else {
            Err(Reason::UnknownPayloadType)
        }
    }
}

fn new_slot(section: &ReceiveSection) -> Slot {
    Slot::new(section.clone(), rand::random(), rand::random())
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;
    use crate::id::{Mid, Rid};
    use crate::room::Kind;

    /// A microphone `0` and a camera `1` with two encodings.
    fn participant() -> Participant {
        let mut publications = SlotMap::<PublicationKey, ()>::with_key();
        let mut participant = Participant::new(&Media::default(), Want::default());
        let section = |mid: &[u8], kind, payload_type, rids: &[&[u8]]| SendingSection {
            mid: Mid::new(mid).expect("a mid"),
            kind,
            payload_type,
            rtx_payload_type: (kind == Kind::Video).then_some(97),
            extensions: ExtensionIds::default(),
            rids: rids.iter().filter_map(|rid| Rid::new(rid)).collect(),
            ssrcs: Vec::new(),
            nack: true,
        };
        participant.add_section(section(b"0", Kind::Audio, 111, &[]), publications.insert(()));
        participant.add_section(section(b"1", Kind::Video, 96, &[b"f", b"h"]), publications.insert(()));
        participant
    }

    fn latch(
        participant: &mut Participant,
        ssrc: u32,
        payload_type: u8,
        names: Received,
    ) -> Result<u8, Reason> {
        let mut packet = [0; 12];
        (packet[0], packet[1]) = (0x80, payload_type);
        packet[8..].copy_from_slice(&ssrc.to_be_bytes());
        let header = Header::parse(&packet).expect("well-formed");
        participant.latch(&header, &names).map(|stream| stream.section * 10 + stream.layer)
    }

    fn names(mid: &[u8], rid: &[u8], repaired: &[u8]) -> Received {
        Received {
            mid: Mid::new(mid),
            rid: Rid::new(rid),
            repaired_rid: Rid::new(repaired),
            ..Received::default()
        }
    }

    #[test]
    fn a_source_stays_what_its_first_packet_said() {
        let mut participant = participant();
        assert_eq!(latch(&mut participant, 1, 96, names(b"1", b"h", b"")), Ok(11));
        assert_eq!(latch(&mut participant, 2, 97, names(b"1", b"", b"f")), Ok(10));
        for (ssrc, payload_type, place) in [(1, 96, 11), (2, 97, 10)] {
            assert_eq!(
                latch(&mut participant, ssrc, payload_type, Received::default()),
                Ok(place),
                "without names"
            );
        }
        let conflict = Err(Reason::StreamConflict);
        assert_eq!(latch(&mut participant, 1, 96, names(b"0", b"", b"")), conflict, "another section");
        assert_eq!(latch(&mut participant, 1, 97, Received::default()), conflict, "media turns into repairs");
        assert_eq!(
            latch(&mut participant, 9, 96, names(b"1", b"h", b"")),
            conflict,
            "the encoding has a source"
        );
    }

    #[test]
    fn what_names_nothing_known_is_not_latched() {
        let mut participant = participant();
        let unknown = Err(Reason::UnknownStream);
        assert_eq!(latch(&mut participant, 1, 96, Received::default()), unknown, "no section");
        assert_eq!(latch(&mut participant, 1, 96, names(b"7", b"f", b"")), unknown, "no such section");
        assert_eq!(latch(&mut participant, 1, 96, names(b"1", b"", b"")), unknown, "which encoding?");
        assert_eq!(latch(&mut participant, 1, 96, names(b"1", b"q", b"")), unknown, "no such encoding");
        let foreign = Err(Reason::UnknownPayloadType);
        assert_eq!(latch(&mut participant, 1, 96, names(b"0", b"", b"")), foreign, "a picture as sound");
        assert_eq!(participant.streams().count(), 0);
    }
}
