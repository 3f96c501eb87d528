//! Newtypes for every id, so that a publication can never be taken for a participant.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A participant's public id: the server's choice, kept only by a resume token. Sixteen hexadecimal digits on
/// the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParticipantId(pub u64);

/// A signaling session, secret to its owner. Sixteen hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// The incarnation of a participant: a newer epoch replaces the older at once, and whatever still arrives
/// for the older (a timer, a command, a message) is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u32);

/// A track published in a room; never used twice in that room. It is also the CSRC of every packet that is
/// forwarded for it, and never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicationId(pub u32);

/// A room as the worker knows it: never used twice in a process, so that a late command for a room that
/// expired cannot reach its successor of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomKey(pub u64);

/// A synchronisation source (RFC 3550 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ssrc(pub u32);

/// The canonical name (RFC 3550 §6.5.1) of everything the server sends, in answers and in RTCP. It says nothing
/// about who speaks: browsers synchronise sound and picture by `msid`.
pub const CNAME: &str = "motet";

/// The media identification of one SDP section (RFC 8843); names a slot on the wire.
pub type Mid = ShortName<16>;

/// The name of one simulcast encoding (RFC 8851).
pub type Rid = ShortName<8>;

/// Which of its peer connections a participant means: `transport` in `offer` and `answer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransportNumber(pub u8);

/// Where a datagram came from and which of our addresses it was sent to; the reply leaves from there, because
/// browsers ignore an answer from any other address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressPair {
    /// Our address, as the sender knew it; `None` where the kernel did not say.
    pub local: Option<IpAddr>,
    /// The sender, canonical: a v4-mapped address is a v4 address.
    pub remote: SocketAddr,
}

/// A short ASCII token kept in place: it is copied and compared on the packet path, which must not allocate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortName<const N: usize> {
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> ShortName<N> {
    /// A name of 1 to `N` visible ASCII characters; `None` for anything else.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > N || !bytes.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let mut name = Self { bytes: [0; N], len: bytes.len() as u8 };
        name.bytes[..bytes.len()].copy_from_slice(bytes);
        Some(name)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Debug for ShortName<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const N: usize> fmt::Display for ShortName<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not a valid id of its kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a valid id")]
pub struct BadId;

impl<const N: usize> FromStr for ShortName<N> {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        Self::new(text.as_bytes()).ok_or(BadId)
    }
}

impl<const N: usize> Serialize for ShortName<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, const N: usize> Deserialize<'de> for ShortName<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Ids that are 64 random bits: opaque text outside, a number inside.
macro_rules! hex_id {
    ($name:ident) => {
        impl $name {
            #[must_use]
            pub fn random() -> Self {
                Self(rand::random())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let canonical = text.len() == 16
                    && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                if !canonical {
                    return Err(BadId);
                }
                u64::from_str_radix(text, 16).map(Self).map_err(|_| BadId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(ParticipantId);
hex_id!(SessionId);

/// A room's name in links and messages: 1 to 64 bytes of `A–Z a–z 0–9 . _ ~ -` and percent-escapes (RFC 3986
/// §2.1) of UTF-8. Kept in one canonical spelling, so that `%2f` and `%2F` are the same room.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomId(std::sync::Arc<str>);

impl RoomId {
    /// The longest canonical id, in bytes.
    pub const MAX_BYTES: usize = 64;

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoomId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(BadId);
        }
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        let (mut canonical, mut decoded) = (String::new(), Vec::new());
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            let value = match byte {
                b'%' => {
                    let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or(BadId);
                    (digit()? * 16 + digit()?) as u8
                }
                byte if unreserved(byte) => byte,
                _ => return Err(BadId),
            };
            decoded.push(value);
            if unreserved(value) {
                canonical.push(char::from(value));
            } else {
                canonical.push_str(&format!("%{value:02X}"));
            }
        }
        let decoded = std::str::from_utf8(&decoded).map_err(|_| BadId)?;
        if decoded.chars().any(char::is_control) {
            return Err(BadId);
        }
        Ok(Self(canonical.into()))
    }
}

/// Rooms are private to those who know the link: ids stay out of logs.
impl fmt::Debug for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoomId")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_refuse_what_does_not_fit() {
        assert!(Mid::new(b"").is_none());
        assert!(Mid::new(&[b'a'; 17]).is_none());
        assert!(Mid::new(b"a b").is_none());
        assert_eq!(Mid::new(b"0").expect("short").as_str(), "0");
    }

    #[test]
    fn room_ids_have_one_spelling() {
        let canonical = |text: &str| text.parse::<RoomId>().map(|id| id.as_str().to_owned());
        assert_eq!(canonical("Garden_1.~-"), Ok("Garden_1.~-".into()));
        assert_eq!(canonical("caf%c3%a9"), Ok("caf%C3%A9".into()));
        assert_eq!(canonical("%41"), Ok("A".into()));
        for bad in ["", "a b", "a/b", "é", "%", "%4", "%zz", "%ff", "%00", "%+1", &"a".repeat(65)] {
            assert_eq!(canonical(bad), Err(BadId), "{bad}");
        }
        assert!(canonical(&"a".repeat(64)).is_ok());
    }

    #[test]
    fn ids_are_sixteen_lower_case_digits_and_nothing_else() {
        let id = ParticipantId(0x0123_4567_89ab_cdef);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "+123456789abcdef", "0123456789ABCDEF", "0123456789abcdef0"] {
            assert_eq!(bad.parse::<ParticipantId>(), Err(BadId), "{bad}");
        }
    }
}
