//! What one client sends.

use super::cipher::{Cipher, ENCRYPTED};
use super::keys::{MasterKey, Use, session_cipher};
use super::window::{Refused, Window};
use super::{MAX_SOURCES, Profile, RTCP_CLEAR_LEN, SRTCP_INDEX_LEN};
use crate::id::Ssrc;
use crate::observe::reason::Reason;

/// Verifies and decrypts the packets of one client, each at most once. Nothing changes before the tag of a packet
/// is verified: a stranger can neither use up the sources nor move a window.
pub struct Opener {
    rtp: Cipher,
    rtcp: Cipher,
    rtp_sources: Sources,
    rtcp_sources: Sources,
}

/// Keys are never logged.
impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

impl Opener {
    /// `master` is the client's direction, made for the same profile.
    #[must_use]
    pub fn new(profile: Profile, master: &MasterKey) -> Self {
        Self {
            rtp: session_cipher(profile, master, Use::Rtp),
            rtcp: session_cipher(profile, master, Use::Rtcp),
            rtp_sources: Sources::default(),
            rtcp_sources: Sources::default(),
        }
    }

    /// Opens an SRTP packet in place (RFC 3711 §3.3). `header_len`, `ssrc` and `sequence` are those of its RTP
    /// header. Returns the length of the payload, which then stands at `header_len`; after an error the bytes
    /// behind the header are worthless.
    ///
    /// # Errors
    /// [`Reason::TooShort`], [`Reason::SrtpTooManySources`], [`Reason::SrtpReplayed`], [`Reason::SrtpTooOld`],
    /// [`Reason::SrtpAuthentication`], [`Reason::SealKeyExhausted`].
    pub fn open_rtp(
        &mut self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: Ssrc,
        sequence: u16,
    ) -> Result<usize, Reason> {
        let overhead = header_len.saturating_add(self.rtp.tag_len());
        let payload_len = packet.len().checked_sub(overhead).ok_or(Reason::TooShort)?;
        let place = self.rtp_sources.find(ssrc)?;
        // A packet from before index 0 cannot exist; a client that jumped ahead by more than half a cycle at its
        // very beginning is the only way to such a number, and libsrtp counts it as roll-over counter 0, too.
        let index = self.rtp_sources.index_of(place, sequence)?.unwrap_or(u64::from(sequence));
        self.rtp_sources.check(place, index)?;
        self.rtp.open_rtp((ssrc, index), packet, header_len)?;
        self.rtp_sources.record(place, ssrc, index);
        Ok(payload_len)
    }

    /// Opens an SRTCP packet in place (RFC 3711 §3.4). Returns the length of the compound packet, which then
    /// stands at the beginning.
    ///
    /// # Errors
    /// [`Reason::TooShort`], [`Reason::SrtpTooManySources`], [`Reason::SrtpReplayed`], [`Reason::SrtpTooOld`],
    /// [`Reason::SrtpAuthentication`].
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Reason> {
        let overhead = self.rtcp.tag_len() + SRTCP_INDEX_LEN;
        let plain_len = packet.len().checked_sub(overhead).ok_or(Reason::TooShort)?;
        let ssrc = rtcp_ssrc(&packet[..plain_len]).ok_or(Reason::TooShort)?;
        let place = self.rtcp_sources.find(ssrc)?;
        let trailer = self.rtcp.rtcp_trailer(packet);
        let index = u64::from(trailer & !ENCRYPTED);
        self.rtcp_sources.check(place, index)?;
        self.rtcp.open_rtcp(ssrc, trailer, packet)?;
        self.rtcp_sources.record(place, ssrc, index);
        Ok(plain_len)
    }
}

/// The sender's SSRC of an RTCP packet; `None` where it is too short for one.
pub(super) fn rtcp_ssrc(packet: &[u8]) -> Option<Ssrc> {
    let bytes = packet.get(4..RTCP_CLEAR_LEN)?;
    Some(Ssrc(u32::from_be_bytes(bytes.try_into().ok()?)))
}

/// Windows by SSRC: two flat lists, because at most [`MAX_SOURCES`] numbers are found faster than hashed, and the
/// last found is tried first because packets of a source come in runs.
#[derive(Default)]
struct Sources {
    ssrcs: Vec<Ssrc>,
    windows: Vec<Window>,
    last: usize,
}

/// Where a source stands; `None`: it is new.
type Place = Option<usize>;

impl Sources {
    /// [`Reason::SrtpTooManySources`] for a new one where no more fit, before any cipher is asked.
    #[inline]
    fn find(&self, ssrc: Ssrc) -> Result<Place, Reason> {
        if self.ssrcs.get(self.last) == Some(&ssrc) {
            return Ok(Some(self.last));
        }
        let place = self.ssrcs.iter().position(|&known| known == ssrc);
        if place.is_none() && self.ssrcs.len() >= MAX_SOURCES {
            return Err(Reason::SrtpTooManySources);
        }
        Ok(place)
    }

