use std::collections::BTreeMap;

use proptest::prelude::*;
use slotmap::SlotMap;

use super::*;
use crate::id::Ssrc;
use crate::rtp::codec::vp8::Descriptor;
use crate::rtp::extension::ExtensionIds;

fn slot(kind: Kind) -> Slot {
    let section = ReceiveSection {
        mid: "5".parse().expect("a mid"),
        kind,
        payload_type: 96,
        rtx_payload_type: None,
        extensions: ExtensionIds::default(),
        ssrc: Ssrc(1),
        rtx_ssrc: None,
        nack: true,
    };
    Slot::new(section, 7, 0)
}

fn publications<const N: usize>() -> [PublicationKey; N] {
    let mut keys = SlotMap::<PublicationKey, ()>::with_key();
    std::array::from_fn(|_| keys.insert(()))
}

fn packet(sequence: u64, keyframe: bool, arrival: Instant) -> Packet {
    let payload = [0x90, 0xf0, 0x80, sequence as u8, sequence as u8, 0, u8::from(!keyframe)];
    Packet {
        sequence,
        arrival,
        timestamp: sequence as u32 * 3000,
        marker: true,
        audio_level: None,
        video_orientation: None,
        descriptor: Descriptor::parse(&payload).ok(),
    }
}

fn admit(
    slot: &mut Slot,
    of: PublicationKey,
    sequence: u64,
    keyframe: bool,
    now: Instant,
) -> Result<Admitted, Reason> {
    let fresh = Fresh { layer: 0, sequence, padding: false, keyframe };
    slot.admit(of, fresh, &packet(sequence, keyframe, now), 0, |base| (base, 1))
}

#[test]
fn what_is_shown_goes_on_until_the_next_begins_and_never_after() {
    let now = Instant::now();
    let [old, new] = publications();
    let mut slot = slot(Kind::Video);
    slot.bind(old, PublicationId(1), 1, now);
    slot.retarget(Some(0), Some(0), true);
    let first = admit(&mut slot, old, 10, true, now).expect("nothing was shown before");
    slot.bind(new, PublicationId(2), 5, now);
    slot.retarget(Some(0), Some(0), true);
    let state = slot.state();
    assert_eq!((state.publication, state.pending, state.from_ts), (Some(PublicationId(2)), true, None));
    assert_eq!(admit(&mut slot, new, 700, true, now).err(), Some(Reason::AwaitName));
    assert!(admit(&mut slot, old, 11, false, now).is_ok());
    assert_eq!(slot.handle_seen(4), None, "an earlier statement");
    assert_eq!(slot.handle_seen(5), Some(new));
    assert_eq!(slot.awaits(new, |_| Some(0)), Some(0));
    assert_eq!(admit(&mut slot, new, 701, false, now).err(), Some(Reason::AwaitKeyframe));
    let begins = admit(&mut slot, new, 702, true, now).expect("it may begin");
    assert_eq!((begins.first, begins.replaced), (true, Some(old)));
    assert_eq!(begins.rewritten.sequence, first.rewritten.sequence + 2);
    assert_eq!(admit(&mut slot, old, 12, true, now).err(), Some(Reason::NoReceiver));
    assert!(!slot.state().pending);
}

#[test]
fn who_does_not_say_that_he_has_seen_it_sees_it_after_a_while() {
    let now = Instant::now();
    let [old, new] = publications();
    let mut slot = slot(Kind::Video);
    slot.bind(old, PublicationId(1), 1, now);
    slot.retarget(Some(0), Some(0), true);
    assert_eq!(slot.poll_timeout(), None, "nothing stood there before");
    admit(&mut slot, old, 10, true, now).expect("begins");
    slot.bind(new, PublicationId(2), 2, now);
    assert_eq!(slot.poll_timeout(), Some(now + NAME_CHANGE));
    assert_eq!(slot.handle_timeout(now + NAME_CHANGE / 2), None);
    assert_eq!(slot.handle_timeout(now + NAME_CHANGE), Some(new));
    assert_eq!(slot.poll_timeout(), None);
}

#[test]
fn a_change_of_mind_leaves_what_is_shown_untouched() {
    let now = Instant::now();
    let [old, new] = publications();
    let mut slot = slot(Kind::Video);
    slot.bind(old, PublicationId(1), 1, now);
    slot.retarget(Some(0), Some(0), true);
    admit(&mut slot, old, 10, true, now).expect("begins");
    slot.bind(new, PublicationId(2), 2, now);
    slot.bind(old, PublicationId(1), 3, now);
    assert!(!slot.state().pending);
    let goes_on = admit(&mut slot, old, 11, false, now).expect("goes on");
    assert!(!goes_on.begins);
}

