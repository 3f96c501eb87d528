//! An independent client: a peer connection of `rtc`, which shares neither ICE, SRTP nor RTP code with the server.

use std::any::Any;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::BytesMut;
use rtc::interceptor::{
    Interceptor, NackResponderBuilder, Packet, ReceiverReportBuilder, SenderReportBuilder, StreamInfo,
    TaggedPacket,
};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::{Registry, Slot};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RTCRtpRtxParameters, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpSenderId, RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};

use super::media::{Arrival, Kind, MediaEnd, Outgoing, Report, Source};
use super::{Peer, home, ms, sdp};

/// What a client has.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub publishes: bool,
    pub audio_slots: usize,
    pub video_slots: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { publishes: true, audio_slots: 3, video_slots: 3 }
    }
}

pub struct Client {
    pc: RTCPeerConnection,
    address: SocketAddr,
    media: MediaEnd,
    /// Audio and video.
    senders: [Option<RTCRtpSenderId>; 2],
    heard: Heard,
    out: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    connected: bool,
    next_nack: Instant,
}

/// RTCP that came; `rtc` itself does not hand it out.
type Heard = Arc<Mutex<Vec<Report>>>;

/// Listens at the wire's end of the chain of interceptors.
#[derive(Default)]
struct Listener {
    heard: Heard,
    reads: VecDeque<TaggedPacket>,
    writes: VecDeque<TaggedPacket>,
}

impl rtc::sansio::Protocol<TaggedPacket, TaggedPacket, ()> for Listener {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = shared::error::Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Self::Error> {
        if let Packet::Rtcp(packets) = &packet.message.packet {
            self.heard.lock().expect("one thread").extend(reports(packets));
        }
        self.reads.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.reads.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Self::Error> {
        self.writes.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.writes.pop_front()
    }
}

impl Interceptor for Listener {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

fn codec(kind: Kind) -> RTCRtpCodec {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.into(), parameter: parameter.into() };
    match kind {
        Kind::Audio => RTCRtpCodec {
            mime_type: "audio/opus".into(),
            clock_rate: 48_000,
            channels: 2,
            sdp_fmtp_line: "minptime=10;useinbandfec=1".into(),
            rtcp_feedback: vec![],
        },
        Kind::Video => RTCRtpCodec {
            mime_type: "video/VP8".into(),
            clock_rate: 90_000,
            channels: 0,
            sdp_fmtp_line: String::new(),
            rtcp_feedback: vec![feedback("nack", ""), feedback("nack", "pli"), feedback("ccm", "fir")],
        },
    }
}

fn engine() -> MediaEngine {
    let mut engine = MediaEngine::default();
    let register = |engine: &mut MediaEngine, rtp_codec, payload_type, kind| {
        engine.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, kind).expect("registers");
    };
    register(&mut engine, codec(Kind::Audio), 111, RtpCodecKind::Audio);
    register(&mut engine, codec(Kind::Video), 96, RtpCodecKind::Video);
    let rtx = RTCRtpCodec {
        mime_type: "video/rtx".into(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: "apt=96".into(),
        rtcp_feedback: vec![],
    };
    register(&mut engine, rtx, 97, RtpCodecKind::Video);
    for (uri, kind) in [
        ("urn:ietf:params:rtp-hdrext:sdes:mid", RtpCodecKind::Audio),
        ("urn:ietf:params:rtp-hdrext:sdes:mid", RtpCodecKind::Video),
        ("urn:ietf:params:rtp-hdrext:ssrc-audio-level", RtpCodecKind::Audio),
    ] {
        let capability = RTCRtpHeaderExtensionCapability { uri: uri.into() };
        engine.register_header_extension(capability, kind, None).expect("registers");
    }
    engine
}

fn build(now: Instant, heard: &Heard) -> RTCPeerConnection {
    let mut engine = engine();
    let listener = Listener { heard: heard.clone(), ..Listener::default() };
    let registry = Registry::new()
        .with(Slot::from(1), listener)
        .with(Slot::NackResponder, NackResponderBuilder::new().build())
        .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build())
        .with(Slot::SenderReport, SenderReportBuilder::new().build());
    let registry =
        rtc::peer_connection::configuration::interceptor_registry::configure_twcc(registry, &mut engine)
            .expect("configures");
    RTCPeerConnectionBuilder::new()
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .build(now)
        .expect("builds")
}

