//! Why something was dropped or refused: one value for each cause, counted, and the only label of its kind in
//! the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Every cause for which a packet is dropped or a message refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// All of them, in order.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The stable name: what the wire protocol and the metrics show.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    // Demultiplexing
    /// Shorter than the smallest packet of its kind.
    TooShort = "too_short",
    /// The first byte belongs to no protocol that is spoken here (RFC 7983).
    UnknownProtocol = "unknown_protocol",
    /// Neither STUN nor from an address that passed an authenticated check.
    UnknownAddress = "unknown_address",
    /// Larger than the receive buffer.
    TooLong = "too_long",

    // STUN and ICE
    /// Not a STUN message (RFC 8489).
    StunMalformed = "stun_malformed",
    /// A STUN class or method that an ICE-lite agent does not answer.
    StunUnexpected = "stun_unexpected",
    /// No USERNAME, or one that names no transport of ours.
    StunUnknownUser = "stun_unknown_user",
    /// MESSAGE-INTEGRITY is absent or wrong.
    StunIntegrity = "stun_integrity",
    /// FINGERPRINT is absent or wrong.
    StunFingerprint = "stun_fingerprint",
    /// An attribute that must be understood is not.
    StunUnknownAttribute = "stun_unknown_attribute",
    /// The client takes us for the controlling side of ICE.
    StunRoleConflict = "stun_role_conflict",
    /// No authenticated check for longer than consent lasts (RFC 7675).
    ConsentExpired = "consent_expired",

    // DTLS
    /// A DTLS packet from an address that has no authenticated check.
    DtlsUnauthenticated = "dtls_unauthenticated",
    /// An unprotected alert or data: anybody could have written it.
    DtlsUnprotected = "dtls_unprotected",
    /// More handshake bytes than one transport may send.
    DtlsTooManyBytes = "dtls_too_many_bytes",
    /// The handshake did not end in time.
    DtlsDeadline = "dtls_deadline",
    /// The certificate does not have the fingerprint of the offer.
    DtlsFingerprint = "dtls_fingerprint",
    /// No SRTP profile in common.
    DtlsProfile = "dtls_profile",
    /// The handshake failed.
    DtlsFailed = "dtls_failed",
    /// The other side closed.
    DtlsClosed = "dtls_closed",

    // SRTP
    /// Media before the handshake ended.
    SrtpBeforeKeys = "srtp_before_keys",
    /// The authentication tag is wrong.
    SrtpAuthentication = "srtp_authentication",
    /// Seen before.
    SrtpReplayed = "srtp_replayed",
    /// Older than the replay window.
    SrtpTooOld = "srtp_too_old",
    /// More synchronisation sources than one transport may use.
    SrtpTooManySources = "srtp_too_many_sources",
    /// The same index would be sealed twice.
    SealTwice = "seal_twice",
    /// The outgoing packet does not fit its buffer.
    SealNoRoom = "seal_no_room",
    /// All indices of this key are used up (RFC 3711 §9.2, RFC 7714 §8).
    SealKeyExhausted = "seal_key_exhausted",

    // RTP and RTCP
    /// Not an RTP packet (RFC 3550 §5.1).
    RtpMalformed = "rtp_malformed",
    /// Not a compound or reduced-size RTCP packet (RFC 3550 §6.1, RFC 5506).
    RtcpMalformed = "rtcp_malformed",
    /// An RTCP packet type that concerns nobody here.
    RtcpUnexpected = "rtcp_unexpected",
    /// No MID, or one that names no sending section.
    UnknownStream = "unknown_stream",
    /// The MID or RID contradicts what the SSRC was latched to.
    StreamConflict = "stream_conflict",
    /// A payload type that was not negotiated for its section.
    UnknownPayloadType = "unknown_payload_type",
    /// Nothing is published on this section.
    NotPublished = "not_published",
    /// Received before, by retransmission or duplication.
    Duplicate = "duplicate",
    /// Too far behind the newest packet.
    TooOld = "too_old",
    /// Padding without payload: a probe, consumed here.
    Padding = "padding",
    /// The codec's payload descriptor is malformed.
    CodecMalformed = "codec_malformed",

    // Forwarding
    /// Nobody receives it.
    NoReceiver = "no_receiver",
    /// This receiver gets another layer.
    OtherLayer = "other_layer",
    /// This receiver's slot waits for a keyframe.
    AwaitKeyframe = "await_keyframe",
    /// This receiver's slot waits until its viewer knows that another name comes.
    AwaitName = "await_name",
    /// Older than the binding of the slot.
    BeforeBinding = "before_binding",
    /// The publisher is muted.
    Muted = "muted",
    /// The receiver has no connected transport.
    NotConnected = "not_connected",
    /// A NACK for a packet that is no longer kept, or never was.
    NotInHistory = "not_in_history",
    /// Retransmissions would exceed their share of this receiver's rate.
    RetransmitBudget = "retransmit_budget",
    /// Retransmitted within the last round trip.
    RetransmitTooSoon = "retransmit_too_soon",
    /// The send batch is full.
    BatchFull = "batch_full",
    /// The kernel refused the datagram.
    SendFailed = "send_failed",
    /// The socket's buffer is full.
    SendWouldBlock = "send_would_block",

    // Signaling
    /// Not JSON, or not a message of the protocol.
    MessageMalformed = "message_malformed",
    /// A frame or message beyond its limit.
    MessageTooLarge = "message_too_large",
    /// More messages than one session may send.
    RateLimited = "rate_limited",
    /// The first message was not `hello` or `resume`, or came too late.
    HelloMissing = "hello_missing",
    /// A message kind that this server does not know, though the sender requires it.
    UnknownKind = "unknown_kind",
    /// A message that does not fit the session's state.
    WrongState = "wrong_state",
    /// The SDP cannot be parsed.
    SdpMalformed = "sdp_malformed",
    /// The SDP lacks what a connection needs.
    SdpUnsupported = "sdp_unsupported",
    /// More sections than a browser supports.
    SdpTooManySections = "sdp_too_many_sections",
    /// The room id is not valid.
    RoomId = "room_id",
    /// The room is full.
    RoomFull = "room_full",
    /// No more rooms can be made.
    TooManyRooms = "too_many_rooms",
    /// The name is too long or holds control characters.
    Name = "name",
    /// More publications than one participant may have.
    TooManyPublications = "too_many_publications",
    /// The section to publish on is not a sending section of the offer.
    UnknownSection = "unknown_section",
    /// The publication does not exist or belongs to somebody else.
    UnknownPublication = "unknown_publication",
    /// Nobody of this id is in the room.
    UnknownParticipant = "unknown_participant",
    /// The chat message is empty, too long, or holds what no text holds.
    ChatText = "chat_text",
    /// The session ended or never was.
    UnknownSession = "unknown_session",
    /// The resume token is neither the present nor the previous one.
    ResumeToken = "resume_token",
    /// The request came from a page of a foreign origin.
    Origin = "origin",
    /// The id of a rendezvous is empty or too long.
    RendezvousId = "rendezvous_id",
    /// Too many texts or readers wait at a rendezvous.
    RendezvousFull = "rendezvous_full",
    /// The server is at its limit or stopping.
    Overloaded = "overloaded",

    // Ends
    /// The participant said goodbye.
    Bye = "bye",
    /// Nothing was heard for longer than a participant may be away.
    Silent = "silent",
    /// A newer epoch of the same participant took over.
    Replaced = "replaced",
    /// Handling this participant panicked; it alone was removed.
    Panicked = "panicked",
    /// The server is shutting down.
    ShuttingDown = "shutting_down",
    /// Does not read or acknowledge what it is sent.
    SlowReader = "slow_reader",
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let known = Self::ALL.iter().copied().find(|reason| reason.as_str() == text);
        known.ok_or_else(|| serde::de::Error::custom("unknown reason"))
    }
}

/// One counter for each reason. Written by one worker or by signaling tasks, read by anyone.
#[derive(Debug)]
pub struct Counters([AtomicU64; Reason::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Reason::ALL.len()])
    }
}

impl Counters {
    pub fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// Those that are not zero.
    pub fn nonzero(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.iter().map(|&reason| (reason, self.get(reason))).filter(|(_, n)| *n > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_distinct_names() {
        let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
