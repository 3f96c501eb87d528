use proptest::prelude::*;

use super::*;
use crate::observe::reason::Reason;
use crate::units::Bitrate;

fn written(write: impl FnOnce(&mut Writer<'_>) -> bool) -> Vec<u8> {
    let mut buffer = vec![0xEE; 2000];
    let mut writer = Writer::new(&mut buffer);
    assert!(write(&mut writer), "fits");
    let len = writer.len();
    assert_eq!(len % 4, 0);
    buffer.truncate(len);
    buffer
}

fn only(data: &[u8]) -> Rtcp<'_> {
    let mut packets = packets(data);
    let packet = packets.next().expect("one packet").expect("well-formed");
    assert!(packets.next().is_none(), "only one packet");
    packet
}

fn report(n: u32) -> ReportBlock {
    ReportBlock {
        ssrc: Ssrc(n),
        fraction_lost: n as u8,
        cumulative_lost: -5,
        highest: 0x0001_FFFF,
        jitter: 7,
        last_sr: 8,
        delay_since_sr: 9,
    }
}

#[test]
fn a_compound_packet_reads_back_in_order() {
    let info = SenderInfo { ntp: NtpTime(0x0102_0304_0506_0708), rtp: 1, packets: 2, octets: 3 };
    let data = written(|w| {
        w.sender_report(Ssrc(1), &info, &[report(10), report(11)])
            && w.receiver_report(Ssrc(2), &[])
            && w.sdes_cname(Ssrc(1), "motet")
            && w.pli(Ssrc(1), Ssrc(5))
    });
    let all: Vec<_> = packets(&data).map(|packet| packet.expect("well-formed")).collect();
    let [
        Rtcp::SenderReport { ssrc: Ssrc(1), info: read, reports },
        Rtcp::ReceiverReport { ssrc: Ssrc(2), reports: none },
        Rtcp::Sdes,
        Rtcp::Pli { media: Ssrc(5) },
    ] = all.as_slice()
    else {
        panic!("{all:?}")
    };
    assert_eq!(*read, info);
    assert_eq!(reports.clone().collect::<Vec<_>>(), [report(10), report(11)]);
    assert_eq!(none.clone().count(), 0);
}

#[test]
fn a_report_holds_at_most_31_blocks() {
    let reports: Vec<_> = (0..32).map(report).collect();
    let mut buffer = [0; 2000];
    let mut writer = Writer::new(&mut buffer);
    assert!(!writer.receiver_report(Ssrc(1), &reports));
    assert_eq!(writer.len(), 0);
    assert!(writer.receiver_report(Ssrc(1), &reports[..MAX_REPORTS]));
    let len = writer.len();
    let Rtcp::ReceiverReport { reports: read, .. } = only(&buffer[..len]) else { panic!() };
    assert_eq!(read.collect::<Vec<_>>(), reports[..31]);
}

#[test]
fn losses_beyond_24_bits_are_clamped() {
    for (lost, expected) in [(i32::MIN, -0x80_0000), (i32::MAX, 0x7F_FFFF), (-1, -1)] {
        let block = ReportBlock { cumulative_lost: lost, ..report(1) };
        let data = written(|w| w.receiver_report(Ssrc(1), &[block]));
        let Rtcp::ReceiverReport { mut reports, .. } = only(&data) else { panic!() };
        assert_eq!(reports.next().map(|r| r.cumulative_lost), Some(expected));
    }
}

#[test]
fn a_packet_that_does_not_fit_leaves_the_earlier_ones() {
    let whole = written(|w| w.pli(Ssrc(1), Ssrc(2)) && w.nack(Ssrc(1), Ssrc(2), &[1, 100, 200]));
    for size in 12..whole.len() {
        let mut buffer = vec![0; size];
        let mut writer = Writer::new(&mut buffer);
        assert!(writer.pli(Ssrc(1), Ssrc(2)));
        assert!(!writer.nack(Ssrc(1), Ssrc(2), &[1, 100, 200]));
        assert_eq!(writer.len(), 12);
        assert!(matches!(only(&buffer[..12]), Rtcp::Pli { media: Ssrc(2) }));
    }
}

