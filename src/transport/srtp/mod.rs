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
