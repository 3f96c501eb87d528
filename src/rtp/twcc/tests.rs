use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::id::Ssrc;
use crate::rtp::rtcp::{Rtcp, Writer, packets};

/// The receiver's clock starts somewhere that makes reference times wrap early.
const START: Duration = Duration::from_secs(1_073_741_800);

/// One packet of a feedback: its number and, where received, its arrival in ticks on the 32-bit clock.
type Status = (u16, Option<u32>);

/// Takes one feedback packet out and reads it back.
fn take(recorder: &mut Recorder, space: usize) -> Option<(u8, Vec<Status>)> {
    let mut buffer = vec![0xEE; space];
    let mut writer = Writer::new(&mut buffer);
    if !recorder.is_pending() || !writer.transport_cc(Ssrc(1), Ssrc(2), recorder) {
        return None;
    }
    let len = writer.len();
    assert!(len <= space.min(1200));
    let mut read = packets(&buffer[..len]);
    let Some(Ok(Rtcp::TransportCc { media: Ssrc(2), body })) = read.next() else { panic!("not feedback") };
    assert!(read.next().is_none());
    let feedback = Feedback::parse(body).expect("well-formed");
    let reference = feedback.reference_time << 8;
    let statuses = feedback
        .packets()
        .map(|(sequence, arrival)| (sequence, arrival.map(|ticks| reference.wrapping_add_signed(ticks))))
        .collect::<Vec<_>>();
    assert_eq!((statuses.len(), statuses[0].0), (feedback.packets.into(), feedback.base));
    Some((feedback.feedback_count, statuses))
}

fn take_all(recorder: &mut Recorder) -> Vec<Status> {
    std::iter::from_fn(|| take(recorder, 1200)).flat_map(|(_, statuses)| statuses).collect()
}

fn tick(arrival: Duration) -> u32 {
    (arrival.as_micros() / 250) as u32
}

fn milliseconds(n: u64) -> Duration {
    START + Duration::from_millis(n)
}

#[test]
fn nothing_is_pending_at_first_and_after_a_report() {
    let mut recorder = Recorder::new();
    assert!(!recorder.is_pending());
    assert_eq!(take(&mut recorder, 1200), None);
    recorder.record(5, milliseconds(1));
    assert_eq!(take(&mut recorder, 1200), Some((0, vec![(5, Some(tick(milliseconds(1))))])));
    assert!(!recorder.is_pending());
    recorder.record(7, milliseconds(2));
    assert_eq!(take(&mut recorder, 1200), Some((1, vec![(6, None), (7, Some(tick(milliseconds(2))))])));
}

#[test]
fn the_bytes_of_the_draft() {
    let mut recorder = Recorder::new();
    recorder.record(0xFFFF, Duration::from_micros(64_000 * 3 + 250 * 4));
    recorder.record(1, Duration::from_micros(64_000 * 3 + 250 * 400));
    recorder.record(2, Duration::from_micros(64_000 * 3 + 250 * 399));
    let mut buffer = [0xEE; 40];
    let mut writer = Writer::new(&mut buffer);
    assert!(writer.transport_cc(Ssrc(1), Ssrc(2), &mut recorder));
    let len = writer.len();
    #[rustfmt::skip]
    assert_eq!(buffer[..len], [
        0x8F, 205, 0, 6,  0, 0, 0, 1,  0, 0, 0, 2,
        0xFF, 0xFF, 0, 4,  0, 0, 3, 0,
        0b1101_0010, 0b1000_0000, // small, none, large, large
        4,  0x01, 0x8C,  0xFF, 0xFF, 0,
    ]);
}

#[test]
fn late_packets_are_reported_with_what_follows_and_duplicates_are_not() {
    let mut recorder = Recorder::new();
    for sequence in [1, 2, 4, 5] {
        recorder.record(sequence, milliseconds(sequence.into()));
    }
    assert_eq!(take_all(&mut recorder).len(), 5);
    recorder.record(4, milliseconds(50));
    assert!(!recorder.is_pending(), "a duplicate");
    recorder.record(3, milliseconds(60));
    let expected = [3, 4, 5].map(|n| (n, Some(tick(milliseconds(if n == 3 { 60 } else { n.into() })))));
    assert_eq!(take_all(&mut recorder), expected);
}

#[test]
fn very_late_packets_are_ignored() {
    let mut recorder = Recorder::new();
    recorder.record(1, milliseconds(1));
    for sequence in 3..600 {
        recorder.record(sequence, milliseconds(2));
    }
    take_all(&mut recorder);
    recorder.record(2, milliseconds(3));
    assert!(!recorder.is_pending());
}

#[test]
fn a_leap_of_the_numbering_is_no_loss_and_stays_small() {
    for leap in [1500u16, 0x7FFF, 0x8000, 0x8001, 60_000] {
        let mut recorder = Recorder::new();
        for n in 0..20 {
            recorder.record(100 + n, milliseconds(n.into()));
            recorder.record(100 + leap.wrapping_add(n), milliseconds(n.into()));
        }
        let statuses = take_all(&mut recorder);
        assert!(statuses.len() <= 1024, "{leap}: {}", statuses.len());
        assert!(statuses.iter().all(|status| status.1.is_some()), "{leap}");
    }
}

#[test]
fn what_was_not_taken_in_time_is_forgotten_beyond_the_window() {
    let mut recorder = Recorder::new();
    for sequence in 0..=u16::MAX {
        recorder.record(sequence, milliseconds(u64::from(sequence) / 4));
    }
    let statuses = take_all(&mut recorder);
    assert_eq!(statuses.len(), 1024);
    assert_eq!((statuses[0].0, statuses[1023].0), (64_512, 65_535));
}

