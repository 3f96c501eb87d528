//! Participants of a benchmark: the browser's end of a connection, made in memory by `dimpl` and `rtc-stun`.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use motet::control::{Command, Join, Update};
use motet::id::{AddressPair, Epoch, Mid, ParticipantId, PublicationId, RoomKey, Ssrc, TransportNumber};
use motet::net::SendBatch;
use motet::room::{Feedback, Kind, Media, Publish, ReceiveSection, SendingSection, Source, Want};
use motet::rtp::extension::ExtensionIds;
use motet::rtp::header::Header;
use motet::rtp::rtcp::{ReportBlock, Writer};
use motet::rtp::twcc::Recorder;
use motet::transport::demux::{Protocol, classify};
use motet::transport::srtp::{Opener, Profile, SealStream, Sealer, split};
use motet::transport::{Credentials, DtlsRole, Remote};
use motet::worker::{Outlet, Worker};

use crate::measure::{Cost, measured};
use stun::attributes::{
    ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, RawAttribute,
};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};
use stun::textattrs::TextAttribute;

pub(crate) const EXTENSIONS: ExtensionIds = ExtensionIds {
    mid: 4,
    rid: 10,
    repaired_rid: 11,
    transport_cc: 3,
    audio_level: 1,
    video_orientation: 13,
};
pub(crate) const PAYLOAD_TYPE: u8 = 96;
/// Bytes of the header that a publisher sends: fixed part and the transport-wide number.
pub(crate) const HEADER: usize = 20;
/// The keys that `dimpl` exports at both ends.
pub(crate) const PROFILE: Profile = Profile::AeadAes256Gcm;
const SERVER_PWD: &str = "a password of the server";

/// Keeps what the worker sends in the middle of a turn, in order.
#[derive(Default)]
pub(crate) struct Collect(pub(crate) Vec<(AddressPair, Vec<u8>)>);

impl Outlet for Collect {
    fn flush(&mut self, batch: &mut SendBatch) {
        self.0.extend(batch.datagrams().map(|(pair, bytes)| (pair, bytes.to_vec())));
        batch.clear();
    }
}

/// A participant.
pub(crate) struct Peer {
    pub(crate) index: usize,
    pub(crate) pair: AddressPair,
    pub(crate) opener: Opener,
    sealer: Sealer,
    video: SealStream,
    sequence: u16,
    transport_cc: u16,
    /// The last transport-wide number that was reported to the server.
    reported: u16,
    recorder: Recorder,
}

/// Where participant `index` sits in a call that has no sockets.
pub(crate) fn imagined(index: usize) -> AddressPair {
    AddressPair {
        local: Some(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))),
        remote: SocketAddr::from(([192, 0, 2, 7], 1000 + index as u16)),
    }
}

pub(crate) fn video_ssrc(index: usize) -> Ssrc {
    Ssrc(0x1000 + index as u32)
}

/// What an offer and its answer would have agreed on.
fn media(index: usize, publishes: bool, slots: usize) -> Media {
    let mid = |n: usize| Mid::new(n.to_string().as_bytes()).expect("a mid");
    Media {
        sending: publishes
            .then(|| SendingSection {
                mid: mid(0),
                kind: Kind::Video,
                payload_type: PAYLOAD_TYPE,
                rtx_payload_type: Some(97),
                extensions: EXTENSIONS,
                rids: Vec::new(),
                ssrcs: Vec::new(),
                nack: true,
            })
            .into_iter()
            .collect(),
        slots: (0..slots)
            .map(|slot| ReceiveSection {
                mid: mid(1 + slot),
                kind: Kind::Video,
                payload_type: PAYLOAD_TYPE,
                rtx_payload_type: Some(97),
                extensions: EXTENSIONS,
                ssrc: Ssrc(0x10_0000 + (index as u32) * 256 + slot as u32 * 2),
                rtx_ssrc: Some(Ssrc(0x10_0001 + (index as u32) * 256 + slot as u32 * 2)),
                nack: true,
            })
            .collect(),
        feedback: Feedback::TransportCc,
    }
}