    #[inline]
    fn index_of(&self, place: Place, sequence: u16) -> Result<Option<u64>, Reason> {
        place.map_or(Ok(Some(u64::from(sequence))), |at| self.windows[at].index_of(sequence))
    }

    #[inline]
    fn check(&self, place: Place, index: u64) -> Result<(), Reason> {
        let Some(at) = place else { return Ok(()) };
        self.windows[at].check(index).map_err(|refused| match refused {
            Refused::Used => Reason::SrtpReplayed,
            Refused::TooOld => Reason::SrtpTooOld,
        })
    }

    /// Only for verified packets: here a new source gets its window.
    #[inline]
    fn record(&mut self, place: Place, ssrc: Ssrc, index: u64) {
        self.last = place.unwrap_or_else(|| {
            self.ssrcs.push(ssrc);
            self.windows.push(Window::default());
            self.windows.len() - 1
        });
        self.windows[self.last].record(index);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{PROFILES, header, master};
    use super::super::{SealStream, Sealer};
    use super::*;

    fn pair(profile: Profile) -> (Sealer, Opener) {
        (Sealer::new(profile, &master(profile, 1)), Opener::new(profile, &master(profile, 1)))
    }

    fn sealed(sealer: &mut Sealer, stream: &mut SealStream, sequence: u16) -> Vec<u8> {
        let mut out = [0; 100];
        out[..12].copy_from_slice(&header(stream.ssrc(), sequence));
        let len = sealer.seal_rtp(stream, sequence, &mut out, 12, b"twenty bytes of text", &[]).expect("new");
        out[..len].to_vec()
    }

    fn sealed_report(sealer: &mut Sealer, ssrc: Ssrc) -> Vec<u8> {
        let mut out = [0; 100];
        out[..4].copy_from_slice(&[0x80, 201, 0, 1]);
        out[4..8].copy_from_slice(&ssrc.0.to_be_bytes());
        out[8..20].copy_from_slice(b"and a report");
        let len = sealer.seal_rtcp(&mut out, 20).expect("there is room");
        out[..len].to_vec()
    }

    /// As the packet path calls it: SSRC and sequence number are what the header says.
    fn open(opener: &mut Opener, packet: &[u8]) -> Result<Vec<u8>, Reason> {
        let mut packet = packet.to_vec();
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        let ssrc = rtcp_ssrc(&packet[4..]).expect("twelve bytes");
        let len = opener.open_rtp(&mut packet, 12, ssrc, sequence)?;
        Ok(packet[12..12 + len].to_vec())
    }

    #[test]
    fn a_packet_opens_once() {
        for profile in PROFILES {
            let (mut sealer, mut opener) = pair(profile);
            let packet = sealed(&mut sealer, &mut SealStream::new(Ssrc(1)), 40_000);
            assert_eq!(open(&mut opener, &packet).as_deref(), Ok(&b"twenty bytes of text"[..]));
            assert_eq!(open(&mut opener, &packet), Err(Reason::SrtpReplayed));

            let report = sealed_report(&mut sealer, Ssrc(1));
            let mut copy = report.clone();
            assert_eq!(opener.open_rtcp(&mut copy), Ok(20));
            assert_eq!(copy[8..20], *b"and a report");
            assert_eq!(opener.open_rtcp(&mut report.clone()), Err(Reason::SrtpReplayed));
        }
    }

    #[test]
    fn a_packet_older_than_the_window_is_refused() {
        let (mut sealer, mut opener) = pair(Profile::AeadAes128Gcm);
        let mut stream = SealStream::new(Ssrc(1));
        let packets: Vec<_> =
            (0..1025).map(|at| sealed(&mut sealer, &mut stream, 65_000_u16.wrapping_add(at))).collect();
        assert!(open(&mut opener, &packets[2]).is_ok());
        assert!(open(&mut opener, &packets[1024]).is_ok());
        assert_eq!(open(&mut opener, &packets[0]), Err(Reason::SrtpTooOld));
        assert!(open(&mut opener, &packets[1]).is_ok());
    }

    #[test]
    fn tampering_with_any_byte_is_refused_and_changes_nothing() {
        for profile in PROFILES {
            let (mut sealer, mut opener) = pair(profile);
            let mut stream = SealStream::new(Ssrc(1));
            let first = sealed(&mut sealer, &mut stream, 500);
            assert!(open(&mut opener, &first).is_ok());
            let packet = sealed(&mut sealer, &mut stream, 501);
            for at in 0..packet.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut forged = packet.clone();
                    forged[at] ^= flip;
                    let refused = open(&mut opener, &forged).expect_err("it is not what was sealed");
                    let replayed = at == 3 && forged[3] == first[3];
                    let expected = if replayed { Reason::SrtpReplayed } else { Reason::SrtpAuthentication };
                    assert!(
                        refused == expected || refused == Reason::SrtpTooOld,
                        "{profile:?} byte {at}: {refused:?}"
                    );
                }
            }
            assert!(open(&mut opener, &packet).is_ok());
            assert!(open(&mut opener, &sealed(&mut sealer, &mut stream, 502)).is_ok());
            assert_eq!(opener.rtp_sources.ssrcs.len(), 1);

            let report = sealed_report(&mut sealer, Ssrc(1));
            for at in 0..report.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut forged = report.clone();
                    forged[at] ^= flip;
                    assert_eq!(
                        opener.open_rtcp(&mut forged),
                        Err(Reason::SrtpAuthentication),
                        "{profile:?} byte {at}"
                    );
                }
            }
            assert_eq!(opener.rtcp_sources.ssrcs.len(), 0);
            assert_eq!(opener.open_rtcp(&mut report.clone()), Ok(20));
        }
    }

    #[test]
    fn truncated_packets_are_refused() {
        for profile in PROFILES {
            let (mut sealer, mut opener) = pair(profile);
            let packet = sealed(&mut sealer, &mut SealStream::new(Ssrc(1)), 1);
            for len in 12..packet.len() {
                assert!(open(&mut opener, &packet[..len]).is_err(), "{profile:?} {len} bytes");
            }
            let report = sealed_report(&mut sealer, Ssrc(1));
            for len in 0..report.len() {
                assert!(opener.open_rtcp(&mut report[..len].to_vec()).is_err(), "{profile:?} {len} bytes");
            }
            assert_eq!(opener.open_rtp(&mut [0; 40], usize::MAX, Ssrc(1), 1), Err(Reason::TooShort));
        }
    }

    #[test]
    fn a_reflected_packet_does_not_open() {
        let profile = Profile::AeadAes256Gcm;
        let mut opener = Opener::new(profile, &master(profile, 2));
        let mut sealer = Sealer::new(profile, &master(profile, 1));
        let packet = sealed(&mut sealer, &mut SealStream::new(Ssrc(1)), 1);
        assert_eq!(open(&mut opener, &packet), Err(Reason::SrtpAuthentication));
    }

    #[test]
    fn sources_are_bounded_and_strangers_use_none_up() {
        let (mut sealer, mut opener) = pair(Profile::AeadAes128Gcm);
        for ssrc in 0..1000 {
            let mut forged = header(Ssrc(ssrc), 1).to_vec();
            forged.extend([0; 40]);
            assert_eq!(open(&mut opener, &forged), Err(Reason::SrtpAuthentication));
        }
        let mut streams: Vec<_> = (0..=MAX_SOURCES as u32).map(|ssrc| SealStream::new(Ssrc(ssrc))).collect();
        for stream in &mut streams[..MAX_SOURCES] {
            assert!(open(&mut opener, &sealed(&mut sealer, stream, 1)).is_ok());
            assert!(opener.open_rtcp(&mut sealed_report(&mut sealer, stream.ssrc())).is_ok());
        }
        let excess = &mut streams[MAX_SOURCES];
        assert_eq!(open(&mut opener, &sealed(&mut sealer, excess, 1)), Err(Reason::SrtpTooManySources));
        let mut report = sealed_report(&mut sealer, excess.ssrc());
        assert_eq!(opener.open_rtcp(&mut report), Err(Reason::SrtpTooManySources));
        assert!(open(&mut opener, &sealed(&mut sealer, &mut streams[0], 2)).is_ok());
    }

    #[test]
    fn two_full_cycles_of_sequence_numbers_open() {
        let (mut sealer, mut opener) = pair(Profile::AeadAes128Gcm);
        let mut stream = SealStream::new(Ssrc(1));
        let mut sequence = 60_000_u16;
        for _ in 0..2 * 65_536 + 10_000 {
            let mut out = [0; 32];
            let len = sealer.seal_rtp(&mut stream, sequence, &mut out, 12, &[1, 2, 3], &[]).expect("new");
            assert_eq!(opener.open_rtp(&mut out[..len], 12, Ssrc(1), sequence), Ok(3));
            sequence = sequence.wrapping_add(1);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_open(
            mut packet in prop::collection::vec(any::<u8>(), 0..120),
            header_len in 0..140_usize,
            ssrc: u32,
            sequence: u16,
            profile in prop::sample::select(PROFILES.to_vec()),
        ) {
            let (_, mut opener) = pair(profile);
            prop_assert!(opener.open_rtcp(&mut packet.clone()).is_err());
            prop_assert!(opener.open_rtp(&mut packet, header_len, Ssrc(ssrc), sequence).is_err());
        }
    }
}
