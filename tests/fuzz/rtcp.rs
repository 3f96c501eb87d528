//! Any decrypted datagram as RTCP.

use motet::rtp::rtcp::{MAX_REPORTS, Rtcp, Writer, packets};
use motet::rtp::seq;
use motet::rtp::twcc::Feedback;

/// Parsing ends, errors are last, what iterators yield is bounded by the datagram, and whatever can be written again
/// says the same.
pub fn fuzz_rtcp(data: &[u8]) {
    let mut failed = false;
    for packet in packets(data) {
        assert!(!failed, "nothing follows an error");
        match packet {
            Ok(packet) => rewrite(&packet, data.len()),
            Err(_) => failed = true,
        }
    }
}

fn rewrite(packet: &Rtcp<'_>, len: usize) {
    let mut buffer = vec![0; len + 64];
    match packet.clone() {
        Rtcp::SenderReport { ssrc, info, reports } => {
            let reports: Vec<_> = reports.collect();
            assert!(reports.len() <= MAX_REPORTS && reports.len() * 24 < len);
            let data = written(&mut buffer, |w| w.sender_report(ssrc, &info, &reports));
            let Rtcp::SenderReport { ssrc: again, info: same, reports: read } = only(data) else { panic!() };
            assert_eq!((again, same, read.collect::<Vec<_>>()), (ssrc, info, reports));
        }
        Rtcp::ReceiverReport { ssrc, reports } => {
            let reports: Vec<_> = reports.collect();
            let data = written(&mut buffer, |w| w.receiver_report(ssrc, &reports));
            let Rtcp::ReceiverReport { ssrc: again, reports: read } = only(data) else { panic!() };
            assert_eq!((again, read.collect::<Vec<_>>()), (ssrc, reports));
        }
        Rtcp::Nack { sender, media, lost } => {
            let lost: Vec<_> = lost.collect();
            assert!(!lost.is_empty() && lost.len() <= len / 4 * 17);
            if !lost.windows(2).all(|pair| seq::is_newer(pair[1], pair[0])) {
                return; // the writer would need more entries
            }
            let data = written(&mut buffer, |w| w.nack(sender, media, &lost));
            let Rtcp::Nack { sender: from, media: of, lost: read } = only(data) else { panic!() };
            assert_eq!((from, of, read.collect::<Vec<_>>()), (sender, media, lost));
        }
        Rtcp::Remb { bitrate, ssrcs } => {
            let ssrcs: Vec<_> = ssrcs.collect();
            assert!(ssrcs.len() * 4 < len);
            let data = written(&mut buffer, |w| w.remb(motet::id::Ssrc(1), bitrate, &ssrcs));
            let Rtcp::Remb { bitrate: same, ssrcs: read } = only(data) else { panic!() };
            assert_eq!((same, read.collect::<Vec<_>>()), (bitrate, ssrcs));
        }
        Rtcp::TransportCc { body, .. } => {
            if let Ok(feedback) = Feedback::parse(body) {
                assert_eq!(feedback.packets().count(), usize::from(feedback.packets));
            }
        }
        Rtcp::Fir { entries } => assert!(entries.count() * 8 < len),
        Rtcp::Pli { .. } | Rtcp::Bye | Rtcp::Sdes | Rtcp::Other(_) => {}
    }
}

fn written(buffer: &mut [u8], write: impl FnOnce(&mut Writer<'_>) -> bool) -> &[u8] {
    let mut writer = Writer::new(buffer);
    assert!(write(&mut writer), "no longer than what was read");
    let len = writer.len();
    &buffer[..len]
}

fn only(data: &[u8]) -> Rtcp<'_> {
    let mut packets = packets(data);
    let packet = packets.next().expect("one packet").expect("written well-formed");
    assert!(packets.next().is_none());
    packet
}
