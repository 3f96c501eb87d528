//! Any bytes as transport-wide feedback, and as the script of what a publisher's packets do to our own.

use std::time::Duration;

use motet::id::Ssrc;
use motet::rtp::rtcp::{Rtcp, Writer, packets};
use motet::rtp::twcc::{Feedback, Recorder};

/// Reading is bounded; whatever was recorded, feedback comes out in bounded pieces that can be read.
pub fn fuzz_twcc(data: &[u8]) {
    if let Ok(feedback) = Feedback::parse(data) {
        let mut received = 0;
        let mut expected = feedback.base;
        for (sequence, arrival) in feedback.packets() {
            assert_eq!(sequence, expected);
            expected = expected.wrapping_add(1);
            received += usize::from(arrival.is_some());
        }
        assert_eq!(expected, feedback.base.wrapping_add(feedback.packets));
        assert!(received <= data.len(), "each received packet has a delta");
    }

    let mut recorder = Recorder::new();
    let mut now = Duration::ZERO;
    // Two bytes of number, one of time in steps that grow to some minutes, one that says whether to report.
    for step in data.chunks_exact(4) {
        now += Duration::from_micros(u64::from(step[2] & 0x1F) << (step[2] >> 5 << 2));
        recorder.record(u16::from_be_bytes([step[0], step[1]]), now);
        if step[3] & 0x0F == 0 {
            drain(&mut recorder, usize::from(step[3]) * 4);
        }
    }
    drain(&mut recorder, 1200);
    assert!(!recorder.is_pending());
}

fn drain(recorder: &mut Recorder, space: usize) {
    let mut buffer = vec![0; space];
    for _ in 0..2048 {
        let mut writer = Writer::new(&mut buffer);
        if !recorder.is_pending() || !writer.transport_cc(Ssrc(1), Ssrc(2), recorder) {
            assert!(!recorder.is_pending() || space < 40, "40 bytes suffice for some");
            return;
        }
        let len = writer.len();
        assert!(len <= 1200);
        let Some(Ok(Rtcp::TransportCc { body, .. })) = packets(&buffer[..len]).next() else {
            panic!("not readable")
        };
        let feedback = Feedback::parse(body).expect("written well-formed");
        assert!(feedback.packets().any(|(_, arrival)| arrival.is_some()));
    }
    panic!("no progress");
}
