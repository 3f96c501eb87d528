//! The same bytes and values through an independent implementation: `rtc-rtp` and `rtc-rtcp`.

use ::bytes::Bytes;
use ::rtcp as other_rtcp;
use ::rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, SymbolTypeTcc, TransportLayerCc};
use ::rtp as other_rtp;
use ::shared::marshal::{Marshal, Unmarshal};
use other_rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
use other_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use other_rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use other_rtcp::receiver_report::ReceiverReport;
use other_rtcp::reception_report::ReceptionReport;
use other_rtcp::sender_report::SenderReport;
use other_rtcp::source_description::{SdesType, SourceDescription};
use other_rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use other_rtp::packetizer::Depacketizer;
use proptest::prelude::*;
use std::time::Duration;

use crate::id::Ssrc;
use crate::rtp::codec::vp8::Descriptor;
use crate::rtp::extension::{ExtensionIds, Outgoing};
use crate::rtp::header::Header;
use crate::rtp::rtcp::{ReportBlock, Rtcp, SenderInfo, Writer, packets};
use crate::rtp::twcc::{Feedback, Recorder};
use crate::units::{Bitrate, NtpTime};

fn written(write: impl FnOnce(&mut Writer<'_>) -> bool) -> Vec<u8> {
    let mut buffer = vec![0; 2000];
    let mut writer = Writer::new(&mut buffer);
    assert!(write(&mut writer), "fits");
    let len = writer.len();
    buffer.truncate(len);
    buffer
}

/// The other implementation's view of what ours wrote.
fn theirs<T: Clone + 'static>(data: &[u8]) -> T {
    let packets = other_rtcp::packet::unmarshal(&mut &data[..]).expect("well-formed");
    assert_eq!(packets.len(), 1);
    packets[0].as_any().downcast_ref::<T>().expect("of this type").clone()
}

fn only(data: &[u8]) -> Rtcp<'_> {
    let mut packets = packets(data);
    let packet = packets.next().expect("one packet").expect("well-formed");
    assert!(packets.next().is_none());
    packet
}

fn report() -> impl Strategy<Value = ReportBlock> {
    (any::<u32>(), any::<u8>(), -0x80_0000..0x80_0000, any::<[u32; 4]>()).prop_map(
        |(ssrc, fraction_lost, cumulative_lost, [highest, jitter, last_sr, delay_since_sr])| ReportBlock {
            ssrc: Ssrc(ssrc),
            fraction_lost,
            cumulative_lost,
            highest,
            jitter,
            last_sr,
            delay_since_sr,
        },
    )
}

fn their_report(report: &ReportBlock) -> ReceptionReport {
    ReceptionReport {
        ssrc: report.ssrc.0,
        fraction_lost: report.fraction_lost,
        total_lost: report.cumulative_lost.cast_unsigned() & 0xFF_FFFF,
        last_sequence_number: report.highest,
        jitter: report.jitter,
        last_sender_report: report.last_sr,
        delay: report.delay_since_sr,
    }
}