#[test]
fn when_the_former_ends_the_slot_waits_for_the_next() {
    let now = Instant::now();
    let [old, new] = publications();
    let mut slot = slot(Kind::Video);
    slot.bind(old, PublicationId(1), 1, now);
    slot.retarget(Some(0), Some(0), true);
    admit(&mut slot, old, 10, true, now).expect("begins");
    slot.last_sent = Some(now);
    slot.bind(new, PublicationId(2), 2, now);
    slot.retarget(Some(0), Some(0), true);
    assert!(slot.forget(old));
    assert_eq!(admit(&mut slot, new, 5, true, now).err(), Some(Reason::AwaitName));
    let later = now + NAME_CHANGE;
    slot.handle_timeout(later);
    assert!(!slot.opens_from_history(now, later), "it would be very late");
    assert!(slot.opens_from_history(later, later + LATE));
    let begins = admit(&mut slot, new, 6, true, later).expect("begins");
    assert!(begins.first && begins.replaced.is_none());
    assert!(slot.forget(new) && slot.decided().is_none());
}

#[test]
fn who_was_shown_last_comes_back_without_delay() {
    let now = Instant::now();
    let [old, new] = publications();
    let mut slot = slot(Kind::Video);
    slot.bind(old, PublicationId(1), 1, now);
    slot.retarget(Some(0), Some(0), true);
    admit(&mut slot, old, 10, true, now).expect("begins");
    slot.release();
    slot.bind(old, PublicationId(1), 2, now);
    assert_eq!(slot.poll_timeout(), None);
    slot.bind(new, PublicationId(2), 3, now);
    assert!(slot.poll_timeout().is_some());
}

#[test]
fn another_voice_begins_with_any_packet() {
    let now = Instant::now();
    let [old, new] = publications();
    let mut slot = slot(Kind::Audio);
    slot.bind(old, PublicationId(1), 1, now);
    slot.retarget(Some(0), Some(0), true);
    admit(&mut slot, old, 10, false, now).expect("begins");
    slot.bind(new, PublicationId(2), 2, now);
    slot.retarget(Some(0), Some(0), true);
    assert!(admit(&mut slot, old, 11, false, now).is_ok(), "while the other is silent");
    assert_eq!(admit(&mut slot, new, 7, false, now).expect("begins").replaced, Some(old));
}

#[derive(Clone, Debug)]
enum Step {
    Bind(usize),
    Forget(usize),
    Release,
    Packet { of: usize, keyframe: bool },
    Seen,
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..3usize).prop_map(Step::Bind),
        1 => (0..3usize).prop_map(Step::Forget),
        1 => Just(Step::Release),
        16 => (0..3usize, proptest::bool::weighted(0.2)).prop_map(|(of, keyframe)| Step::Packet { of, keyframe }),
        2 => Just(Step::Seen),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is decided in whatever order: the numbering goes on without holes, each publication begins with a
    /// keyframe after its name was known, nothing of the former follows, and requests find only what is shown now.
    #[test]
    fn a_slot_passes_cleanly_from_one_to_another(steps in steps()) {
        let mut now = Instant::now();
        let keys: [PublicationKey; 3] = publications();
        let mut slot = slot(Kind::Video);
        let mut next = [100u64, 5_000, 90_000];
        let mut version = 0;
        let (mut seen, mut told) = (0, BTreeMap::new());
        let mut last: Option<u64> = None;
        let mut shown: Option<usize> = None;
        let mut last_shown: Option<usize> = None;
        let mut sent: BTreeMap<u64, (usize, u64)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Bind(of) => {
                    version += 1;
                    if slot.decided().is_none_or(|binding| binding.publication != keys[of]) {
                        told.insert(of, (version, now));
                    }
                    slot.bind(keys[of], PublicationId(of as u32 + 1), version, now);
                    slot.retarget(Some(0), Some(0), true);
                }
                Step::Forget(of) => {
                    slot.forget(keys[of]);
                    if shown == Some(of) {
                        shown = None;
                    }
                }
                Step::Release => {
                    slot.release();
                    shown = None;
                }
                Step::Seen => {
                    seen = version;
                    slot.handle_seen(seen);
                }
                Step::Wait => {
                    now += NAME_CHANGE;
                    slot.handle_timeout(now);
                }
                Step::Packet { of, keyframe } => {
                    let sequence = next[of];
                    next[of] += 1;
                    let Ok(admitted) = admit(&mut slot, keys[of], sequence, keyframe, now) else { continue };
                    let number = admitted.rewritten.sequence;
                    prop_assert!(last.is_none_or(|last| number == last + 1 || !admitted.begins && number > last));
                    if shown != Some(of) {
                        prop_assert!(keyframe && admitted.begins && admitted.first);
                        let (version, at) = told[&of];
                        let same = last_shown.is_none_or(|last| last == of);
                        prop_assert!(same || seen >= version || now - at >= NAME_CHANGE);
                        (shown, last_shown) = (Some(of), Some(of));
                    }
                    last = Some(number);
                    sent.insert(number, (of, sequence));
                }
            }
            prop_assert!(slot.next.is_none() || slot.binding.is_some_and(|binding| binding.from_ts.is_some()));
            for (number, (of, sequence)) in sent.iter().rev().take(20) {
                if let Some((found, _)) = slot.find(*number as u16) {
                    prop_assert_eq!((Some(*of), *sequence), (shown, found));
                }
            }
        }
    }
}
