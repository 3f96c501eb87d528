//! The RTP header as it arrives (RFC 3550 §5.1) and its extension elements (RFC 8285).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |V=2|P|X|  CC   |M|     PT      |       sequence number         |
//! |                           timestamp                           |
//! |           synchronization source (SSRC) identifier            |
//! |            contributing source (CSRC) identifiers             |
//! |        profile (X)            |   length in 32-bit words (X)  |
//! |                        extension elements                     |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use crate::id::Ssrc;
use crate::observe::reason::Reason;

/// The part of a header that is always there.
pub const FIXED_LEN: usize = 12;

/// Extension elements with a byte for id and length together (RFC 8285 §4.2).
pub(super) const ONE_BYTE: u16 = 0xBEDE;
/// Extension elements with a byte for the id and one for the length (RFC 8285 §4.3); the low four bits are
/// the application's.
const TWO_BYTE: u16 = 0x1000;
const TWO_BYTE_MASK: u16 = 0xFFF0;

/// A parsed header. It stays readable while the payload is still encrypted (RFC 3711 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub marker: bool,
    /// 0 to 127.
    pub payload_type: u8,
    pub sequence: u16,
    /// In the clock of the payload type.
    pub timestamp: u32,
    pub ssrc: Ssrc,
    /// The payload ends with padding; how much, only the decrypted payload tells: [`padding_len`].
    pub padding: bool,
    /// Number of contributing sources, 0 to 15.
    pub csrcs: u8,
    /// 0 without an extension, which no known profile uses.
    profile: u16,
    /// Bytes before the payload: contributing sources and extension included.
    pub len: usize,
}

impl Header {
    /// Reads the header of a datagram.
    ///
    /// # Errors
    /// [`Reason::RtpMalformed`] where the version is not 2 or the header reaches beyond the datagram. An
    /// extension whose elements are malformed is no error: iterating over them ends there.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Header, Reason> {
        let Some(fixed) = packet.first_chunk::<FIXED_LEN>() else { return Err(Reason::RtpMalformed) };
        let [first, second, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = *fixed;
        if first >> 6 != 2 {
            return Err(Reason::RtpMalformed);
        }
        let csrcs = first & 0x0F;
        let mut len = FIXED_LEN + 4 * usize::from(csrcs);
        let mut profile = 0;
        if first & 0x10 != 0 {
            let Some(&[p0, p1, l0, l1]) = packet.get(len..).and_then(|rest| rest.first_chunk()) else {
                return Err(Reason::RtpMalformed);
            };
            profile = u16::from_be_bytes([p0, p1]);
            len += 4 + 4 * usize::from(u16::from_be_bytes([l0, l1]));
        }
        if len > packet.len() {
            return Err(Reason::RtpMalformed);
        }
        Ok(Header {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7F,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: Ssrc(u32::from_be_bytes([i0, i1, i2, i3])),
            padding: first & 0x20 != 0,
            csrcs,
            profile,
            len,
        })
    }

    /// The extension elements of `packet`, from which this header was parsed. Browsers alternate the one-byte
    /// and the two-byte form within one stream, so the form is each packet's own.
    #[inline]
    #[must_use]
    pub fn extensions<'a>(&self, packet: &'a [u8]) -> Extensions<'a> {
        let start = FIXED_LEN + 4 * usize::from(self.csrcs) + 4;
        let two_byte = self.profile & TWO_BYTE_MASK == TWO_BYTE;
        let rest = if two_byte || self.profile == ONE_BYTE { packet.get(start..self.len) } else { None };
        Extensions { rest: rest.unwrap_or_default(), two_byte }
    }
}

/// The elements of one packet's extension, in order: `(id, data)`. The id is 1 to 14 in the one-byte form and 1
/// to 255 in the two-byte form. Ends at the first malformed element.
#[derive(Clone, Debug)]
pub struct Extensions<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            if first == 0 {
                self.rest = rest; // padding between elements
                continue;
            }
            let (id, len, rest) = if self.two_byte {
                let (&len, rest) = rest.split_first().unwrap_or((&u8::MAX, &[]));
                (first, usize::from(len), rest)
            } else {
                (first >> 4, usize::from(first & 0x0F) + 1, rest)
            };
            // RFC 8285 §4.2: in the one-byte form 15 is reserved, and 0 with a length is no padding; both end it.
            let ends = !self.two_byte && (id == 0 || id == 15);
            if ends || len > rest.len() {
                self.rest = &[];
                return None;
            }
            let (data, rest) = rest.split_at(len);
            self.rest = rest;
            return Some((id, data));
        }
    }
}