impl Peer {
    /// Lets participant `index` in and completes its check and handshake.
    pub(crate) fn join(
        worker: &mut Worker,
        batch: &mut SendBatch,
        now: Instant,
        index: usize,
        pair: AddressPair,
        publishes: bool,
        slots: usize,
    ) -> Self {
        let certificate = dimpl::certificate::generate_self_signed_certificate().expect("generates");
        let fingerprint = certificate.fingerprint().try_into().expect("SHA-256");
        let ufrag = format!("srv{index}");
        let publish = Publish {
            publication: PublicationId(1 + index as u32),
            mid: Mid::new(b"0").expect("a mid"),
            kind: Kind::Video,
            source: Source::Camera,
            muted: false,
        };
        let client = Credentials { ufrag: "clnt".into(), pwd: "a password of the client".into() };
        worker.handle_command(
            now,
            Command::Join(Box::new(Join {
                room: RoomKey(1),
                participant: ParticipantId(1 + index as u64),
                epoch: Epoch(1),
                transport: TransportNumber(0),
                local: Credentials { ufrag: ufrag.clone(), pwd: SERVER_PWD.into() },
                remote: Remote { credentials: client, fingerprint, role: DtlsRole::Server },
                media: media(index, publishes, slots),
                publish: publishes.then_some(publish).into_iter().collect(),
                want: Want::default(),
            })),
        );
        let check = check(&format!("{ufrag}:clnt"), SERVER_PWD);
        let (keys, _) = handshake(worker, batch, now, pair, check, certificate);
        let (local, remote) =
            split(PROFILE, &keys, DtlsRole::Client).expect("as many bytes as the profile's");
        Self {
            index,
            pair,
            opener: Opener::new(PROFILE, &remote),
            sealer: Sealer::new(PROFILE, &local),
            video: SealStream::new(video_ssrc(index)),
            sequence: 5000,
            transport_cc: 0,
            reported: 0,
            recorder: Recorder::new(),
        }
    }

    /// The packets of one frame, sealed.
    pub(crate) fn frame(&mut self, number: u32, key: bool, packets: usize, len: usize) -> Vec<Vec<u8>> {
        (0..packets)
            .map(|n| {
                self.sequence = self.sequence.wrapping_add(1);
                self.transport_cc = self.transport_cc.wrapping_add(1);
                let mut packet = vec![0; len + PROFILE.tag_len()];
                packet[0] = 0x90;
                packet[1] = PAYLOAD_TYPE | if n + 1 == packets { 0x80 } else { 0 };
                packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
                packet[4..8].copy_from_slice(&(number * 3000).to_be_bytes());
                packet[8..12].copy_from_slice(&video_ssrc(self.index).0.to_be_bytes());
                let [high, low] = self.transport_cc.to_be_bytes();
                let mut header = HEADER;
                if key {
                    // The section's name, as browsers send it until the first report.
                    header += 4;
                    packet[12..24].copy_from_slice(&[0xBE, 0xDE, 0, 2, 0x31, high, low, 0x40, b'0', 0, 0, 0]);
                } else {
                    packet[12..20].copy_from_slice(&[0xBE, 0xDE, 0, 1, 0x31, high, low, 0]);
                }
                let [id_high, id_low] = (number as u16 & 0x7FFF).to_be_bytes();
                let start = if n == 0 { 0x10 } else { 0 };
                let payload = &mut packet[header..len];
                payload[..4].copy_from_slice(&[0x80 | start, 0x80, 0x80 | id_high, id_low]);
                for (at, byte) in payload[4..].iter_mut().enumerate() {
                    *byte = (at as u8).wrapping_mul(31).wrapping_add(self.sequence as u8);
                }
                if n == 0 {
                    let tag = if key { 0x10 } else { 0x11 };
                    payload[4..14].copy_from_slice(&[tag, 0, 0, 0x9D, 1, 0x2A, 0x40, 1, 0xB4, 0]);
                }
                // Who sent it; the receivers compare it with the CSRC.
                payload[len - header - 1] = self.index as u8;
                self.sealer
                    .seal_rtp_in_place(&mut self.video, self.sequence, &mut packet, header, len - header)
                    .expect("a fresh number");
                packet
            })
            .collect()
    }

    /// Opens a forwarded packet and compares it with what its publisher sent; whether it was one.
    pub(crate) fn verify(&mut self, mut packet: Vec<u8>) -> bool {
        if classify(&packet) != Ok(Protocol::Rtp) {
            return false;
        }
        let header = Header::parse(&packet).expect("the server writes whole headers");
        let csrc = u32::from_be_bytes(packet[12..16].try_into().expect("four bytes"));
        let len = self
            .opener
            .open_rtp(&mut packet, header.len, header.ssrc, header.sequence)
            .expect("sealed for this receiver and never before");
        let payload = &packet[header.len..header.len + len];
        let (publisher, pattern) = payload.split_last().expect("a payload");
        assert_eq!(csrc, 1 + u32::from(*publisher), "the CSRC names the publisher");
        assert_ne!(usize::from(*publisher), self.index, "nobody gets his own");
        let step = |pair: &[u8]| pair[1].wrapping_sub(pair[0]) == 31;
        assert!(pattern[14..].windows(2).all(step), "the bytes are the publisher's");
        true
    }

