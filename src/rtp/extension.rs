//! Header extensions (RFC 8285) by name: what a publisher's packet says, and the header of a forwarded packet.
//!
//! Only an allow-list passes. A forwarded header is written from scratch, because ids differ from receiver to
//! receiver and because whatever else a publisher put there is nobody's business.

use super::header::{FIXED_LEN, Header, ONE_BYTE};
use crate::id::{Mid, Rid, Ssrc};

/// The header extensions that this server understands, as one transport negotiated them.
///
/// Ids are per browser and the same in all bundled sections (RFC 8843 §9.1). 0 means not negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`
    pub mid: u8,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`
    pub rid: u8,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`
    pub repaired_rid: u8,
    /// `http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01`
    pub transport_cc: u8,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` (RFC 6464)
    pub audio_level: u8,
    /// `urn:3gpp:video-orientation`
    pub video_orientation: u8,
}

/// What one packet's extensions say, of those that were negotiated. A value of the wrong form counts as absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The section it belongs to (RFC 8843 §15).
    pub mid: Option<Mid>,
    /// The simulcast encoding (RFC 8852 §3.1).
    pub rid: Option<Rid>,
    /// On a retransmission: the encoding that it repairs (RFC 8852 §3.2).
    pub repaired_rid: Option<Rid>,
    /// The transport-wide sequence number.
    pub transport_cc: Option<u16>,
    /// The raw byte of RFC 6464: voice activity in the high bit, then the level in −dBov, 0 (loud) to 127.
    pub audio_level: Option<u8>,
    /// The raw byte of 3GPP TS 26.114 §7.4.5: `0000CFRR`.
    pub video_orientation: Option<u8>,
}

impl ExtensionIds {
    /// These ids, and where one is missing the other's: sections of one connection share their ids, but each
    /// negotiates only what suits its kind.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        let either = |own: u8, other: u8| if own == 0 { other } else { own };
        Self {
            mid: either(self.mid, other.mid),
            rid: either(self.rid, other.rid),
            repaired_rid: either(self.repaired_rid, other.repaired_rid),
            transport_cc: either(self.transport_cc, other.transport_cc),
            audio_level: either(self.audio_level, other.audio_level),
            video_orientation: either(self.video_orientation, other.video_orientation),
        }
    }

    /// Reads the extensions of `packet`, from which `header` was parsed.
    #[inline]
    #[must_use]
    pub fn read(&self, header: &Header, packet: &[u8]) -> Received {
        let mut received = Received::default();
        // An element's id is never 0, so what was not negotiated matches nothing. The order is that of
        // frequency: browsers stop sending the names as soon as a receiver report has come.
        for (id, data) in header.extensions(packet) {
            if id == self.transport_cc {
                received.transport_cc = data.first_chunk().map(|&bytes| u16::from_be_bytes(bytes));
            } else if id == self.audio_level {
                received.audio_level = data.first().copied();
            } else if id == self.video_orientation {
                received.video_orientation = data.first().copied();
            } else if id == self.mid {
                received.mid = Mid::new(data);
            } else if id == self.rid {
                received.rid = Rid::new(data);
            } else if id == self.repaired_rid {
                received.repaired_rid = Rid::new(data);
            }
        }
        received
    }
}

/// What a forwarded packet's header says. It is written from scratch for each receiver, with one-byte extension
/// elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub marker: bool,
    /// The payload is followed by padding, whose last byte is its length.
    pub padding: bool,
    /// 0 to 127.
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: Ssrc,
    pub csrc: Option<u32>,
    /// Extensions: `None`, or an id that the receiver did not negotiate, leaves one out.
    pub transport_cc: Option<u16>,
    pub audio_level: Option<u8>,
    pub video_orientation: Option<u8>,
}

impl Outgoing {
    /// The longest header that is ever written: one CSRC, the extension's own header, and 3 + 2 + 2 bytes of
    /// elements padded to 8.
    pub const MAX_LEN: usize = FIXED_LEN + 4 + 4 + 8;

    /// Writes the header to the beginning of `out` and returns its length; `None` where it does not fit.
    #[inline]
    pub fn write(&self, ids: &ExtensionIds, out: &mut [u8]) -> Option<usize> {
        if let Some(out) = out.first_chunk_mut() {
            return Some(self.fill(ids, out));
        }
        // Never so on the packet path, where `out` is a whole datagram.
        let mut whole = [0; Self::MAX_LEN];
        let len = self.fill(ids, &mut whole);
        out.get_mut(..len)?.copy_from_slice(&whole[..len]);
        Some(len)
    }

    /// The length that [`Outgoing::write`] gives the header.
    #[inline]
    #[must_use]
    pub fn len(&self, ids: &ExtensionIds) -> usize {
        let (_, bytes) = self.elements(ids);
        FIXED_LEN + usize::from(self.csrc.is_some()) * 4 + extension_len(bytes)
    }

    /// Every byte of `out` may be written, also those beyond the header: whole words at fixed places are
    /// cheaper than copies of the exact length, and the payload comes afterwards.
    #[inline]
    fn fill(&self, ids: &ExtensionIds, out: &mut [u8; Self::MAX_LEN]) -> usize {
        let (elements, bytes) = self.elements(ids);
        let csrcs = u8::from(self.csrc.is_some());
        out[0] = 0x80 | u8::from(self.padding) << 5 | u8::from(bytes != 0) << 4 | csrcs;
        out[1] = u8::from(self.marker) << 7 | self.payload_type & 0x7F;
        out[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        out[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.0.to_be_bytes());
        out[12..16].copy_from_slice(&self.csrc.unwrap_or(0).to_be_bytes());
        let start = FIXED_LEN + 4 * usize::from(csrcs);
        let words = bytes.div_ceil(4);
        out[start..start + 4].copy_from_slice(&(u32::from(ONE_BYTE) << 16 | words).to_be_bytes());
        out[start + 4..start + 12].copy_from_slice(&elements.to_be_bytes());
        start + extension_len(bytes)
    }

    /// The extension elements, left-aligned and followed by zeros, and how many bytes they take (0 to 7).
    #[inline]
    fn elements(&self, ids: &ExtensionIds) -> (u64, u32) {
        let mut elements = 0;
        let mut bytes = 0;
        let mut push = |id: u8, value: u64, len: u32| {
            // RFC 8285 §4.2: id in the high half, length − 1 in the low. 15 and above cannot be written so.
            elements |= (u64::from(id << 4) | u64::from(len - 1)) << (56 - 8 * bytes);
            elements |= value << (56 - 8 * (bytes + len));
            bytes += 1 + len;
        };
        if let (Some(value), 1..=14) = (self.transport_cc, ids.transport_cc) {
            push(ids.transport_cc, value.into(), 2);
        }
        if let (Some(value), 1..=14) = (self.audio_level, ids.audio_level) {
            push(ids.audio_level, value.into(), 1);
        }
        if let (Some(value), 1..=14) = (self.video_orientation, ids.video_orientation) {
            push(ids.video_orientation, value.into(), 1);
        }
        (elements, bytes)
    }
}

/// Length of a whole extension whose elements take `bytes`: none at all, or its header and whole words.
#[inline]
fn extension_len(bytes: u32) -> usize {
    if bytes == 0 { 0 } else { 4 + bytes.next_multiple_of(4) as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: ExtensionIds = ExtensionIds {
        mid: 4,
        rid: 10,
        repaired_rid: 11,
        transport_cc: 3,
        audio_level: 1,
        video_orientation: 13,
    };

    fn outgoing() -> Outgoing {
        Outgoing {
            marker: true,
            padding: false,
            payload_type: 111,
            sequence: 0xFFFE,
            timestamp: 0x8000_0001,
            ssrc: Ssrc(0xDEAD_BEEF),
            csrc: Some(0x0102_0304),
            transport_cc: Some(0x1234),
            audio_level: Some(0x85),
            video_orientation: Some(0x01),
        }
    }

    fn packet(profile: u16, elements: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        packet.extend(profile.to_be_bytes());
        packet.extend((elements.len().div_ceil(4) as u16).to_be_bytes());
        packet.extend(elements);
        packet.resize(packet.len().next_multiple_of(4), 0);
        packet
    }

    fn read(packet: &[u8]) -> Received {
        IDS.read(&Header::parse(packet).expect("well-formed"), packet)
    }

    #[test]
    fn reads_all_extensions_in_both_forms() {
        let one = packet(
            ONE_BYTE,
            &[0x31, 7, 8, 0x40, b'5', 0xA0, b'h', 0xB1, b'q', b'1', 0x10, 0x9F, 0xD0, 0x0A, 0x20, 99],
        );
        let two = packet(
            0x1000,
            &[3, 2, 7, 8, 4, 1, b'5', 10, 1, b'h', 11, 2, b'q', b'1', 1, 1, 0x9F, 13, 1, 0x0A, 2, 1, 99],
        );
        let expected = Received {
            mid: Mid::new(b"5"),
            rid: Rid::new(b"h"),
            repaired_rid: Rid::new(b"q1"),
            transport_cc: Some(0x0708),
            audio_level: Some(0x9F),
            video_orientation: Some(0x0A),
        };
        assert_eq!(read(&one), expected);
        assert_eq!(read(&two), expected);
    }

    #[test]
    fn what_was_not_negotiated_or_has_the_wrong_form_is_absent() {
        let packet = packet(0x1000, &[3, 1, 7, 4, 0, 10, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 0]);
        assert_eq!(read(&packet), Received::default());
        let header = Header::parse(&packet).expect("well-formed");
        assert_eq!(ExtensionIds::default().read(&header, &packet), Received::default());
    }

    #[test]
    fn a_written_header_reads_back() {
        let mut out = [0xFF; 100];
        let len = outgoing().write(&IDS, &mut out).expect("fits");
        assert_eq!(len, outgoing().len(&IDS));
        assert_eq!(len, Outgoing::MAX_LEN);
        let header = Header::parse(&out[..len]).expect("well-formed");
        assert_eq!((header.marker, header.padding, header.payload_type), (true, false, 111));
        assert_eq!((header.sequence, header.timestamp), (0xFFFE, 0x8000_0001));
        assert_eq!((header.ssrc, header.csrcs, header.len), (Ssrc(0xDEAD_BEEF), 1, len));
        assert_eq!(out[12..16], [1, 2, 3, 4]);
        let received = IDS.read(&header, &out[..len]);
        assert_eq!(received.transport_cc, Some(0x1234));
        assert_eq!((received.audio_level, received.video_orientation), (Some(0x85), Some(0x01)));
    }

    #[test]
    fn extensions_without_id_or_value_are_left_out() {
        let mut out = [0xFF; 100];
        let none = Outgoing { csrc: None, ..outgoing() };
        assert_eq!(none.write(&ExtensionIds::default(), &mut out), Some(12), "no id");
        assert_eq!(out[0], 0x80);
        let silent =
            Outgoing { transport_cc: None, audio_level: None, video_orientation: None, ..outgoing() };
        assert_eq!(silent.write(&IDS, &mut out), Some(16), "no value");
        let level = Outgoing { transport_cc: None, video_orientation: None, ..outgoing() };
        assert_eq!(level.write(&IDS, &mut out), Some(24), "two bytes padded to a word");
        assert_eq!(out[16..24], [0xBE, 0xDE, 0, 1, 0x10, 0x85, 0, 0]);
        let wide = ExtensionIds { transport_cc: 15, audio_level: 16, video_orientation: 255, ..IDS };
        assert_eq!(outgoing().write(&wide, &mut out), Some(16), "ids that need the two-byte form");
    }

    #[test]
    fn a_buffer_of_exactly_the_length_suffices_and_a_shorter_one_does_not() {
        for header in [outgoing(), Outgoing { audio_level: None, ..outgoing() }] {
            let len = header.len(&IDS);
            for size in 0..Outgoing::MAX_LEN + 2 {
                let mut out = vec![0; size];
                assert_eq!(header.write(&IDS, &mut out), (size >= len).then_some(len));
            }
        }
    }
}