#[test]
fn a_silence_longer_than_a_delta_begins_another_feedback_packet() {
    let mut recorder = Recorder::new();
    recorder.record(1, milliseconds(0));
    recorder.record(3, milliseconds(8_191));
    recorder.record(4, milliseconds(20_000));
    recorder.record(5, milliseconds(0));
    assert_eq!(take(&mut recorder, 1200).expect("first").1.len(), 3);
    assert_eq!(take(&mut recorder, 1200).expect("second").1, [(4, Some(tick(milliseconds(20_000))))]);
    assert_eq!(take(&mut recorder, 1200).expect("third").1, [(5, Some(tick(milliseconds(0))))]);
    assert!(!recorder.is_pending());
}

#[test]
fn a_buffer_that_is_too_small_takes_nothing() {
    let mut recorder = Recorder::new();
    recorder.record(1, milliseconds(0));
    for space in 0..24 {
        assert_eq!(take(&mut recorder, space), None);
        assert!(recorder.is_pending());
    }
    assert_eq!(take(&mut recorder, 24).expect("fits").0, 0, "not counted when it was not written");
}

#[test]
fn long_runs_of_large_deltas_are_spread_over_several_packets() {
    for space in [40, 200, 1200] {
        let mut recorder = Recorder::new();
        for n in 0..1000 {
            recorder.record(n, milliseconds(u64::from(n) * 100));
        }
        let mut seen = 0;
        while let Some((_, statuses)) = take(&mut recorder, space) {
            seen += statuses.len();
        }
        assert_eq!(seen, 1000);
    }
}

#[test]
fn malformed_feedback_is_refused() {
    let fixed = |packets: u16| {
        let mut body = vec![0, 1];
        body.extend(packets.to_be_bytes());
        body.extend([0, 0, 0, 0]);
        body
    };
    let with = |packets, more: &[u8]| [fixed(packets), more.to_vec()].concat();
    for (body, why) in [
        (vec![0; 7], "no whole head"),
        (with(1, &[]), "no chunk"),
        (with(8, &[0xD5, 0x55, 1, 1, 1, 1, 1, 1, 1]), "a second chunk is needed, and the deltas are one"),
        (with(1, &[0x20, 0x01]), "no delta"),
        (with(1, &[0x40, 0x01, 0]), "half a delta"),
        (with(1, &[0x60, 0x01, 0, 0]), "a reserved status in a run"),
        (with(1, &[0xF0, 0x00, 0, 0]), "a reserved status in a vector"),
        (with(1, &[0x00, 0x00, 0x00, 0x00]), "runs of nothing"),
        (with(8193, &[0x1F, 0xFF, 0x1F, 0xFF]), "too many packets"),
    ] {
        assert!(Feedback::parse(&body).is_err(), "{why}");
    }
    assert!(Feedback::parse(&with(8192, &[0x1F, 0xFF, 0x1F, 0xFF])).is_ok(), "a run may exceed the count");
    assert!(Feedback::parse(&fixed(0)).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever order and timing packets arrive in, and however often feedback is taken: each received packet
    /// is reported, with its first arrival, and only those never received are said to be lost.
    #[test]
    fn feedback_tells_exactly_what_was_recorded(
        base: u16,
        steps in prop::collection::vec((0u16..40, 0u64..3000, 0u8..30), 1..300),
        space in 40usize..1300,
    ) {
        let mut recorder = Recorder::new();
        let mut truth = std::collections::HashMap::new();
        let mut reported = std::collections::HashMap::new();
        let mut last_count = None;
        let (mut newest, mut now) = (base, START);
        recorder.record(base, now);
        truth.insert(base, tick(now));
        let mut drain = |recorder: &mut Recorder, truth: &std::collections::HashMap<u16, u32>| {
            while let Some((count, statuses)) = take(recorder, space) {
                if let Some(last) = last_count.replace(count) {
                    assert_eq!(count, u8::wrapping_add(last, 1));
                }
                for (sequence, arrival) in statuses {
                    assert_eq!(arrival, truth.get(&sequence).copied());
                    reported.insert(sequence, arrival);
                }
            }
            assert!(!recorder.is_pending(), "no progress");
            assert!(truth.keys().all(|sequence| reported[sequence].is_some()));
        };
        for (step, micros, action) in steps {
            now += Duration::from_micros(micros * if action == 1 { 4000 } else { 1 });
            // Mostly forward; sometimes a late packet, but never later than what is reported again.
            let sequence = if action < 8 { newest.wrapping_sub(step) } else { newest.wrapping_add(step % 4) };
            if sequence.wrapping_sub(base) > 0x7FFF {
                continue; // before the first
            }
            if seq_newer(sequence, newest) {
                newest = sequence;
            }
            recorder.record(sequence, now);
            truth.entry(sequence).or_insert(tick(now));
            if action == 9 {
                drain(&mut recorder, &truth);
            }
        }
        drain(&mut recorder, &truth);
    }

    #[test]
    fn arbitrary_numbers_and_times_never_panic_and_always_drain(
        records in prop::collection::vec((any::<u16>(), any::<u32>()), 0..300),
    ) {
        let mut recorder = Recorder::new();
        for (sequence, micros) in records {
            recorder.record(sequence, Duration::from_micros(u64::from(micros) << 10));
        }
        let mut rounds = 0;
        while take(&mut recorder, 1200).is_some() {
            rounds += 1;
        }
        prop_assert!(rounds <= 1024 && !recorder.is_pending());
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(feedback) = Feedback::parse(&body) {
            prop_assert_eq!(feedback.packets().count(), usize::from(feedback.packets));
        }
    }
}

fn seq_newer(a: u16, b: u16) -> bool {
    crate::rtp::seq::is_newer(a, b)
}