/// How many bytes at the end of a decrypted payload are padding; 0 where the header announces none.
///
/// # Errors
/// [`Reason::RtpMalformed`] where the announced padding is 0 or longer than the payload.
#[inline]
pub fn padding_len(header: &Header, payload: &[u8]) -> Result<usize, Reason> {
    if !header.padding {
        return Ok(0);
    }
    match payload.last() {
        Some(&len) if len != 0 && usize::from(len) <= payload.len() => Ok(usize::from(len)),
        _ => Err(Reason::RtpMalformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A packet with the given first byte, extension profile and extension words.
    fn packet(first: u8, csrcs: &[u32], profile: u16, extension: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![first | csrcs.len() as u8, 0x80 | 96, 0x12, 0x34];
        packet.extend(0x0102_0304_u32.to_be_bytes());
        packet.extend(0xAABB_CCDD_u32.to_be_bytes());
        packet.extend(csrcs.iter().flat_map(|c| c.to_be_bytes()));
        if first & 0x10 != 0 {
            packet.extend(profile.to_be_bytes());
            packet.extend(((extension.len() / 4) as u16).to_be_bytes());
            packet.extend(extension);
        }
        packet.extend(payload);
        packet
    }

    fn elements(profile: u16, extension: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let packet = packet(0x90, &[7], profile, extension, b"payload");
        let header = Header::parse(&packet).expect("well-formed");
        header.extensions(&packet).map(|(id, data)| (id, data.to_vec())).collect()
    }

    #[test]
    fn reads_every_field_and_the_length_of_csrcs_and_extension() {
        let packet = packet(0xB0, &[1, 2], ONE_BYTE, &[0x10, 9, 0, 0], &[0, 0, 3]);
        let header = Header::parse(&packet).expect("well-formed");
        assert!(header.marker && header.padding);
        assert_eq!((header.payload_type, header.sequence, header.csrcs), (96, 0x1234, 2));
        assert_eq!((header.timestamp, header.ssrc), (0x0102_0304, Ssrc(0xAABB_CCDD)));
        assert_eq!(header.len, 12 + 8 + 8);
        assert_eq!(padding_len(&header, &packet[header.len..]), Ok(3));
    }

    #[test]
    fn every_truncation_of_the_header_is_malformed() {
        let packet = packet(0x90, &[1, 2, 3], ONE_BYTE, &[0x10, 9, 0, 0], &[]);
        for len in 0..packet.len() {
            assert_eq!(Header::parse(&packet[..len]), Err(Reason::RtpMalformed), "{len}");
        }
        assert_eq!(Header::parse(&packet).map(|h| h.len), Ok(packet.len()));
    }

    #[test]
    fn other_versions_are_malformed() {
        for first in [0x00, 0x40, 0xC0] {
            assert_eq!(Header::parse(&packet(first, &[], 0, &[], b"x")), Err(Reason::RtpMalformed));
        }
    }

    #[test]
    fn one_byte_elements_with_padding_between_and_after() {
        let elements = elements(ONE_BYTE, &[0x10, 0xA0, 0, 0, 0x32, 1, 2, 3, 0xE0, 5, 0, 0]);
        assert_eq!(elements, [(1, vec![0xA0]), (3, vec![1, 2, 3]), (14, vec![5])]);
    }

    #[test]
    fn one_byte_id_15_and_a_padding_id_with_length_end_the_extension() {
        assert_eq!(elements(ONE_BYTE, &[0x10, 1, 0xF0, 2, 0x20, 3, 0, 0]), [(1, vec![1])]);
        assert_eq!(elements(ONE_BYTE, &[0x10, 1, 0x01, 2, 0x20, 3, 0, 0]), [(1, vec![1])]);
    }

    #[test]
    fn two_byte_elements_may_be_empty_and_have_any_id() {
        for profile in [0x1000, 0x100F] {
            let elements = elements(profile, &[1, 0, 0, 15, 2, 8, 9, 200, 1, 7, 0, 0]);
            assert_eq!(elements, [(1, vec![]), (15, vec![8, 9]), (200, vec![7])]);
        }
    }

    #[test]
    fn an_element_beyond_the_extension_ends_it() {
        assert_eq!(elements(ONE_BYTE, &[0x10, 1, 0x2F, 0]), [(1, vec![1])]);
        assert_eq!(elements(TWO_BYTE, &[1, 1, 9, 3]), [(1, vec![9])], "an id without a length");
        assert_eq!(elements(TWO_BYTE, &[1, 3, 9, 3]), []);
    }

    #[test]
    fn other_profiles_have_no_elements_but_count_for_the_length() {
        assert_eq!(elements(0x1010, &[1, 0, 0, 0]), []);
        assert_eq!(elements(0, &[0x10, 1, 0, 0]), []);
    }

    #[test]
    fn padding_of_zero_or_beyond_the_payload_is_malformed() {
        let with = Header::parse(&packet(0xA0, &[], 0, &[], &[])).expect("well-formed");
        let without = Header::parse(&packet(0x80, &[], 0, &[], &[])).expect("well-formed");
        assert_eq!(padding_len(&with, &[]), Err(Reason::RtpMalformed));
        assert_eq!(padding_len(&with, &[1, 0]), Err(Reason::RtpMalformed));
        assert_eq!(padding_len(&with, &[1, 3]), Err(Reason::RtpMalformed));
        assert_eq!(padding_len(&with, &[1, 2]), Ok(2));
        assert_eq!(padding_len(&without, &[1, 3]), Ok(0));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_stay_within_the_packet(
            first in 0x80u8..0xC0,
            profile in prop_oneof![Just(ONE_BYTE), Just(TWO_BYTE), any::<u16>()],
            words in 0u16..12,
            mut packet in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            // Without CSRCs, so that profile and length stand where they are read.
            if let [start, _, _, _, _, _, _, _, _, _, _, _, p0, p1, l0, l1, ..] = packet.as_mut_slice() {
                *start = first & 0xF0;
                [*p0, *p1] = profile.to_be_bytes();
                [*l0, *l1] = words.to_be_bytes();
            }
            if let Ok(header) = Header::parse(&packet) {
                let range = packet[..header.len].as_ptr_range();
                for (id, data) in header.extensions(&packet) {
                    let element = data.as_ptr_range();
                    prop_assert!(id != 0 && range.start <= element.start && element.end <= range.end);
                }
                let payload = &packet[header.len..];
                prop_assert!(padding_len(&header, payload).unwrap_or(0) <= payload.len());
            }
        }
    }
}
