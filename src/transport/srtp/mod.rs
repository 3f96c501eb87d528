//! SRTP and SRTCP (RFC 3711, RFC 7714): [`Opener`] for what one client sends, [`Sealer`] for what it is sent.
//!
//! Both hold prepared keys, so that a packet costs one call of the cipher and a few nanoseconds of
//! bookkeeping; neither allocates per packet, and an [`Opener`] changes nothing before a tag is verified.

mod cipher;
mod keys;
mod open;
mod seal;
mod window;

pub use keys::{MasterKey, split};
pub use open::Opener;
pub use seal::{SealStream, Sealer};

/// How many synchronisation sources one client may use at once, for RTP and for RTCP each. Higher lets a
/// client make us keep more windows (136 bytes each) and search a longer list; lower would refuse a client with
/// many simulcast layers: three of them and RTX are six sources a camera.
pub const MAX_SOURCES: usize = 64;

/// Bytes of an SRTCP packet after its tag or before it: the E flag and the index.
const SRTCP_INDEX_LEN: usize = 4;

/// Bytes of an RTCP packet that stay clear: the first header and the sender's SSRC.
const RTCP_CLEAR_LEN: usize = 8;

/// What DTLS-SRTP may negotiate (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Five to seven times as expensive as the others: only for clients that have neither.
    Aes128CmSha1_80,
    AeadAes128Gcm,
    AeadAes256Gcm,
}

impl Profile {
    /// Bytes of a master key; session keys are as long.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128CmSha1_80 | Self::AeadAes128Gcm => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    /// Bytes of a master salt; session salts are as long.
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            Self::Aes128CmSha1_80 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
        }
    }

    /// Bytes that sealing adds to an RTP packet.
    #[must_use]
    pub const fn tag_len(self) -> usize {
        match self {
            Self::Aes128CmSha1_80 => 10,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
        }
    }

    /// Bytes that sealing adds to an RTCP packet: the tag, the E flag and the index.
    #[must_use]
    pub const fn rtcp_overhead(self) -> usize {
        self.tag_len() + SRTCP_INDEX_LEN
    }

    /// Bytes to export from the DTLS handshake (RFC 5764 §4.2): two keys and two salts.
    #[must_use]
    pub const fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

#[cfg(test)]
mod tests {
    use ::srtp::context::Context;
    use ::srtp::protection_profile::ProtectionProfile;
    use proptest::prelude::*;

    use super::*;
    use crate::id::Ssrc;

    pub(super) const PROFILES: [Profile; 3] =
        [Profile::Aes128CmSha1_80, Profile::AeadAes128Gcm, Profile::AeadAes256Gcm];

    fn secret(profile: Profile, seed: u8) -> (Vec<u8>, Vec<u8>) {
        let bytes = |start: u8, len: usize| (0..len).map(|at| start.wrapping_add(at as u8 * 7)).collect();
        (bytes(seed, profile.key_len()), bytes(seed ^ 0x55, profile.salt_len()))
    }

    pub(super) fn master(profile: Profile, seed: u8) -> MasterKey {
        let (key, salt) = secret(profile, seed);
        MasterKey::new(profile, &key, &salt).expect("lengths of the profile")
    }

    pub(super) fn header(ssrc: Ssrc, sequence: u16) -> [u8; 12] {
        let mut header = [0; 12];
        header[..2].copy_from_slice(&[0x80, 96]);
        header[2..4].copy_from_slice(&sequence.to_be_bytes());
        header[8..].copy_from_slice(&ssrc.0.to_be_bytes());
        header
    }

    /// The same direction in an independent implementation.
    fn other(profile: Profile, seed: u8) -> Context {
        let theirs = match profile {
            Profile::Aes128CmSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
            Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
            Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        };
        let provider = ::srtp::crypto::default_provider().expect("one is built in");
        let (key, salt) = secret(profile, seed);
        Context::new(&key, &salt, theirs, None, None, provider.crypto()).expect("lengths of the profile")
    }

    /// One packet of a random journey.
    #[derive(Clone, Debug)]
    struct Packet {
        /// Added to the sequence number before it.
        step: u16,
        source: u32,
        payload: Vec<u8>,
        csrcs: u8,
        lost: bool,
        /// Packets that overtake it.
        late: usize,
        report: bool,
    }

    fn packets() -> impl Strategy<Value = Vec<Packet>> {
        // Five that overtake must stay within the window.
        let step = prop_oneof![10 => 1..4_u16, 1 => 1..190_u16];
        let payload = prop::collection::vec(any::<u8>(), 0..80);
        let packet = (
            step,
            1..4_u32,
            payload,
            0..3_u8,
            prop::bool::weighted(0.1),
            0..6_usize,
            prop::bool::weighted(0.2),
        )
            .prop_map(|(step, source, payload, csrcs, lost, late, report)| Packet {
                step,
                source,
                payload,
                csrcs,
                lost,
                late,
                report,
            });
        prop::collection::vec(packet, 1..60)
    }

