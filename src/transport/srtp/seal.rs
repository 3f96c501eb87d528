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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::super::tests::{PROFILES, header, master};
    use super::super::{Opener, RTCP_CLEAR_LEN};
    use super::*;

    const SSRC: Ssrc = Ssrc(7);

    fn seal(sealer: &mut Sealer, stream: &mut SealStream, sequence: u16) -> Result<Vec<u8>, Reason> {
        let mut out = [0; 100];
        out[..12].copy_from_slice(&header(stream.ssrc(), sequence));
        let len = sealer.seal_rtp(stream, sequence, &mut out, 12, &[0; 16], &[])?;
        Ok(out[..len].to_vec())
    }

    fn sealer() -> (Sealer, SealStream) {
        let profile = Profile::AeadAes256Gcm;
        (Sealer::new(profile, &master(profile, 1)), SealStream::new(SSRC))
    }

    #[test]
    fn a_sequence_number_is_sealed_once_in_a_cycle() {
        let (mut sealer, mut stream) = sealer();
        assert!(seal(&mut sealer, &mut stream, 5000).is_ok());
        assert_eq!(seal(&mut sealer, &mut stream, 5000), Err(Reason::SealTwice));
        assert!(seal(&mut sealer, &mut stream, 4990).is_ok());
        assert_eq!(seal(&mut sealer, &mut stream, 4990), Err(Reason::SealTwice));
        assert!(seal(&mut sealer, &mut stream, 5000 - 1023).is_ok());
        assert_eq!(seal(&mut sealer, &mut stream, 5000 - 1024), Err(Reason::SrtpTooOld));
    }

    #[test]
    fn nothing_is_sealed_before_the_beginning() {
        let (mut sealer, mut stream) = sealer();
        assert!(seal(&mut sealer, &mut stream, 3).is_ok());
        assert_eq!(seal(&mut sealer, &mut stream, 65_535), Err(Reason::SrtpTooOld));
        assert!(seal(&mut sealer, &mut stream, 0).is_ok());
        assert!(seal(&mut sealer, &mut stream, 4).is_ok());
    }

    #[test]
    fn a_gap_filled_late_across_the_wrap_opens() {
        for profile in PROFILES {
            let mut opener = Opener::new(profile, &master(profile, 1));
            let mut sealer = Sealer::new(profile, &master(profile, 1));
            let mut stream = SealStream::new(SSRC);
            for sequence in [65_000, 65_534, 0, 3, 1, 65_535, 65_533, 2, 65_500, 4] {
                let mut packet = seal(&mut sealer, &mut stream, sequence).expect("each is new");
                assert_eq!(opener.open_rtp(&mut packet, 12, SSRC, sequence), Ok(16), "{sequence}");
            }
        }
    }

    #[test]
    fn a_second_stream_of_an_ssrc_is_refused() {
        let (mut sealer, mut stream) = sealer();
        let mut second = SealStream::new(SSRC);
        assert!(seal(&mut sealer, &mut stream, 1).is_ok());
        assert_eq!(seal(&mut sealer, &mut second, 2), Err(Reason::SealTwice));
        assert!(seal(&mut sealer, &mut stream, 2).is_ok());
    }

    #[test]
    fn a_stream_stays_with_its_sealer() {
        let (mut first, mut stream) = sealer();
        let (mut other, _) = sealer();
        assert!(seal(&mut first, &mut stream, 1).is_ok());
        assert_eq!(seal(&mut other, &mut stream, 2), Err(Reason::SealTwice));
    }

    #[test]
    fn streams_are_bounded() {
        let (mut sealer, _) = sealer();
        for ssrc in 0..MAX_STREAMS as u32 {
            assert!(seal(&mut sealer, &mut SealStream::new(Ssrc(ssrc)), 1).is_ok());
        }
        let mut one_more = SealStream::new(Ssrc(u32::MAX));
        assert_eq!(seal(&mut sealer, &mut one_more, 1), Err(Reason::SrtpTooManySources));
    }

    #[test]
    fn a_packet_without_room_uses_no_index_up() {
        for profile in PROFILES {
            let mut sealer = Sealer::new(profile, &master(profile, 1));
            let mut stream = SealStream::new(SSRC);
            let needed = 12 + 30 + 4 + profile.tag_len();
            let mut out = vec![0; needed];
            for room in 0..needed {
                let sealed = sealer.seal_rtp(&mut stream, 9, &mut out[..room], 12, &[1; 30], &[2; 4]);
                assert_eq!(sealed, Err(Reason::SealNoRoom));
                let sealed = sealer.seal_rtp_in_place(&mut stream, 9, &mut out[..room], 12, 34);
                assert_eq!(sealed, Err(Reason::SealNoRoom));
            }
            for absurd in [usize::MAX, usize::MAX - 12] {
                let sealed = sealer.seal_rtp_in_place(&mut stream, 9, &mut out, 12, absurd);
                assert_eq!(sealed, Err(Reason::SealNoRoom));
                assert_eq!(sealer.seal_rtcp(&mut out, absurd), Err(Reason::SealNoRoom));
            }
            let sealed = sealer.seal_rtp(&mut stream, 9, &mut out, 12, &[1; 30], &[2; 4]);
            assert_eq!(sealed, Ok(needed));
        }
    }

    #[test]
    fn both_ways_of_sealing_give_the_same_bytes() {
        for profile in PROFILES {
            let (mut left, mut right) = ([0; 100], [0; 100]);
            left[..12].copy_from_slice(&header(SSRC, 77));
            right[..12].copy_from_slice(&header(SSRC, 77));
            right[12..42].fill(5);
            right[42..46].copy_from_slice(&[0, 0, 0, 4]);
            // Two sealers of one key are what the documentation forbids: only a test may.
            let mut sealer = Sealer::new(profile, &master(profile, 1));
            let sealed =
                sealer.seal_rtp(&mut SealStream::new(SSRC), 77, &mut left, 12, &[5; 30], &[0, 0, 0, 4]);
            let mut sealer = Sealer::new(profile, &master(profile, 1));
            assert_eq!(
                sealer.seal_rtp_in_place(&mut SealStream::new(SSRC), 77, &mut right, 12, 34),
                sealed,
                "{profile:?}"
            );
            assert_eq!(left, right, "{profile:?}");
        }
    }

    #[test]
    fn reports_end_with_their_index() {
        for profile in PROFILES {
            let mut sealer = Sealer::new(profile, &master(profile, 1));
            let mut out = [0; 64];
            assert_eq!(sealer.seal_rtcp(&mut out, RTCP_CLEAR_LEN - 1), Err(Reason::TooShort));
            assert_eq!(sealer.seal_rtcp(&mut [0; 8], 8), Err(Reason::SealNoRoom));
            sealer.rtcp_index = RTCP_INDICES - 1;
            assert_eq!(sealer.seal_rtcp(&mut out, 20), Ok(20 + profile.rtcp_overhead()));
            assert_eq!(sealer.seal_rtcp(&mut out, 20), Err(Reason::SealKeyExhausted));
            assert_eq!(sealer.seal_rtcp(&mut out, 20), Err(Reason::SealKeyExhausted));
        }
    }

    /// What a mistaken caller may ask for.
    #[derive(Clone, Copy, Debug)]
    enum Ask {
        Seal { stream: usize, step: i16, in_place: bool },
        Jump { stream: usize, sequence: u16 },
        Report { ssrc: u32 },
        Restart { stream: usize },
        NoRoom { stream: usize },
    }

    fn asks() -> impl Strategy<Value = Ask> {
        let stream = 0..4_usize;
        prop_oneof![
            20 => (stream.clone(), -40..60_i16, any::<bool>())
                .prop_map(|(stream, step, in_place)| Ask::Seal { stream, step, in_place }),
            2 => (stream.clone(), any::<u16>()).prop_map(|(stream, sequence)| Ask::Jump { stream, sequence }),
            2 => (0..2_u32).prop_map(|ssrc| Ask::Report { ssrc }),
            1 => stream.clone().prop_map(|stream| Ask::Restart { stream }),
            1 => stream.prop_map(|stream| Ask::NoRoom { stream }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        // The payload is always zero, so what comes out is the keystream itself, and it comes out twice exactly
        // when a key, SSRC and index were used twice: no bookkeeping of the test can be wrong.
        #[test]
        fn nothing_is_sealed_twice(
            asks in prop::collection::vec(asks(), 1..300),
            starts in prop::array::uniform4(any::<u16>()),
            profile in prop::sample::select(PROFILES.to_vec()),
        ) {
            let mut sealer = Sealer::new(profile, &master(profile, 1));
            let mut streams = [0, 0, 1, 2].map(|ssrc| SealStream::new(Ssrc(ssrc)));
            let mut sequences = starts;
            let mut keystreams = HashSet::new();
            for ask in asks {
                let mut out = [0; 64];
                let sealed = match ask {
                    Ask::Seal { stream, step, in_place } => {
                        let sequence = sequences[stream].wrapping_add_signed(step);
                        sequences[stream] = sequence;
                        let stream = &mut streams[stream];
                        if in_place {
                            sealer.seal_rtp_in_place(stream, sequence, &mut out, 12, 16)
                        } else {
                            sealer.seal_rtp(stream, sequence, &mut out, 12, &[0; 12], &[0; 4])
                        }
                        .map(|_| 12)
                    }
                    Ask::Jump { stream, sequence } => {
                        sequences[stream] = sequence;
                        sealer.seal_rtp(&mut streams[stream], sequence, &mut out, 12, &[0; 16], &[]).map(|_| 12)
                    }
                    Ask::Report { ssrc } => {
                        out[4..8].copy_from_slice(&ssrc.to_be_bytes());
                        sealer.seal_rtcp(&mut out, 24).map(|_| 8)
                    }
                    Ask::Restart { stream } => {
                        streams[stream] = SealStream::new(streams[stream].ssrc());
                        continue;
                    }
                    Ask::NoRoom { stream } => {
                        let sequence = sequences[stream];
                        sealer.seal_rtp(&mut streams[stream], sequence, &mut out[..20], 12, &[0; 16], &[]).map(|_| 12)
                    }
                };
                if let Ok(at) = sealed {
                    let keystream: [u8; 16] = out[at..at + 16].try_into().expect("sixteen bytes");
                    prop_assert!(keystreams.insert(keystream), "the keystream repeats at {:?}", ask);
                }
            }
        }
    }
}
