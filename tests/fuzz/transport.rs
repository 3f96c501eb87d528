//! A whole transport that is fed with whatever comes: checks, handshake flights of an honest client, spoiled
//! ones, media and time, in any order.
//!
//! The input is a list of steps: one byte says which, one byte how long its operand is, then the operand.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use motet::id::{AddressPair, Ssrc};
use motet::transport::certificate::Certificate;
use motet::transport::stun::MAX_ANSWER;
use motet::transport::{Credentials, DtlsRole, Remote, Transport};

use super::stun::signed;

static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| Certificate::generate().expect("generates"));
static CLIENT: LazyLock<dimpl::DtlsCertificate> =
    LazyLock::new(|| dimpl::certificate::generate_self_signed_certificate().expect("generates"));

const PWD: &str = "a password of the server";

pub fn fuzz_transport(data: &[u8]) {
    let Some((role, steps)) = data.split_first() else { return };
    let role = if role & 1 == 0 { DtlsRole::Server } else { DtlsRole::Client };
    let mut session = Session::new(role);
    let mut rest = steps;
    while let [step, len, after @ ..] = rest {
        let (operand, after) = after.split_at(usize::from(*len).min(after.len()));
        session.step(*step, operand);
        rest = after;
    }
}

struct Session {
    now: Instant,
    transport: Transport,
    client: dimpl::Dtls,
    /// What the server sent, for the honest client.
    to_client: Vec<Vec<u8>>,
}

impl Session {
    fn new(role: DtlsRole) -> Self {
        let now = Instant::now();
        let config = Arc::new(dimpl::Config::builder().mtu(400).build().expect("valid"));
        let mut client = dimpl::Dtls::new_12(config, CLIENT.clone(), now);
        client.set_active(role == DtlsRole::Server);
        let fingerprint = CLIENT.fingerprint().try_into().expect("SHA-256");
        let local = Credentials { ufrag: "srvr".into(), pwd: PWD.into() };
        let credentials = Credentials { ufrag: "clnt".into(), pwd: "a password of the client".into() };
        let remote = Remote { credentials, fingerprint, role };
        let transport = Transport::new(&CERTIFICATE, &local, &remote, now);
        Self { now, transport, client, to_client: Vec::new() }
    }

    fn step(&mut self, step: u8, operand: &[u8]) {
        let pair =
            AddressPair { local: None, remote: SocketAddr::from(([192, 0, 2, 7], 1 + u16::from(step >> 6))) };
        match step & 15 {
            0 => self.check(pair, operand),
            1 => self.check(pair, &signed("srvr:clnt", PWD, operand)),
            2 => self.check(pair, &signed("srvr:newu", PWD, operand)),
            3 => self.transport.restart(&Credentials { ufrag: "newu".into(), pwd: String::new() }),
            4 => _ = self.transport.handle_dtls(self.now, pair, operand),
            5 | 6 => self.honest_client(pair, &[]),
            7 => self.honest_client(pair, operand),
            8 => {
                let mut packet = operand.to_vec();
                _ = self.transport.open_rtcp(self.now, pair, &mut packet);
            }
            9 if operand.len() >= 12 => {
                let mut packet = operand.to_vec();
                _ = self.transport.open_rtp(self.now, pair, &mut packet, 12, Ssrc(7), 7);
            }
            10 => self.now += Duration::from_millis(operand.iter().map(|byte| u64::from(*byte)).sum()),
            11 => self.now += Duration::from_secs(operand.len() as u64),
            _ => {}
        }
        self.settle();
    }

    fn check(&mut self, pair: AddressPair, datagram: &[u8]) {
        let mut answer = [0; MAX_ANSWER];
        if let Ok(answer) = self.transport.handle_check(self.now, pair, datagram, &mut answer) {
            assert!(answer.len <= MAX_ANSWER);
            assert!(answer.refused.is_some() || self.transport.pair().is_some());
        }
    }

    /// The client takes what came and says what it has to say; each pair of bytes of `spoil` is a place and a
    /// mask that changes a byte there.
    fn honest_client(&mut self, pair: AddressPair, spoil: &[u8]) {
        let mut sent = Vec::new();
        for datagram in std::iter::once(Vec::new()).chain(std::mem::take(&mut self.to_client)) {
            if self
                .client
                .handle_timeout(self.now)
                .and_then(|()| self.client.handle_packet(&datagram))
                .is_err()
            {
                return;
            }
            let mut buffer = [0; 2048];
            loop {
                match self.client.poll_output(&mut buffer) {
                    dimpl::Output::Packet(packet) => sent.push(packet.to_vec()),
                    dimpl::Output::Timeout(_) => break,
                    _ => {}
                }
            }
        }
        for mut datagram in sent {
            for place in spoil.chunks_exact(2) {
                let at = usize::from(place[0]) % datagram.len();
                datagram[at] ^= place[1];
            }
            _ = self.transport.handle_dtls(self.now, pair, &datagram);
        }
    }

    fn settle(&mut self) {
        self.transport.handle_timeout(self.now);
        if let Some(at) = self.transport.poll_timeout() {
            assert!(at > self.now, "what was due is done");
        }
        let mut out = [0; 1500];
        while let Some((to, len)) = self.transport.poll_transmit(&mut out) {
            assert_eq!(Some(to), self.transport.pair());
            self.to_client.push(out[..len].to_vec());
        }
        self.to_client.truncate(32);
        while self.transport.poll_event().is_some() {}
    }
}
