//! Whose datagram is this? One UDP port serves every participant of a worker: the first byte says which
//! protocol it is, a STUN check names its transport by the server's half of USERNAME, and everything else is
//! known by the address it comes from.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::SocketAddr;

use foldhash::fast::RandomState;

use crate::observe::reason::Reason;

/// Addresses that one transport may hold. More lets a client behind a busy NAT keep older mappings; fewer
/// leaves less for a client that checks from thousands of ports. Browsers use one per network interface.
pub const MAX_ADDRESSES: usize = 8;

/// What a datagram is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Stun,
    Dtls,
    Rtp,
    Rtcp,
}

/// Tells the protocols on one port apart (RFC 7983 §7; RTP and RTCP: RFC 5761 §4).
///
/// # Errors
/// [`Reason::TooShort`] for an empty datagram or one byte of RTP; [`Reason::UnknownProtocol`] for a first byte
/// that belongs to ZRTP, TURN channels or nobody.
pub fn classify(datagram: &[u8]) -> Result<Protocol, Reason> {
    match *datagram {
        [] => Err(Reason::TooShort),
        [0..=3, ..] => Ok(Protocol::Stun),
        [20..=63, ..] => Ok(Protocol::Dtls),
        [128..=191] => Err(Reason::TooShort),
        // The marker bit and payload types 64..=95, which RTP therefore may not use here.
        [128..=191, 192..=223, ..] => Ok(Protocol::Rtcp),
        [128..=191, ..] => Ok(Protocol::Rtp),
        _ => Err(Reason::UnknownProtocol),
    }
}

/// Finds the owner of a datagram. Only [`insert`](Self::insert) (our own user names) and
/// [`point`](Self::point) (addresses that passed an authenticated check) add to it, so nobody outside can make
/// it grow; looking up never allocates.
#[derive(Debug)]
pub struct Demux<K> {
    ufrags: HashMap<Box<str>, K, RandomState>,
    addresses: HashMap<SocketAddr, K, RandomState>,
    /// What to take away with a key, and which of its addresses is the oldest.
    owned: HashMap<K, Owned, RandomState>,
}

#[derive(Debug, Default)]
struct Owned {
    ufrags: Vec<Box<str>>,
    /// Oldest first.
    addresses: VecDeque<SocketAddr>,
}

impl<K> Default for Demux<K> {
    fn default() -> Self {
        Self { ufrags: HashMap::default(), addresses: HashMap::default(), owned: HashMap::default() }
    }
}

impl<K: Copy + Eq + Hash> Demux<K> {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `key` the owner of checks to the server user name `ufrag`. A name that another key had is taken
    /// from it.
    pub fn insert(&mut self, ufrag: &str, key: K) {
        if let Some(before) = self.ufrags.insert(ufrag.into(), key)
            && let Some(owned) = self.owned.get_mut(&before)
        {
            owned.ufrags.retain(|name| &**name != ufrag);
        }
        self.owned.entry(key).or_default().ufrags.push(ufrag.into());
    }

    /// Forgets the key with its user names and addresses.
    pub fn remove(&mut self, key: K) {
        let Some(owned) = self.owned.remove(&key) else { return };
        for ufrag in owned.ufrags {
            self.ufrags.remove(&ufrag);
        }
        for address in owned.addresses {
            self.addresses.remove(&address);
        }
    }

    /// The owner of a user name: the server's half of USERNAME.
    #[must_use]
    pub fn by_ufrag(&self, ufrag: &str) -> Option<K> {
        self.ufrags.get(ufrag).copied()
    }

    /// The owner of an address: of everything that is not STUN.
    #[must_use]
    pub fn by_address(&self, remote: SocketAddr) -> Option<K> {
        self.addresses.get(&remote).copied()
    }