    /// The plain packet: RTP with CSRCs, or a receiver report with some bytes behind it.
    fn plain(packet: &Packet, sequence: u16) -> (Vec<u8>, usize) {
        let ssrc = Ssrc(packet.source);
        let mut bytes;
        if packet.report {
            bytes = vec![0x80, 201, 0, 1];
            bytes.extend(ssrc.0.to_be_bytes());
        } else {
            bytes = header(ssrc, sequence).to_vec();
            bytes[0] |= packet.csrcs;
            bytes.extend((0..packet.csrcs).flat_map(|at| [at; 4]));
        }
        let header_len = bytes.len();
        bytes.extend(&packet.payload);
        (bytes, header_len)
    }

    /// What arrives of a journey, in its order: the first of each source is never overtaken, because a receiver
    /// takes it for roll-over counter 0.
    fn arrivals(packets: &[Packet]) -> Vec<usize> {
        let mut seen = std::collections::HashSet::new();
        let mut order: Vec<(usize, usize)> = packets
            .iter()
            .enumerate()
            .filter_map(|(at, packet)| {
                let first = !packet.report && seen.insert(packet.source);
                if first { Some((at, at)) } else { (!packet.lost).then_some((at + packet.late, at)) }
            })
            .collect();
        order.sort_unstable();
        let (firsts, rest): (Vec<_>, Vec<_>) = order.into_iter().partition(|(due, at)| {
            due == at && {
                let packet = &packets[*at];
                !packet.report
                    && packets[..*at].iter().all(|before| before.report || before.source != packet.source)
            }
        });
        firsts.into_iter().chain(rest).map(|(_, at)| at).collect()
    }

    fn sequences(packets: &[Packet], starts: [u16; 3]) -> Vec<u16> {
        let mut next = starts;
        packets
            .iter()
            .map(|packet| {
                let next = &mut next[packet.source as usize - 1];
                if !packet.report {
                    *next = next.wrapping_add(packet.step);
                }
                *next
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn what_another_implementation_seals_opens_here(
            packets in packets(),
            starts in prop::array::uniform3(prop_oneof![0..=u16::MAX, 65_400..=u16::MAX]),
            profile in prop::sample::select(PROFILES.to_vec()),
        ) {
            let (mut theirs, mut opener) = (other(profile, 3), Opener::new(profile, &master(profile, 3)));
            let sequences = sequences(&packets, starts);
            let sealed: Vec<_> = packets
                .iter()
                .zip(&sequences)
                .map(|(packet, &sequence)| {
                    let (plain, _) = plain(packet, sequence);
                    let sealed = if packet.report { theirs.encrypt_rtcp(&plain) } else { theirs.encrypt_rtp(&plain) };
                    sealed.expect("they can").to_vec()
                })
                .collect();
            for at in arrivals(&packets) {
                let (packet, sequence, mut bytes) = (&packets[at], sequences[at], sealed[at].clone());
                let (plain, header_len) = plain(packet, sequence);
                let len = if packet.report {
                    opener.open_rtcp(&mut bytes)
                } else {
                    opener.open_rtp(&mut bytes, header_len, Ssrc(packet.source), sequence).map(|len| header_len + len)
                };
                prop_assert_eq!(len, Ok(plain.len()), "packet {}", at);
                prop_assert_eq!(&bytes[..plain.len()], &plain[..]);
            }
        }

        #[test]
        fn what_is_sealed_here_opens_in_another_implementation(
            packets in packets(),
            starts in prop::array::uniform3(prop_oneof![0..=u16::MAX, 65_400..=u16::MAX]),
            profile in prop::sample::select(PROFILES.to_vec()),
            padding in 0..9_usize,
        ) {
            let (mut theirs, mut sealer) = (other(profile, 4), Sealer::new(profile, &master(profile, 4)));
            let mut streams = [1, 2, 3].map(|ssrc| SealStream::new(Ssrc(ssrc)));
            let sequences = sequences(&packets, starts);
            // Sealing in the order of arrival: what a retransmission fills is sealed late.
            for at in arrivals(&packets) {
                let (packet, sequence) = (&packets[at], sequences[at]);
                let (mut plain, header_len) = plain(packet, sequence);
                let mut out = vec![0; plain.len() + 40];
                let opened = if packet.report {
                    out[..plain.len()].copy_from_slice(&plain);
                    let len = sealer.seal_rtcp(&mut out, plain.len()).expect("there is room");
                    theirs.decrypt_rtcp(&out[..len])
                } else {
                    out[..header_len].copy_from_slice(&plain[..header_len]);
                    let (payload, tail) = (&packet.payload[..], vec![9; padding]);
                    let stream = &mut streams[packet.source as usize - 1];
                    let sealed = sealer.seal_rtp(stream, sequence, &mut out, header_len, payload, &tail);
                    plain.extend(&tail);
                    theirs.decrypt_rtp(&out[..sealed.expect("each is new")])
                };
                prop_assert_eq!(&opened.expect("they can")[..], &plain[..], "packet {}", at);
            }
        }
    }

    #[test]
    fn both_halves_can_move_to_a_worker() {
        fn movable<T: Send>() {}
        movable::<Opener>();
        movable::<Sealer>();
        movable::<SealStream>();
    }
}