impl Client {
    /// A client and its offer. `index` is its tag, too.
    pub fn new(index: usize, now: Instant, shape: &Shape) -> (Self, String) {
        let heard = Heard::default();
        let mut pc = build(now, &heard);
        let address = home(index);
        let mut media = MediaEnd::default();
        let mut senders = [None, None];
        if shape.publishes {
            for kind in [Kind::Audio, Kind::Video] {
                let ssrc = 1_000_000 * (index as u32 + 1) + 10 * kind as u32;
                let rtx = (kind == Kind::Video).then_some(ssrc + 1);
                let id = pc
                    .add_transceiver_from_track(
                        track(index, kind, ssrc, rtx),
                        Some(RTCRtpTransceiverInit {
                            direction: RTCRtpTransceiverDirection::Sendonly,
                            ..RTCRtpTransceiverInit::default()
                        }),
                    )
                    .expect("adds");
                senders[kind as usize] = Some(id.into());
                let mut source = Source::new(index as u32, kind, "", ssrc, now);
                source.rtx_ssrc = rtx;
                source.active = false;
                media.sources.push(source);
            }
        }
        for (kind, count) in
            [(RtpCodecKind::Audio, shape.audio_slots), (RtpCodecKind::Video, shape.video_slots)]
        {
            for _ in 0..count {
                pc.add_transceiver_from_kind(kind, None).expect("adds");
            }
        }
        let candidate = CandidateHostConfig {
            base_config: CandidateConfig {
                network: "udp".into(),
                address: address.ip().to_string(),
                port: address.port(),
                component: 1,
                ..CandidateConfig::default()
            },
            ..CandidateHostConfig::default()
        }
        .new_candidate_host()
        .expect("a candidate");
        pc.add_local_candidate(RTCIceCandidate::from(&candidate).to_json().expect("text")).expect("adds");
        let offer = pc.create_offer(None).expect("offers");
        pc.set_local_description(now, offer.clone()).expect("its own offer");
        let sections = sdp::sections(&offer.sdp);
        for source in &mut media.sources {
            let section = sections
                .iter()
                .find(|section| section.kind == Some(source.kind) && section.has("a=sendonly"));
            source.mid = section.expect("a sending section").mid.clone();
        }
        (
            Self {
                pc,
                address,
                media,
                senders,
                heard,
                out: VecDeque::new(),
                connected: false,
                next_nack: now,
            },
            offer.sdp,
        )
    }

    fn send(&mut self, now: Instant, packet: Outgoing) {
        let kind = if packet.header.payload_type == 111 { Kind::Audio } else { Kind::Video };
        let id = self.senders[kind as usize].expect("it publishes");
        let packet = rtp::Packet { header: packet.header, payload: packet.payload };
        let mut sender = self.pc.rtp_sender(id).expect("a sender");
        sender.write_rtp(now, packet).expect("sends");
    }