    /// An authenticated check came from `remote`: the address is `key`'s from now on, whoever had it, because a
    /// NAT gives the same port to another client as soon as it may. Beyond [`MAX_ADDRESSES`] the oldest of
    /// the key's addresses is forgotten.
    pub fn point(&mut self, remote: SocketAddr, key: K) {
        let before = self.addresses.insert(remote, key);
        if before == Some(key) {
            return;
        }
        if let Some(owned) = before.and_then(|before| self.owned.get_mut(&before)) {
            owned.addresses.retain(|address| *address != remote);
        }
        let owned = self.owned.entry(key).or_default();
        owned.addresses.push_back(remote);
        if owned.addresses.len() > MAX_ADDRESSES
            && let Some(oldest) = owned.addresses.pop_front()
        {
            self.addresses.remove(&oldest);
        }
    }

    /// Makes an address the youngest of `key`'s, if it has it: the one in use must not be forgotten for others.
    pub fn keep(&mut self, remote: SocketAddr, key: K) {
        if let Some(owned) = self.owned.get_mut(&key)
            && let Some(at) = owned.addresses.iter().position(|address| *address == remote)
        {
            owned.addresses.remove(at);
            owned.addresses.push_back(remote);
        }
    }

    /// How many addresses are known, of all keys.
    #[must_use]
    pub fn addresses(&self) -> usize {
        self.addresses.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn first_bytes_tell_the_protocol() {
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => Ok(Protocol::Stun),
                20..=63 => Ok(Protocol::Dtls),
                128..=191 => Ok(Protocol::Rtp),
                _ => Err(Reason::UnknownProtocol),
            };
            assert_eq!(classify(&[first, 0]), expected, "{first}");
        }
        for second in 0..=255u8 {
            let expected = if (192..=223).contains(&second) { Protocol::Rtcp } else { Protocol::Rtp };
            assert_eq!(classify(&[0x80, second]), Ok(expected), "{second}");
        }
        assert_eq!(classify(&[]), Err(Reason::TooShort));
        assert_eq!(classify(&[0x80]), Err(Reason::TooShort));
    }

    #[test]
    fn an_address_follows_the_newest_check_whoever_had_it() {
        let mut demux = Demux::new();
        demux.insert("one", 1);
        demux.insert("two", 2);
        demux.point(address(1), 1);
        assert_eq!(demux.by_address(address(1)), Some(1));
        demux.point(address(1), 2);
        assert_eq!(demux.by_address(address(1)), Some(2));
        demux.remove(1);
        assert_eq!(demux.by_address(address(1)), Some(2), "no longer the first one's to take away");
        assert_eq!(demux.by_ufrag("one"), None);
        assert_eq!(demux.by_ufrag("two"), Some(2));
    }

    #[test]
    fn the_oldest_addresses_of_a_key_are_forgotten() {
        let mut demux = Demux::new();
        demux.point(address(1), 9);
        for port in 100..1000 {
            demux.point(address(port), 7);
        }
        assert_eq!(demux.addresses(), MAX_ADDRESSES + 1);
        assert_eq!(demux.by_address(address(999)), Some(7));
        assert_eq!(demux.by_address(address(100)), None);
        assert_eq!(demux.by_address(address(1)), Some(9), "another's are not touched");
    }

    #[test]
    fn an_address_that_is_kept_outlives_others() {
        let mut demux = Demux::new();
        demux.point(address(1), 7);
        demux.point(address(2), 9);
        for port in 100..1000 {
            demux.keep(address(1), 7);
            demux.keep(address(2), 7);
            demux.point(address(port), 7);
        }
        assert_eq!(demux.by_address(address(1)), Some(7));
        assert_eq!(demux.by_address(address(2)), Some(9), "another's is not taken");
        assert_eq!(demux.addresses(), MAX_ADDRESSES + 1);
    }

    #[test]
    fn nothing_of_a_removed_key_stays() {
        let mut demux = Demux::new();
        demux.insert("a", 1);
        demux.insert("b", 1);
        demux.point(address(1), 1);
        demux.remove(1);
        demux.remove(1);
        assert!(demux.ufrags.is_empty() && demux.addresses.is_empty() && demux.owned.is_empty());
    }
}
