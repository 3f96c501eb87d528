//! Connectivity checks on the wire (RFC 8489, RFC 8445 §7). Anybody may send one to the port, so whatever comes
//! before the password is known to be right works on the borrowed datagram: nothing is allocated and nothing
//! is answered.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{constant_time, hmac};

use crate::observe::reason::Reason;

/// Room that every answer fits in: a success to an IPv6 address takes 76 bytes, an error at most 72.
pub const MAX_ANSWER: usize = 128;

const HEADER: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const BINDING_ERROR: [u8; 2] = [0x01, 0x11];

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
/// Attributes from here on may be ignored where they are not understood.
const COMPREHENSION_OPTIONAL: u16 = 0x8000;

const INTEGRITY_LEN: usize = 20;
/// The whole attribute.
const FINGERPRINT_LEN: usize = 8;

/// Unknown attributes that an error answer names; more are only counted as unknown.
const MAX_UNKNOWN: usize = 8;

/// A password, prepared for checking and signing.
#[derive(Clone, Debug)]
pub struct Key(hmac::Key);

impl Key {
    #[must_use]
    pub fn new(pwd: &str) -> Self {
        // SHA-1 is what RFC 8445 checks are signed with; as a MAC it is not broken.
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes()))
    }

    /// The MAC of a message whose header counts `len` bytes after itself, although `message` may be shorter:
    /// the length covers the attribute that will carry the MAC, whatever follows it (RFC 8489 §14.5).
    fn sign(&self, message: &[u8], len: usize) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&message[..2]);
        context.update(&(len as u16).to_be_bytes());
        context.update(&message[4..]);
        context.sign()
    }
}

/// A connectivity check, borrowed from its datagram; well-formed, but not yet authenticated.
#[derive(Debug)]
pub struct Request<'a> {
    datagram: &'a [u8],
    server_ufrag: &'a str,
    client_ufrag: &'a str,
    /// Where MESSAGE-INTEGRITY begins, and its value.
    integrity: Option<(usize, &'a [u8])>,
    fingerprint: Option<u32>,
    use_candidate: bool,
    controlled: bool,
    unknown: [u16; MAX_UNKNOWN],
    unknown_len: usize,
}

/// The answer that a check gets once its password is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// With the address that the check came from.
    Success(SocketAddr),
    /// 420: the request holds attributes that must be understood, and are not.
    UnknownAttribute,
    /// 487: the client believes that we control; an ICE-lite agent never does (RFC 8445 §6.1.1).
    RoleConflict,
}

