//! What the tests of this directory share: a client's checks, built by `rtc-stun`, so that both ends of the wire
//! are not of the same hand, and a browser's end of the DTLS session.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stun::attributes::{
    ATTR_FINGERPRINT, ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_MESSAGE_INTEGRITY, ATTR_PRIORITY,
    ATTR_USE_CANDIDATE, ATTR_USERNAME, AttrType, RawAttribute,
};
use stun::crypto::RTCCryptoProvider;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, Message, MessageType, Setter, TransactionId};
use stun::textattrs::TextAttribute;

use super::certificate::Certificate;
use super::{Credentials, DtlsRole, Remote, Transport};
use crate::id::AddressPair;

pub(super) const SERVER_UFRAG: &str = "srvr";
pub(super) const SERVER_PWD: &str = "a password of the server";
pub(super) const CLIENT_UFRAG: &str = "clnt";

pub(super) fn provider() -> Arc<dyn RTCCryptoProvider> {
    stun::crypto::default_provider().expect("built in")
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A client behind port `port`, talking to our only address.
pub(super) fn pair(port: u16) -> AddressPair {
    AddressPair {
        local: Some(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))),
        remote: SocketAddr::from(([192, 0, 2, 7], port)),
    }
}

pub(super) fn local() -> Credentials {
    Credentials { ufrag: SERVER_UFRAG.into(), pwd: SERVER_PWD.into() }
}

pub(super) fn client_credentials(ufrag: &str) -> Credentials {
    Credentials { ufrag: ufrag.into(), pwd: "a password of the client".into() }
}

/// A connectivity check as a browser sends it; fields may be spoiled before [`Check::build`].
#[derive(Clone)]
pub(super) struct Check {
    pub(super) kind: MessageType,
    pub(super) username: Option<String>,
    pub(super) pwd: Option<String>,
    pub(super) nominates: bool,
    pub(super) controlled: bool,
    pub(super) extra: Vec<(u16, Vec<u8>)>,
    pub(super) fingerprint: bool,
}

impl Check {
    pub(super) fn from(client_ufrag: &str) -> Self {
        Self {
            kind: BINDING_REQUEST,
            username: Some(format!("{SERVER_UFRAG}:{client_ufrag}")),
            pwd: Some(SERVER_PWD.into()),
            nominates: false,
            controlled: false,
            extra: Vec::new(),
            fingerprint: true,
        }
    }

    pub(super) fn plain() -> Vec<u8> {
        Self::from(CLIENT_UFRAG).build()
    }

    pub(super) fn nominating(client_ufrag: &str) -> Vec<u8> {
        Self { nominates: true, ..Self::from(client_ufrag) }.build()
    }

    pub(super) fn build(&self) -> Vec<u8> {
        let provider = provider();
        let mut setters: Vec<Box<dyn Setter + '_>> =
            vec![Box::new(self.kind), Box::new(TransactionId::new())];
        let raw = |typ: AttrType, value: &[u8]| RawAttribute { typ, length: 0, value: value.to_vec() };
        if let Some(username) = &self.username {
            setters.push(Box::new(TextAttribute::new(ATTR_USERNAME, username.clone())));
        }
        // Optional, as Chromium sends it.
        setters.push(Box::new(raw(AttrType(0xC057), &[0, 1, 0, 10])));
        let role = if self.controlled { ATTR_ICE_CONTROLLED } else { ATTR_ICE_CONTROLLING };
        setters.push(Box::new(raw(role, &[7; 8])));
        setters.push(Box::new(raw(ATTR_PRIORITY, &[0x6e, 0, 1, 0xff])));
        if self.nominates {
            setters.push(Box::new(raw(ATTR_USE_CANDIDATE, &[])));
        }
        for (kind, value) in &self.extra {
            setters.push(Box::new(raw(AttrType(*kind), value)));
        }
        if let Some(pwd) = &self.pwd {
            let integrity =
                MessageIntegrity::new_short_term_integrity_with_provider(pwd.clone(), provider.crypto());
            setters.push(Box::new(integrity));
        }
        if self.fingerprint {
            setters.push(Box::new(FINGERPRINT));
        }
        let mut message = Message::new();
        message.build(&setters).expect("builds");
        message.raw
    }
}

/// What a browser does with an answer before it believes it; panics where it would not.
pub(super) fn decode_answer(answer: &[u8]) -> Message {
    let mut message = Message::new();
    message.unmarshal_binary(answer).expect("decodes");
    assert!(message.contains(ATTR_MESSAGE_INTEGRITY) && message.contains(ATTR_FINGERPRINT));
    FINGERPRINT.check(&message).expect("fingerprint");
    MessageIntegrity::check(&mut message, SERVER_PWD.as_bytes(), provider().crypto()).expect("integrity");
    message
}

/// A browser's end of the DTLS session.
pub(super) struct Client {
    pub(super) dtls: dimpl::Dtls,
    pub(super) fingerprint: [u8; 32],
    pub(super) wake: Instant,
    pub(super) connected: bool,
    pub(super) closed: bool,
    pub(super) keys: Option<(Vec<u8>, dimpl::SrtpProfile)>,
}

impl Client {
    /// With the settings of browsers; `mtu` decides whether the ClientHello is split.
    pub(super) fn new(active: bool, mtu: usize, now: Instant) -> Self {
        let pair = dimpl::certificate::generate_self_signed_certificate().expect("generates");
        Self::with_certificate(pair, active, mtu, now)
    }

    pub(super) fn with_certificate(
        pair: dimpl::DtlsCertificate,
        active: bool,
        mtu: usize,
        now: Instant,
    ) -> Self {
        let fingerprint = super::certificate::fingerprint(&pair.certificate);
        let config = dimpl::Config::builder()
            .mtu(mtu)
            .flight_start_rto(ms(50))
            .flight_retries(8)
            .build()
            .expect("valid");
        let mut dtls = dimpl::Dtls::new_12(Arc::new(config), pair, now);
        dtls.set_active(active);
        Self { dtls, fingerprint, wake: now, connected: false, closed: false, keys: None }
    }

    pub(super) fn remote(&self, role: DtlsRole) -> Remote {
        Remote { credentials: client_credentials(CLIENT_UFRAG), fingerprint: self.fingerprint, role }
    }

    /// Lets time pass, then takes `datagrams`; what it sends.
    pub(super) fn step(&mut self, now: Instant, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.dtls.handle_timeout(now).expect("client alive");
        let mut sent = self.drain();
        for datagram in datagrams {
            self.dtls.handle_packet(datagram).expect("client alive");
            sent.extend(self.drain());
        }
        sent
    }

    pub(super) fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 4096];
        let mut sent = Vec::new();
        loop {
            match self.dtls.poll_output(&mut buffer) {
                dimpl::Output::Packet(datagram) => sent.push(datagram.to_vec()),
                dimpl::Output::Connected => self.connected = true,
                dimpl::Output::KeyingMaterial(keys, profile) => self.keys = Some((keys.to_vec(), profile)),
                dimpl::Output::CloseNotify => self.closed = true,
                dimpl::Output::Timeout(at) => {
                    self.wake = at;
                    return sent;
                }
                _ => {}
            }
        }
    }
}

/// A transport that was checked and nominated from port 1 at `now`.
pub(super) fn checked_transport(certificate: &Certificate, remote: &Remote, now: Instant) -> Transport {
    let mut transport = Transport::new(certificate, &local(), remote, now);
    let mut out = [0; super::stun::MAX_ANSWER];
    let check = Check::nominating(CLIENT_UFRAG);
    transport.handle_check(now, pair(1), &check, &mut out).expect("accepted");
    transport
}