    /// A report about the pictures in `slots` and transport-wide feedback on everything up to the number
    /// `received`, sealed.
    pub(crate) fn feedback(&mut self, received: u16, since: Duration, slots: &[Ssrc]) -> Vec<u8> {
        while self.reported != received {
            self.reported = self.reported.wrapping_add(1);
            let spread = Duration::from_micros(u64::from(received.wrapping_sub(self.reported)) * 250);
            self.recorder.record(self.reported, since.saturating_sub(spread));
        }
        let mut out = vec![0; 1232];
        let mut writer = Writer::new(&mut out[..1200]);
        let block = |ssrc: &Ssrc| ReportBlock {
            ssrc: *ssrc,
            fraction_lost: 0,
            cumulative_lost: 0,
            highest: 0,
            jitter: 30,
            last_sr: 0,
            delay_since_sr: 0,
        };
        let blocks: Vec<_> = slots.iter().map(block).collect();
        let own = Ssrc(1);
        assert!(writer.receiver_report(own, &blocks));
        writer.transport_cc(own, slots[0], &mut self.recorder);
        let len = writer.len();
        let len = self.sealer.seal_rtcp(&mut out, len).expect("room");
        out.truncate(len);
        out
    }
}

/// The slots' sources towards participant `index`.
pub(crate) fn slot_ssrcs(index: usize, slots: usize) -> Vec<Ssrc> {
    media(index, false, slots).slots.iter().map(|slot| slot.ssrc).collect()
}

/// A nominating check.
pub(crate) fn check(username: &str, server_pwd: &str) -> Vec<u8> {
    let provider = stun::crypto::default_provider().expect("built in");
    let raw = |typ, value: &[u8]| RawAttribute { typ, length: 0, value: value.to_vec() };
    let integrity =
        MessageIntegrity::new_short_term_integrity_with_provider(server_pwd.to_owned(), provider.crypto());
    let setters: Vec<Box<dyn Setter + '_>> = vec![
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId::new()),
        Box::new(TextAttribute::new(ATTR_USERNAME, username.to_owned())),
        Box::new(raw(ATTR_ICE_CONTROLLING, &[7; 8])),
        Box::new(raw(ATTR_PRIORITY, &[0x6e, 0, 1, 0xff])),
        Box::new(raw(ATTR_USE_CANDIDATE, &[])),
        Box::new(integrity),
        Box::new(FINGERPRINT),
    ];
    let mut message = Message::new();
    message.build(&setters).expect("builds");
    message.raw
}

/// Check and DTLS handshake in memory; returns the exported keys and what it cost the server.
pub(crate) fn handshake(
    worker: &mut Worker,
    batch: &mut SendBatch,
    now: Instant,
    pair: AddressPair,
    check: Vec<u8>,
    certificate: dimpl::DtlsCertificate,
) -> (Vec<u8>, Cost) {
    let config = dimpl::Config::builder().mtu(1200).build().expect("valid");
    let mut dtls = dimpl::Dtls::new_12(Arc::new(config), certificate, now);
    dtls.set_active(true);
    let mut to_server = vec![check];
    let (mut keys, mut connected) = (None, false);
    let mut cost = Cost::default();
    let mut buffer = vec![0; 4096];
    for round in 0..50 {
        let now = now + Duration::from_micros(round * 10);
        let mut out = Collect::default();
        for mut datagram in to_server.drain(..) {
            cost += measured(|| worker.handle_datagram(now, pair, &mut datagram, batch, &mut out)).0;
        }
        // Handshakes wait for the end of the turn.
        cost += measured(|| worker.handle_timeout(now, batch, &mut out)).0;
        out.flush(batch);
        dtls.handle_timeout(now).expect("alive");
        for (to, datagram) in out.0 {
            if to == pair && matches!(datagram[0], 20..=63) {
                dtls.handle_packet(&datagram).expect("alive");
            }
        }
        loop {
            match dtls.poll_output(&mut buffer) {
                dimpl::Output::Packet(datagram) => to_server.push(datagram.to_vec()),
                dimpl::Output::KeyingMaterial(material, profile) => {
                    assert_eq!(
                        profile,
                        dimpl::SrtpProfile::AEAD_AES_256_GCM,
                        "both ends are as in production"
                    );
                    keys = Some(material.to_vec());
                }
                dimpl::Output::Timeout(_) => break,
                _ => {}
            }
        }
        cost += measured(|| {
            while let Some((_, update)) = worker.poll_update() {
                connected |= matches!(update, Update::Connected { .. });
            }
        })
        .0;
        if connected && let Some(keys) = keys.take() {
            return (keys, cost);
        }
    }
    panic!("the handshake did not complete");
}
