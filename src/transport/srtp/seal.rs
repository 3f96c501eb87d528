//! What one client is sent.

use std::sync::atomic::{AtomicU64, Ordering};

use super::cipher::Cipher;
use super::keys::{MasterKey, Use, session_cipher};
use super::open::rtcp_ssrc;
use super::window::{Refused, Window};
use super::{Profile, SRTCP_INDEX_LEN};
use crate::id::Ssrc;
use crate::observe::reason::Reason;

/// How many outgoing streams one key may seal in its life. Higher only allows a mistake to use more memory (4 bytes
/// each); lower would refuse streams to a client with the most slots: 49 pictures with RTX and 16 sounds are 114.
const MAX_STREAMS: usize = 512;

/// SRTCP indices have 31 bits (RFC 3711 §3.4).
const RTCP_INDICES: u32 = 1 << 31;

/// Gives each [`Sealer`] of the process a number of its own; 0 is nobody's.
static NEXT_SEALER: AtomicU64 = AtomicU64::new(1);

/// Encrypts and authenticates the packets to one client.
///
/// Sealing two different packets with the same SSRC and index gives AES-GCM's authentication key away, so it is
/// impossible here, whatever the caller does: a [`SealStream`] refuses an index that was used, the sealer refuses
/// a second stream of the same SSRC, and a stream stays with the sealer that it began with.
pub struct Sealer {
    number: u64,
    rtp: Cipher,
    rtcp: Cipher,
    /// One index for all senders: each receiver's window is per SSRC and does not mind the gaps.
    rtcp_index: u32,
    /// The SSRCs that have their stream.
    streams: Vec<Ssrc>,
}

/// Keys are never logged.
impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

/// The numbering of one outgoing SSRC: the roll-over counter, and which of the newest 1024 indices were sealed.
///
/// The first sequence number should be in 1024..32768: then no packet that is sealed late can come from before it,
/// and the receiver cannot miss the first roll-over.
#[derive(Debug)]
pub struct SealStream {
    ssrc: Ssrc,
    /// The [`Sealer`] it began with; 0 before the first packet.
    sealer: u64,
    sealed: Window,
}

impl SealStream {
    #[must_use]
    pub fn new(ssrc: Ssrc) -> Self {
        Self { ssrc, sealer: 0, sealed: Window::default() }
    }

    #[must_use]
    pub fn ssrc(&self) -> Ssrc {
        self.ssrc
    }

    /// The index for a sequence number, if it can be sealed now.
    #[inline]
    fn index_of(&self, sequence: u16) -> Result<u64, Reason> {
        let index = self.sealed.index_of(sequence)?.ok_or(Reason::SrtpTooOld)?;
        match self.sealed.check(index) {
            Ok(()) => Ok(index),
            Err(Refused::Used) => Err(Reason::SealTwice),
            Err(Refused::TooOld) => Err(Reason::SrtpTooOld),
        }
    }
}

impl Sealer {
    /// `master` is the server's direction, made for the same profile. There must be only one sealer for it.
    #[must_use]
    pub fn new(profile: Profile, master: &MasterKey) -> Self {
        Self {
            number: NEXT_SEALER.fetch_add(1, Ordering::Relaxed),
            rtp: session_cipher(profile, master, Use::Rtp),
            rtcp: session_cipher(profile, master, Use::Rtcp),
            rtcp_index: 0,
            streams: Vec::new(),
        }
    }

    /// Bytes that sealing adds to an RTP packet.
    #[inline]
    #[must_use]
    pub fn tag_len(&self) -> usize {
        self.rtp.tag_len()
    }