impl<'a> Request<'a> {
    /// The first look: lengths, kind and user name. Does not allocate.
    ///
    /// # Errors
    /// [`Reason::StunMalformed`], [`Reason::StunUnexpected`] for what is no binding request, and
    /// [`Reason::StunUnknownUser`] without a user name of two halves.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Reason> {
        if datagram.len() < HEADER {
            return Err(Reason::TooShort);
        }
        let (header, body) = datagram.split_at(HEADER);
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        // A length that is no multiple of four cannot be: attributes are padded (RFC 8489 §5).
        if len != body.len() || !len.is_multiple_of(4) || header[4..8] != MAGIC_COOKIE {
            return Err(Reason::StunMalformed);
        }
        if header[..2] != BINDING_REQUEST {
            return Err(Reason::StunUnexpected);
        }
        let mut request = Self {
            datagram,
            server_ufrag: "",
            client_ufrag: "",
            integrity: None,
            fingerprint: None,
            use_candidate: false,
            controlled: false,
            unknown: [0; MAX_UNKNOWN],
            unknown_len: 0,
        };
        request.read_attributes(body)?;
        if request.server_ufrag.is_empty() {
            return Err(Reason::StunUnknownUser);
        }
        Ok(request)
    }

    fn read_attributes(&mut self, body: &'a [u8]) -> Result<(), Reason> {
        let mut at = HEADER;
        let mut rest = body;
        while let [t0, t1, l0, l1, after @ ..] = rest {
            let kind = u16::from_be_bytes([*t0, *t1]);
            let len = usize::from(u16::from_be_bytes([*l0, *l1]));
            let padded = len.next_multiple_of(4);
            let (Some(value), Some(next)) = (after.get(..len), after.get(padded..)) else {
                return Err(Reason::StunMalformed);
            };
            // FINGERPRINT is the last (RFC 8489 §14.7).
            if self.fingerprint.is_some() {
                return Err(Reason::StunMalformed);
            }
            self.read_attribute(at, kind, value)?;
            at += 4 + padded;
            rest = next;
        }
        Ok(())
    }

    fn read_attribute(&mut self, at: usize, kind: u16, value: &'a [u8]) -> Result<(), Reason> {
        if kind == FINGERPRINT {
            let value = value.try_into().map_err(|_| Reason::StunMalformed)?;
            self.fingerprint = Some(u32::from_be_bytes(value));
            return Ok(());
        }
        // What follows MESSAGE-INTEGRITY was not signed: it must be ignored (RFC 8489 §14.5).
        if self.integrity.is_some() {
            return Ok(());
        }
        match kind {
            // Of an attribute that comes twice only the first counts (RFC 8489 §14).
            USERNAME if self.server_ufrag.is_empty() => {
                let name = std::str::from_utf8(value).map_err(|_| Reason::StunMalformed)?;
                let (server, client) = name.split_once(':').ok_or(Reason::StunUnknownUser)?;
                if server.is_empty() || client.is_empty() {
                    return Err(Reason::StunUnknownUser);
                }
                (self.server_ufrag, self.client_ufrag) = (server, client);
            }
            MESSAGE_INTEGRITY if value.len() == INTEGRITY_LEN => self.integrity = Some((at, value)),
            MESSAGE_INTEGRITY => return Err(Reason::StunMalformed),
            USE_CANDIDATE => self.use_candidate = true,
            ICE_CONTROLLED => self.controlled = true,
            USERNAME | PRIORITY | MESSAGE_INTEGRITY_SHA256 => {}
            kind if kind < COMPREHENSION_OPTIONAL => {
                if let Some(free) = self.unknown.get_mut(self.unknown_len) {
                    *free = kind;
                    self.unknown_len += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The server's half of USERNAME: whose check this claims to be.
    #[must_use]
    pub fn server_ufrag(&self) -> &'a str {
        self.server_ufrag
    }

    /// The client's half of USERNAME: it changes with an ICE restart.
    #[must_use]
    pub fn client_ufrag(&self) -> &'a str {
        self.client_ufrag
    }

    /// The client nominates this pair (RFC 8445 §8.2).
    #[must_use]
    pub fn use_candidate(&self) -> bool {
        self.use_candidate
    }

    /// Which error the check gets even though its password is right.
    #[must_use]
    pub fn error(&self) -> Option<Response> {
        match (self.unknown_len, self.controlled) {
            (1.., _) => Some(Response::UnknownAttribute),
            (0, true) => Some(Response::RoleConflict),
            (0, false) => None,
        }
    }

    /// Checks FINGERPRINT, then MESSAGE-INTEGRITY in constant time. Does not allocate.
    ///
    /// # Errors
    /// [`Reason::StunFingerprint`] and [`Reason::StunIntegrity`], for an absent attribute too: ICE demands both
    /// (RFC 8445 §7.1).
    pub fn authenticate(&self, key: &Key) -> Result<(), Reason> {
        let fingerprint = self.fingerprint.ok_or(Reason::StunFingerprint)?;
        let covered = &self.datagram[..self.datagram.len() - FINGERPRINT_LEN];
        if fingerprint != stun::fingerprint::fingerprint_value(covered) {
            return Err(Reason::StunFingerprint);
        }
        let (at, value) = self.integrity.ok_or(Reason::StunIntegrity)?;
        let tag = key.sign(&self.datagram[..at], at + 4 + INTEGRITY_LEN - HEADER);
        constant_time::verify_slices_are_equal(tag.as_ref(), value).map_err(|_| Reason::StunIntegrity)
    }

    /// Writes the answer to this check, signed with the same password; its length, or `None` where `out` is
    /// shorter than [`MAX_ANSWER`].
    pub fn answer(&self, response: Response, key: &Key, out: &mut [u8]) -> Option<usize> {
        let out = out.get_mut(..MAX_ANSWER)?;
        let kind = match response {
            Response::Success(_) => BINDING_SUCCESS,
            Response::UnknownAttribute | Response::RoleConflict => BINDING_ERROR,
        };
        out[..2].copy_from_slice(&kind);
        out[4..HEADER].copy_from_slice(&self.datagram[4..HEADER]); // cookie and transaction
        let mut message = Message { out, len: HEADER };
        match response {
            Response::Success(remote) => message.xor_mapped_address(remote),
            Response::UnknownAttribute => {
                message.attribute(ERROR_CODE, &[0, 0, 4, 20]);
                let mut kinds = [0; 2 * MAX_UNKNOWN];
                for (bytes, kind) in kinds.chunks_exact_mut(2).zip(&self.unknown) {
                    bytes.copy_from_slice(&kind.to_be_bytes());
                }
                message.attribute(UNKNOWN_ATTRIBUTES, &kinds[..2 * self.unknown_len]);
            }
            Response::RoleConflict => message.attribute(ERROR_CODE, &[0, 0, 4, 87]),
        }
        let tag = key.sign(&message.out[..message.len], message.len + 4 + INTEGRITY_LEN - HEADER);
        message.attribute(MESSAGE_INTEGRITY, tag.as_ref());
        message.set_len(message.len + FINGERPRINT_LEN);
        let crc = stun::fingerprint::fingerprint_value(&message.out[..message.len]);
        message.attribute(FINGERPRINT, &crc.to_be_bytes());
        message.set_len(message.len);
        Some(message.len)
    }
}

/// An answer in the making, in a buffer that is long enough for all of them.
struct Message<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Message<'_> {
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let padded = value.len().next_multiple_of(4);
        let space = &mut self.out[self.len..self.len + 4 + padded];
        space[..2].copy_from_slice(&kind.to_be_bytes());
        space[2..4].copy_from_slice(&(value.len() as u16).to_be_bytes());
        space[4..4 + value.len()].copy_from_slice(value);
        space[4 + value.len()..].fill(0);
        self.len += 4 + padded;
    }

    /// RFC 8489 §14.2: the address is hidden from NATs that would rewrite it.
    fn xor_mapped_address(&mut self, remote: SocketAddr) {
        let mut value = [0; 20];
        value[2..4].copy_from_slice(&remote.port().to_be_bytes());
        let len = match remote.ip() {
            IpAddr::V4(ip) => {
                value[1] = 1;
                value[4..8].copy_from_slice(&ip.octets());
                8
            }
            IpAddr::V6(ip) => {
                value[1] = 2;
                value[4..20].copy_from_slice(&ip.octets());
                20
            }
        };
        for (byte, mask) in value[2..4].iter_mut().zip(MAGIC_COOKIE) {
            *byte ^= mask;
        }
        for (byte, mask) in value[4..len].iter_mut().zip(&self.out[4..HEADER]) {
            *byte ^= mask;
        }
        self.attribute(XOR_MAPPED_ADDRESS, &value[..len]);
    }

    /// `end`: of the message.
    fn set_len(&mut self, end: usize) {
        self.out[2..4].copy_from_slice(&((end - HEADER) as u16).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        CLIENT_UFRAG, Check, SERVER_PWD, SERVER_UFRAG, decode_answer, pair, provider,
    };
    use super::*;
    use proptest::prelude::*;
    use stun::attributes::{ATTR_ERROR_CODE, ATTR_UNKNOWN_ATTRIBUTES};
    use stun::error_code::{CODE_ROLE_CONFLICT, CODE_UNKNOWN_ATTRIBUTE, ErrorCodeAttribute};
    use stun::integrity::MessageIntegrity;
    use stun::message::{
        BINDING_ERROR, BINDING_SUCCESS, CLASS_INDICATION, Getter, METHOD_ALLOCATE, METHOD_BINDING, Message,
        MessageType,
    };
    use stun::xoraddr::XorMappedAddress;

    /// The verdict on a datagram as a transport with the right password gives it.
    fn judge(datagram: &[u8]) -> Result<bool, Reason> {
        let request = Request::parse(datagram)?;
        request.authenticate(&Key::new(SERVER_PWD))?;
        Ok(request.use_candidate())
    }

    fn answer_to(datagram: &[u8], response: Response) -> Message {
        let mut out = [0xff; MAX_ANSWER];
        let len = Request::parse(datagram).expect("parses").answer(response, &Key::new(SERVER_PWD), &mut out);
        decode_answer(&out[..len.expect("room")])
    }

    #[test]
    fn a_browsers_check_is_read_and_authenticated() {
        let check = Check::plain();
        let request = Request::parse(&check).expect("parses");
        assert_eq!((request.server_ufrag(), request.client_ufrag()), (SERVER_UFRAG, CLIENT_UFRAG));
        assert_eq!(request.error(), None);
        assert_eq!(judge(&check), Ok(false));
        assert_eq!(judge(&Check::nominating(CLIENT_UFRAG)), Ok(true));
    }

    #[test]
    fn another_implementation_accepts_the_answer() {
        let v6 = "[2001:db8::17]:65535".parse().expect("address");
        for remote in [pair(4242).remote, v6] {
            let check = Check::plain();
            let answer = answer_to(&check, Response::Success(remote));
            assert_eq!(answer.typ, BINDING_SUCCESS);
            assert_eq!(answer.transaction_id.0, check[8..20]);
            let mut address = XorMappedAddress::default();
            address.get_from(&answer).expect("mapped address");
            assert_eq!(SocketAddr::new(address.ip, address.port), remote);
        }
    }

    #[test]
    fn another_implementation_reads_the_errors() {
        let mut check = Check::from(CLIENT_UFRAG);
        check.extra = (0..20).map(|n| (0x7000 + n, vec![1, 2, 3])).collect();
        let check = check.build();
        assert_eq!(Request::parse(&check).expect("parses").error(), Some(Response::UnknownAttribute));
        let code = |answer: &Message| -> u16 {
            let mut code = ErrorCodeAttribute::default();
            assert!(answer.contains(ATTR_ERROR_CODE) && answer.typ == BINDING_ERROR);
            code.get_from(answer).expect("error code");
            code.code.0
        };
        let answer = answer_to(&check, Response::UnknownAttribute);
        assert_eq!(code(&answer), CODE_UNKNOWN_ATTRIBUTE.0);
        let named = answer.get(ATTR_UNKNOWN_ATTRIBUTES).expect("named");
        assert_eq!(named.len(), 2 * MAX_UNKNOWN);
        assert_eq!(named[..4], [0x70, 0x00, 0x70, 0x01]);

        let check = Check { controlled: true, ..Check::from(CLIENT_UFRAG) }.build();
        assert_eq!(Request::parse(&check).expect("parses").error(), Some(Response::RoleConflict));
        assert_eq!(code(&answer_to(&check, Response::RoleConflict)), CODE_ROLE_CONFLICT.0);
    }

    #[test]
    fn an_answer_needs_its_room() {
        let check = Check::plain();
        let request = Request::parse(&check).expect("parses");
        let answer = request.answer(Response::RoleConflict, &Key::new(SERVER_PWD), &mut [0; MAX_ANSWER - 1]);
        assert_eq!(answer, None);
    }

    #[test]
    fn each_kind_of_bad_check_has_its_reason() {
        let good = || Check::from(CLIENT_UFRAG);
        let cases = [
            (Check { username: None, ..good() }, Reason::StunUnknownUser),
            (Check { username: Some("srvr".into()), ..good() }, Reason::StunUnknownUser),
            (Check { username: Some(":clnt".into()), ..good() }, Reason::StunUnknownUser),
            (Check { username: Some("srvr:".into()), ..good() }, Reason::StunUnknownUser),
            (Check { pwd: None, ..good() }, Reason::StunIntegrity),
            (Check { pwd: Some("another password entirely".into()), ..good() }, Reason::StunIntegrity),
            (Check { fingerprint: false, ..good() }, Reason::StunFingerprint),
            (
                Check { kind: MessageType::new(METHOD_BINDING, CLASS_INDICATION), ..good() },
                Reason::StunUnexpected,
            ),
            (Check { kind: BINDING_SUCCESS, ..good() }, Reason::StunUnexpected),
            (
                Check { kind: MessageType { method: METHOD_ALLOCATE, ..good().kind }, ..good() },
                Reason::StunUnexpected,
            ),
        ];
        for (at, (check, reason)) in cases.into_iter().enumerate() {
            assert_eq!(judge(&check.build()), Err(reason), "case {at}");
        }
        assert_eq!(judge(&[0; 19]), Err(Reason::TooShort));
        assert_eq!(judge(&[0; 20]), Err(Reason::StunMalformed));
    }

    #[test]
    fn no_bit_may_change_and_no_byte_be_missing() {
        let check = Check::nominating(CLIENT_UFRAG);
        for at in 0..check.len() {
            for bit in 0..8 {
                let mut spoiled = check.clone();
                spoiled[at] ^= 1 << bit;
                assert!(judge(&spoiled).is_err(), "bit {bit} of byte {at}");
            }
            assert!(judge(&check[..at]).is_err(), "{at} bytes");
        }
        let mut longer = check.clone();
        longer.extend([0; 4]);
        assert_eq!(judge(&longer), Err(Reason::StunMalformed));
    }

    /// Rewrites the end of a check: `extra` between MESSAGE-INTEGRITY and a FINGERPRINT that is right again.
    fn with_unsigned(check: &[u8], extra: &[u8]) -> Vec<u8> {
        let mut spoiled = check[..check.len() - FINGERPRINT_LEN].to_vec();
        spoiled.extend(extra);
        let len = (spoiled.len() + FINGERPRINT_LEN - HEADER) as u16;
        spoiled[2..4].copy_from_slice(&len.to_be_bytes());
        let crc = stun::fingerprint::fingerprint_value(&spoiled);
        spoiled.extend([0x80, 0x28, 0, 4]);
        spoiled.extend(crc.to_be_bytes());
        spoiled
    }

    #[test]
    fn what_was_not_signed_is_not_believed() {
        // USE-CANDIDATE and an unknown attribute that must be understood, added on the way.
        let spoiled = with_unsigned(&Check::plain(), &[0x00, 0x25, 0, 0, 0x70, 0x00, 0, 0]);
        assert_eq!(judge(&spoiled), Ok(false));
        assert_eq!(Request::parse(&spoiled).expect("parses").error(), None);
    }

    #[test]
    fn of_two_user_names_the_first_counts() {
        let check =
            Check { extra: vec![(0x0006, b"other:name".to_vec())], ..Check::from(CLIENT_UFRAG) }.build();
        let request = Request::parse(&check).expect("parses");
        assert_eq!((request.server_ufrag(), request.client_ufrag()), (SERVER_UFRAG, CLIENT_UFRAG));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_bytes_are_taken(mut bytes in prop::collection::vec(any::<u8>(), 0..200), valid: bool) {
            if valid && bytes.len() >= HEADER {
                bytes.truncate(bytes.len() / 4 * 4);
                let len = (bytes.len() - HEADER) as u16;
                bytes[..2].copy_from_slice(&BINDING_REQUEST);
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                bytes[4..8].copy_from_slice(&MAGIC_COOKIE);
            }
            prop_assert!(judge(&bytes).is_err());
        }

        /// Whatever attributes a client adds: what we accept, the other implementation accepts too.
        #[test]
        fn agrees_with_another_implementation(
            extra in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..20)), 0..5),
            nominates: bool,
        ) {
            let own = [USERNAME, MESSAGE_INTEGRITY, FINGERPRINT, USE_CANDIDATE];
            let extra: Vec<_> = extra.into_iter().filter(|(kind, _)| !own.contains(kind)).collect();
            let check = Check { extra, nominates, ..Check::from(CLIENT_UFRAG) }.build();
            let mut message = Message::new();
            message.unmarshal_binary(&check).expect("decodes");
            MessageIntegrity::check(&mut message, SERVER_PWD.as_bytes(), provider().crypto()).expect("integrity");
            prop_assert_eq!(judge(&check), Ok(nominates));
            let response = Request::parse(&check).expect("parses").error();
            answer_to(&check, response.unwrap_or(Response::Success(pair(9).remote)));
        }
    }
}
