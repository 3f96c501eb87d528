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