    /// Seals a packet whose header stands in `out[..header_len]` and has the stream's SSRC and `sequence`; its
    /// payload is `payload` followed by `tail` (RTP padding). Both are encrypted on their way into `out`, so that
    /// nothing is copied. Late sequence numbers get the index that they would have had in time. Returns the length
    /// of the datagram.
    ///
    /// # Errors
    /// [`Reason::SealNoRoom`] where `out` is too short (nothing is used up by that), [`Reason::SealTwice`],
    /// [`Reason::SrtpTooOld`] further behind than 1024 or before the stream's first roll-over,
    /// [`Reason::SealKeyExhausted`] after 2⁴⁸ packets, [`Reason::SrtpTooManySources`].
    #[inline]
    pub fn seal_rtp(
        &mut self,
        stream: &mut SealStream,
        sequence: u16,
        out: &mut [u8],
        header_len: usize,
        payload: &[u8],
        tail: &[u8],
    ) -> Result<usize, Reason> {
        let len = header_len.saturating_add(payload.len()).saturating_add(tail.len());
        let out = self.room(out, len)?;
        let index = self.use_index(stream, sequence)?;
        self.rtp.seal_rtp((stream.ssrc, index), out, header_len, payload, tail)?;
        Ok(out.len())
    }

    /// As [`seal_rtp`](Self::seal_rtp) for a payload that stands in `out` behind the header, because it was
    /// rewritten there; `payload_len` includes RTP padding.
    ///
    /// # Errors
    /// As [`seal_rtp`](Self::seal_rtp).
    #[inline]
    pub fn seal_rtp_in_place(
        &mut self,
        stream: &mut SealStream,
        sequence: u16,
        out: &mut [u8],
        header_len: usize,
        payload_len: usize,
    ) -> Result<usize, Reason> {
        let out = self.room(out, header_len.saturating_add(payload_len))?;
        let index = self.use_index(stream, sequence)?;
        self.rtp.seal_rtp_in_place((stream.ssrc, index), out, header_len)?;
        Ok(out.len())
    }

    /// Seals the compound packet in `out[..len]`, which grows by [`Profile::rtcp_overhead`]. Returns the length of
    /// the datagram.
    ///
    /// # Errors
    /// [`Reason::TooShort`] for less than a header and an SSRC, [`Reason::SealNoRoom`],
    /// [`Reason::SealKeyExhausted`] after 2³¹ packets.
    pub fn seal_rtcp(&mut self, out: &mut [u8], len: usize) -> Result<usize, Reason> {
        let sealed_len = len.saturating_add(self.rtcp.tag_len() + SRTCP_INDEX_LEN);
        let out = out.get_mut(..sealed_len).ok_or(Reason::SealNoRoom)?;
        let ssrc = rtcp_ssrc(&out[..len]).ok_or(Reason::TooShort)?;
        let index = self.rtcp_index;
        if index >= RTCP_INDICES {
            return Err(Reason::SealKeyExhausted);
        }
        self.rtcp_index += 1;
        self.rtcp.seal_rtcp(ssrc, index, out)?;
        Ok(sealed_len)
    }

    /// The part of `out` that a packet of `len` bytes takes when it is sealed.
    #[inline]
    fn room<'a>(&self, out: &'a mut [u8], len: usize) -> Result<&'a mut [u8], Reason> {
        out.get_mut(..len.saturating_add(self.rtp.tag_len())).ok_or(Reason::SealNoRoom)
    }

    /// Takes the index for a sequence number out of use, before anything is sealed with it.
    #[inline]
    fn use_index(&mut self, stream: &mut SealStream, sequence: u16) -> Result<u64, Reason> {
        let index = stream.index_of(sequence)?;
        if stream.sealer != self.number {
            self.adopt(stream)?;
        }
        stream.sealed.record(index);
        Ok(index)
    }

    /// Ties a stream to this sealer with its first packet.
    #[cold]
    fn adopt(&mut self, stream: &mut SealStream) -> Result<(), Reason> {
        // A used stream elsewhere, or a second one of this SSRC, knows nothing of what was sealed here.
        if !stream.sealed.is_empty() || self.streams.contains(&stream.ssrc) {
            return Err(Reason::SealTwice);
        }
        if self.streams.len() >= MAX_STREAMS {
            return Err(Reason::SrtpTooManySources);
        }
        self.streams.push(stream.ssrc);
        stream.sealer = self.number;
        Ok(())
    }
}