    /// The requests of `rtc` itself go on for what was repeated long ago.
    fn ask_for_missing(&mut self, now: Instant) {
        for (media_ssrc, lost) in self.media.missing(now) {
            let nacks = nack_pairs_from_sequence_numbers(&lost);
            let nack = TransportLayerNack { sender_ssrc: 1, media_ssrc, nacks };
            let message = RTCMessage::RtcpPacket(String::new(), vec![Box::new(nack)]);
            self.pc.handle_write(TaggedRTCMessage { now, message }).expect("sends");
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.pc.poll_event() {
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event {
                self.connected = state == RTCPeerConnectionState::Connected;
            }
        }
        while let Some(TaggedRTCMessage { message, .. }) = self.pc.poll_read() {
            if let RTCMessage::RtpPacket(_, packet) = message {
                let arrival = Arrival { at: now, header: packet.header, payload: packet.payload, rtx: None };
                self.media.receive(arrival);
            }
        }
        for report in std::mem::take(&mut *self.heard.lock().expect("one thread")) {
            // Its own interceptor answers requests for repetition.
            self.media.take(now, report);
        }
        while let Some(message) = self.pc.poll_write() {
            self.out.push_back((self.address, message.transport.peer_addr, message.message.to_vec()));
        }
    }
}

fn track(index: usize, kind: Kind, ssrc: u32, rtx: Option<u32>) -> MediaStreamTrack {
    let name = format!("{index}-{kind:?}");
    let kind_there = if kind == Kind::Audio { RtpCodecKind::Audio } else { RtpCodecKind::Video };
    let coding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(ssrc),
            rtx: rtx.map(|ssrc| RTCRtpRtxParameters { ssrc }),
            ..RTCRtpCodingParameters::default()
        },
        codec: codec(kind),
        ..RTCRtpEncodingParameters::default()
    };
    MediaStreamTrack::new(name.clone(), name.clone(), name, kind_there, vec![coding])
}

impl Peer for Client {
    fn answered(&mut self, now: Instant, answer: &str) {
        self.media.ids = sdp::ids(answer);
        self.media.slots = sdp::slots(answer);
        // `rtc` looks for the DTLS role in the sections only.
        let answer = answer.replace("\r\na=rtcp-mux", "\r\na=setup:passive\r\na=rtcp-mux");
        let answer = RTCSessionDescription::answer(answer).expect("an answer");
        self.pc.set_remote_description(now, answer).expect("takes our answer");
    }

    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let transport = TransportContext {
            local_addr: to,
            peer_addr: from,
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        // What it cannot use is its own business.
        let _ = self.pc.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(bytes) });
        self.drain(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let _ = self.pc.handle_timeout(now);
        if self.connected {
            for packet in self.media.poll(now) {
                self.send(now, packet);
            }
            if self.next_nack <= now {
                self.next_nack = now + ms(20);
                self.ask_for_missing(now);
            }
        }
        self.drain(now);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let media = self.media.poll_timeout().filter(|_| self.connected);
        let nack = (self.connected && self.media.lacks()).then_some(self.next_nack);
        [self.pc.poll_timeout(), media, nack].into_iter().flatten().min()
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        if self.out.is_empty() {
            self.drain(now);
        }
        self.out.pop_front()
    }

    fn media(&mut self) -> &mut MediaEnd {
        &mut self.media
    }

    fn is_connected(&self) -> bool {
        self.connected
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// What a compound packet says.
pub fn reports(packets: &[Box<dyn rtcp::Packet>]) -> Vec<Report> {
    use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
    use rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
    use rtcp::receiver_report::ReceiverReport;
    use rtcp::sender_report::SenderReport;
    use rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
    let mut reports = Vec::new();
    for packet in packets {
        let any = packet.as_any();
        if let Some(pli) = any.downcast_ref::<PictureLossIndication>() {
            reports.push(Report::Pli(pli.media_ssrc));
        } else if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
            let lost = nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
            reports.push(Report::Nack(nack.media_ssrc, lost));
        } else if let Some(report) = any.downcast_ref::<ReceiverReport>() {
            reports.push(Report::Receiver(report.reports.iter().map(|block| block.ssrc).collect()));
        } else if let Some(report) = any.downcast_ref::<SenderReport>() {
            if !report.reports.is_empty() {
                reports.push(Report::Receiver(report.reports.iter().map(|block| block.ssrc).collect()));
            }
            reports.push(Report::Sender {
                ssrc: report.ssrc,
                ntp: report.ntp_time,
                rtp: report.rtp_time,
                packets: report.packet_count,
            });
        } else if let Some(remb) = any.downcast_ref::<ReceiverEstimatedMaximumBitrate>() {
            reports.push(Report::Remb(remb.bitrate));
        } else if let Some(feedback) = any.downcast_ref::<TransportLayerCc>() {
            reports.push(Report::TransportCc(usize::from(feedback.packet_status_count)));
        } else {
            reports.push(Report::Other);
        }
    }
    reports
}