#[test]
fn cnames_of_every_length_end_with_a_zero_and_fill_words() {
    for len in 0..=255 {
        let data = written(|w| w.sdes_cname(Ssrc(1), &"x".repeat(len)));
        assert_eq!(data.len(), (4 + 4 + 2 + len + 1).next_multiple_of(4));
        assert_eq!(data[10 + len..].iter().max(), Some(&0));
        assert!(matches!(only(&data), Rtcp::Sdes));
    }
    assert!(!Writer::new(&mut [0; 500]).sdes_cname(Ssrc(1), &"x".repeat(256)));
}

#[test]
fn nacks_pack_sixteen_followers_into_one_entry_across_the_wrap() {
    let lost: Vec<u16> = (0..=16).map(|n| 65530u16.wrapping_add(n)).collect();
    let data = written(|w| w.nack(Ssrc(3), Ssrc(4), &lost));
    assert_eq!(data.len(), 16, "one entry");
    let Rtcp::Nack { sender: Ssrc(3), media: Ssrc(4), lost: read } = only(&data) else { panic!() };
    assert_eq!(read.collect::<Vec<_>>(), lost);

    let lost = [1, 18, 19, 19, 35, 60];
    let data = written(|w| w.nack(Ssrc(3), Ssrc(4), &lost));
    assert_eq!(data.len(), 12 + 4 * 4, "1; 18 with 19; 35, which is 17 after 18; 60");
    let Rtcp::Nack { lost: read, .. } = only(&data) else { panic!() };
    assert_eq!(read.collect::<Vec<_>>(), [1, 18, 19, 35, 60]);
}

#[test]
fn an_empty_nack_writes_nothing() {
    assert!(written(|w| w.nack(Ssrc(1), Ssrc(2), &[])).is_empty());
}

#[test]
fn remb_keeps_18_significant_bits() {
    for (bitrate, expected) in [
        (0, 0),
        (1, 1),
        (0x3_FFFF, 0x3_FFFF),
        (0x4_0000, 0x4_0000),
        (0x4_0001, 0x4_0000),
        (5_000_001, 5_000_000),
        (u64::MAX, 0x3_FFFF << 46),
    ] {
        let data = written(|w| w.remb(Ssrc(1), Bitrate(bitrate), &[Ssrc(7), Ssrc(8)]));
        let Rtcp::Remb { bitrate, ssrcs } = only(&data) else { panic!() };
        assert_eq!(bitrate, Bitrate(expected));
        assert_eq!(ssrcs.collect::<Vec<_>>(), [Ssrc(7), Ssrc(8)]);
    }
    assert!(!Writer::new(&mut [0; 2000]).remb(Ssrc(1), Bitrate(1), &[Ssrc(1); 256]));
}

#[test]
fn remb_beyond_64_bits_or_with_too_few_ssrcs_is_malformed() {
    let mut data = written(|w| w.remb(Ssrc(1), Bitrate(u64::MAX), &[Ssrc(7)]));
    data[17] |= 0xFC; // the largest exponent
    assert!(packets(&data).any(|p| p.is_err()));
    let mut data = written(|w| w.remb(Ssrc(1), Bitrate(1000), &[Ssrc(7)]));
    data[16] = 2;
    assert!(packets(&data).any(|p| p.is_err()));
}

#[test]
fn fir_entries() {
    let data = [0x84, 206, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 3, 0, 0, 0, 0, 0, 0, 8, 255, 0, 0, 0];
    let Rtcp::Fir { entries } = only(&data) else { panic!() };
    assert_eq!(entries.collect::<Vec<_>>(), [(Ssrc(9), 3), (Ssrc(8), 255)]);
}