/// Elements that both forms can carry: distinct ids from 1 to 14 with 1 to 16 bytes.
fn elements() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    prop::collection::btree_map(1u8..=14, prop::collection::vec(any::<u8>(), 1..=16), 0..5)
        .prop_map(|map| map.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn headers_that_they_write_are_read_alike(
        (marker, padding, two_byte) in any::<(bool, bool, bool)>(),
        payload_type in 0u8..128,
        (sequence, timestamp, ssrc) in any::<(u16, u32, u32)>(),
        csrc in prop::collection::vec(any::<u32>(), 0..=15),
        elements in elements(),
        payload in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut other = other_rtp::header::Header {
            version: 2, padding, marker, payload_type, sequence_number: sequence, timestamp, ssrc, csrc,
            ..Default::default()
        };
        if !elements.is_empty() {
            other.extension = true;
            other.extension_profile = if two_byte { 0x1000 } else { 0xBEDE };
            for (id, data) in &elements {
                other.set_extension(*id, Bytes::copy_from_slice(data)).expect("valid");
            }
        }
        let mut packet = other.marshal().expect("valid").to_vec();
        let len = packet.len();
        packet.extend(payload);
        let header = Header::parse(&packet).expect("well-formed");
        prop_assert_eq!((header.marker, header.padding, header.payload_type), (marker, padding, payload_type));
        prop_assert_eq!((header.sequence, header.timestamp, header.ssrc), (sequence, timestamp, Ssrc(ssrc)));
        prop_assert_eq!((usize::from(header.csrcs), header.len), (other.csrc.len(), len));
        let read: Vec<_> = header.extensions(&packet).map(|(id, data)| (id, data.to_vec())).collect();
        prop_assert_eq!(read, elements);
    }

    #[test]
    fn headers_that_we_write_are_read_alike(
        (marker, padding) in any::<(bool, bool)>(),
        payload_type in 0u8..128,
        (sequence, timestamp, ssrc, csrc) in any::<(u16, u32, u32, Option<u32>)>(),
        (transport_cc, audio_level, video_orientation) in any::<(Option<u16>, Option<u8>, Option<u8>)>(),
        ids in (0u8..=5, 6u8..=10, 11u8..=16),
    ) {
        let ids = ExtensionIds { transport_cc: ids.0, audio_level: ids.1, video_orientation: ids.2, ..Default::default() };
        let outgoing = Outgoing {
            marker, padding, payload_type, sequence, timestamp, ssrc: Ssrc(ssrc), csrc,
            transport_cc, audio_level, video_orientation,
        };
        let mut out = [0xFF; Outgoing::MAX_LEN];
        let len = outgoing.write(&ids, &mut out).expect("fits");
        let other = other_rtp::header::Header::unmarshal(&mut &out[..len]).expect("well-formed");
        prop_assert_eq!((other.version, other.marker, other.padding), (2, marker, padding));
        prop_assert_eq!((other.payload_type, other.sequence_number), (payload_type, sequence));
        prop_assert_eq!((other.timestamp, other.ssrc), (timestamp, ssrc));
        prop_assert_eq!(&other.csrc, &Vec::from_iter(csrc));
        let get = |id: u8| other.get_extension(id).map(|data| data.to_vec());
        let usable = |id: u8| (1..=14).contains(&id);
        let expected = transport_cc.filter(|_| usable(ids.transport_cc)).map(|value| value.to_be_bytes().to_vec());
        prop_assert_eq!(get(ids.transport_cc), expected);
        prop_assert_eq!(get(ids.audio_level), audio_level.map(|value| vec![value]));
        let expected = video_orientation.filter(|_| usable(ids.video_orientation)).map(|value| vec![value]);
        prop_assert_eq!(get(ids.video_orientation), expected);
    }

    #[test]
    fn vp8_descriptors_are_read_alike(payload in prop::collection::vec(any::<u8>(), 4..12)) {
        let mut other = other_rtp::codec::vp8::Vp8Packet::default();
        let rest = other.depacketize(&Bytes::copy_from_slice(&payload));
        match Descriptor::parse(&payload) {
            Err(_) => prop_assert!(rest.is_err()),
            Ok(ours) => {
                let rest = rest.expect("well-formed");
                prop_assert_eq!(ours.len, payload.len() - rest.len());
                prop_assert_eq!(ours.start_of_frame, other.s == 1 && other.pid == 0);
                prop_assert_eq!(ours.discardable, other.n == 1);
                prop_assert_eq!(ours.picture_id, (other.i == 1).then_some(other.picture_id));
                prop_assert_eq!(ours.tl0_picture_index, (other.l == 1).then_some(other.tl0_pic_idx));
                prop_assert_eq!(ours.temporal_layer, (other.t == 1).then_some(other.tid));
                prop_assert_eq!(ours.layer_sync, other.t == 1 && other.y == 1);
                prop_assert_eq!(ours.key_index, (other.k == 1).then_some(other.key_idx));
            }
        }
    }

    #[test]
    fn reports_agree_both_ways(
        [ssrc, rtp, packet_count, octets] in any::<[u32; 4]>(),
        ntp: u64,
        reports in prop::collection::vec(report(), 0..=31),
    ) {
        let info = SenderInfo { ntp: NtpTime(ntp), rtp, packets: packet_count, octets };
        let data = written(|w| w.sender_report(Ssrc(ssrc), &info, &reports));
        let other: SenderReport = theirs(&data);
        let expected = SenderReport {
            ssrc, ntp_time: ntp, rtp_time: rtp, packet_count, octet_count: octets,
            reports: reports.iter().map(their_report).collect(),
            profile_extensions: Bytes::new(),
        };
        prop_assert_eq!(&other, &expected);
        prop_assert_eq!(&expected.marshal().expect("valid")[..], &data[..]);

        let data = written(|w| w.receiver_report(Ssrc(ssrc), &reports));
        let other: ReceiverReport = theirs(&data);
        let expected = ReceiverReport {
            ssrc, reports: reports.iter().map(their_report).collect(), profile_extensions: Bytes::from_static(b"more"),
        };
        prop_assert_eq!(&other.reports, &expected.reports);
        let data = expected.marshal().expect("valid");
        let Rtcp::ReceiverReport { ssrc: read, reports: blocks } = only(&data) else { panic!("no report") };
        prop_assert_eq!((read, blocks.collect::<Vec<_>>()), (Ssrc(ssrc), reports));
    }

    #[test]
    fn feedback_agrees_both_ways(
        (sender_ssrc, media_ssrc, first) in any::<(u32, u32, u16)>(),
        gaps in prop::collection::vec(prop_oneof![1u16..4, 1u16..100], 0..100),
        fir in prop::collection::vec(any::<(u32, u8)>(), 1..10),
    ) {
        let mut lost = vec![first];
        lost.extend(gaps.iter().scan(first, |at, gap| { *at = at.wrapping_add(*gap); Some(*at) }));
        let data = written(|w| w.nack(Ssrc(sender_ssrc), Ssrc(media_ssrc), &lost));
        let other: TransportLayerNack = theirs(&data);
        prop_assert_eq!((other.sender_ssrc, other.media_ssrc), (sender_ssrc, media_ssrc));
        prop_assert_eq!(other.nacks.iter().flat_map(|pair| pair.packet_list()).collect::<Vec<_>>(), lost.clone());
        let data = other.marshal().expect("valid");
        let Rtcp::Nack { lost: read, .. } = only(&data) else { panic!("no NACK") };
        prop_assert_eq!(read.collect::<Vec<_>>(), lost);

        let pli = PictureLossIndication { sender_ssrc, media_ssrc };
        let data = written(|w| w.pli(Ssrc(sender_ssrc), Ssrc(media_ssrc)));
        prop_assert_eq!(&data[..], &pli.marshal().expect("valid")[..]);

        let request = FullIntraRequest {
            sender_ssrc, media_ssrc,
            fir: fir.iter().map(|&(ssrc, sequence_number)| FirEntry { ssrc, sequence_number }).collect(),
        };
        let data = request.marshal().expect("valid");
        let Rtcp::Fir { entries } = only(&data) else { panic!("no FIR") };
        prop_assert_eq!(entries.map(|(ssrc, n)| (ssrc.0, n)).collect::<Vec<_>>(), fir);
    }

    /// They compute in `f32`, which holds the 18 bits of the mantissa exactly.
    #[test]
    fn bitrates_agree_both_ways(bits in 0u32..0x4_0000, shift in 0u32..40, ssrcs in prop::collection::vec(any::<u32>(), 0..10)) {
        let bitrate = u64::from(bits) << shift;
        let data = written(|w| w.remb(Ssrc(1), Bitrate(bitrate), &ssrcs.iter().copied().map(Ssrc).collect::<Vec<_>>()));
        let other: ReceiverEstimatedMaximumBitrate = theirs(&data);
        prop_assert_eq!((other.bitrate, &other.ssrcs), (bitrate as f32, &ssrcs));
        let data = other.marshal().expect("valid");
        let Rtcp::Remb { bitrate: read, ssrcs: streams } = only(&data) else { panic!("no REMB") };
        prop_assert_eq!((read, streams.map(|ssrc| ssrc.0).collect::<Vec<_>>()), (Bitrate(bitrate), ssrcs));
    }

    #[test]
    fn canonical_names_are_read_alike(ssrc: u32, cname in "[ -~]{0,255}") {
        let data = written(|w| w.sdes_cname(Ssrc(ssrc), &cname));
        let other: SourceDescription = theirs(&data);
        prop_assert_eq!(other.chunks.len(), 1);
        prop_assert_eq!((other.chunks[0].source, other.chunks[0].items.len()), (ssrc, 1));
        let item = &other.chunks[0].items[0];
        prop_assert_eq!((item.sdes_type, &item.text[..]), (SdesType::SdesCname, cname.as_bytes()));
    }

    #[test]
    fn transport_wide_feedback_agrees_both_ways(
        base: u16,
        packets in prop::collection::vec((any::<bool>(), 0u64..100_000), 1..200),
    ) {
        let mut recorder = Recorder::new();
        let mut now = Duration::from_secs(1000);
        recorder.record(base, now);
        for (n, (received, micros)) in packets.into_iter().enumerate() {
            now += Duration::from_micros(micros);
            if received {
                recorder.record(base.wrapping_add(n as u16 + 1), now);
            }
        }
        let data = written(|w| w.transport_cc(Ssrc(1), Ssrc(2), &mut recorder));
        let other: TransportLayerCc = theirs(&data);
        let ours = {
            let Rtcp::TransportCc { body, .. } = only(&data) else { panic!("no feedback") };
            Feedback::parse(body).expect("well-formed")
        };
        prop_assert_eq!((other.base_sequence_number, other.packet_status_count), (ours.base, ours.packets));
        prop_assert_eq!((other.reference_time, other.fb_pkt_count), (ours.reference_time, ours.feedback_count));
        let expected: Vec<_> = ours.packets().collect();
        prop_assert_eq!(their_statuses(&other), expected.clone());

        // They pad with the P bit, by 1 to 3 bytes.
        let data = other.marshal().expect("valid");
        let Rtcp::TransportCc { body, .. } = only(&data) else { panic!("no feedback") };
        let again = Feedback::parse(body).expect("well-formed");
        prop_assert_eq!(again.packets().collect::<Vec<_>>(), expected);
    }
}

/// What the other implementation's chunks and deltas mean: numbers, and arrivals in ticks since the reference time.
fn their_statuses(feedback: &TransportLayerCc) -> Vec<(u16, Option<i32>)> {
    let mut deltas = feedback.recv_deltas.iter();
    let mut arrival = 0;
    feedback
        .packet_chunks
        .iter()
        .flat_map(|chunk| match chunk {
            PacketStatusChunk::RunLengthChunk(run) => vec![run.packet_status_symbol; run.run_length.into()],
            PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.clone(),
        })
        .take(feedback.packet_status_count.into())
        .enumerate()
        .map(|(n, status)| {
            let received = status != SymbolTypeTcc::PacketNotReceived;
            let at = received.then(|| {
                arrival += (deltas.next().expect("a delta for each").delta / 250) as i32;
                arrival
            });
            (feedback.base_sequence_number.wrapping_add(n as u16), at)
        })
        .collect()
}