#[test]
fn padding_is_stripped_and_validated() {
    let mut data = written(|w| w.pli(Ssrc(1), Ssrc(2)));
    data.extend([0, 0, 0, 4]);
    data[0] |= 0x20;
    data[3] = 3;
    assert!(matches!(only(&data), Rtcp::Pli { media: Ssrc(2) }));
    for wrong in [0, 13] {
        data[15] = wrong;
        assert!(packets(&data).next().expect("one").is_err(), "padding of {wrong}");
    }
    assert!(packets(&[0xA0, 200, 0, 0]).next().expect("one").is_err(), "padding without a body");
}

#[test]
fn every_truncation_is_malformed_once_and_then_ends() {
    let info = SenderInfo::default();
    let data = written(|w| w.sender_report(Ssrc(1), &info, &[report(1)]) && w.remb(Ssrc(1), Bitrate(1), &[]));
    for len in 1..data.len() {
        let read: Vec<_> = packets(&data[..len]).collect();
        if len == 52 {
            assert!(read.iter().all(Result::is_ok), "the sender report alone is whole");
            continue;
        }
        let (last, before) = read.split_last().expect("something");
        assert_eq!(last.as_ref().err(), Some(&Reason::RtcpMalformed), "{len}");
        assert!(before.iter().all(Result::is_ok));
    }
}

#[test]
fn counts_beyond_the_body_and_other_versions_are_malformed() {
    let malformed: [&[u8]; 9] = [
        &[0x81, 201, 0, 1, 0, 0, 0, 1],                         // one block, none there
        &[0x80, 200, 0, 1, 0, 0, 0, 1],                         // no sender info
        &[0x80, 201, 0, 0],                                     // no SSRC
        &[0x82, 203, 0, 1, 0, 0, 0, 1],                         // two sources, one there
        &[0x81, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2],             // a NACK of nothing
        &[0x84, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], // half a FIR entry
        &[0x81, 206, 0, 1, 0, 0, 0, 1],                         // no media source
        &[0x40, 201, 0, 1, 0, 0, 0, 1],                         // version 1
        &[0x80, 201, 0xFF, 0xFF, 0, 0, 0, 1],                   // a length beyond the datagram
    ];
    for data in malformed {
        assert_eq!(packets(data).next().map(|p| p.err()), Some(Some(Reason::RtcpMalformed)), "{data:?}");
    }
}

#[test]
fn what_concerns_nobody_here_is_named_by_its_type() {
    for (data, kind) in [
        (&[0x80, 207, 0, 1, 0, 0, 0, 1][..], 207),
        (&[0x83, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2], 205),
        (&[0x8F, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4], 206),
    ] {
        assert!(matches!(only(data), Rtcp::Other(other) if other == kind), "{kind}");
    }
}

proptest! {
    /// Bytes that look like RTCP: plausible types and lengths, anything inside.
    #[test]
    fn arbitrary_packets_never_panic_and_an_error_is_last(
        parts in prop::collection::vec(
            (any::<u8>(), 199u8..208, 0u8..12, prop::collection::vec(any::<u8>(), 0..44)),
            1..5,
        ),
    ) {
        let mut data = Vec::new();
        for (first, kind, words, body) in parts {
            data.extend([0x80 | first & 0x3F, kind, 0, words]);
            data.extend(body);
        }
        let mut failed = false;
        for packet in packets(&data) {
            prop_assert!(!failed);
            match packet {
                Ok(Rtcp::SenderReport { reports, .. } | Rtcp::ReceiverReport { reports, .. }) => {
                    prop_assert!(reports.count() <= MAX_REPORTS);
                }
                Ok(Rtcp::Nack { lost, .. }) => prop_assert!(lost.count() <= data.len() / 4 * 17),
                Ok(Rtcp::Fir { entries }) => prop_assert!(entries.count() <= data.len() / 8),
                Ok(Rtcp::Remb { ssrcs, .. }) => prop_assert!(ssrcs.count() <= data.len() / 4),
                Ok(_) => {}
                Err(_) => failed = true,
            }
        }
    }
}
