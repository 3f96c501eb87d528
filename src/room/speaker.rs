//! Who speaks: from the sound levels that publishers state beside their sound (RFC 6464), looked at ten times a second.
//!
//! The level alone decides. The voice activity bit beside it means something else in each browser, and some never set it.

use std::time::{Duration, Instant};

/// How often levels are looked at. Longer shows a speaker later, shorter takes a syllable for a turn.
pub const STRETCH: Duration = Duration::from_millis(100);

/// Loudness in dB above −127 dBov from which on a stretch counts as speech. Higher misses who speaks softly, lower takes a
/// fan for a speaker.
const BEGINS: u8 = 77;

/// Loudness below which a stretch counts as silence. The distance from [`BEGINS`] is what a voice may sink within a
/// sentence.
const ENDS: u8 = 70;

/// Stretches of silence after which a voice has ended. More keeps who has finished, fewer drops who takes a breath.
const ENDS_AFTER: u8 = 5;

/// Stretches of speech after which somebody is a speaker, and for which somebody must be the loudest to become the
/// dominant one. More shows a speaker later, fewer takes a cough for one.
const TURN: u8 = 3;

/// How much louder than the dominant speaker the next one must be, in dB. More lets the first who spoke keep the place,
/// less lets two who talk at once take turns with it.
const MARGIN: u8 = 6;

/// Shortest time between two statements for one room.
pub const TOLD_EVERY: Duration = Duration::from_millis(200);

/// The level of one publication of sound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Voice {
    /// It is among those that are looked at.
    pub listed: bool,
    /// Counts the turns of the whole room: higher has spoken later, 0 never.
    pub spoke: u64,
    /// It was not silent when it was last looked at.
    pub heard: bool,
    /// Of the present stretch.
    sum: u32,
    packets: u16,
    /// Smoothed.
    loudness: u8,
    speech: u8,
    silence: u8,
    activity: Activity,
}

/// What somebody does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    #[default]
    Silent,
    /// Is heard, perhaps only a cough.
    Heard,
    Speaks,
}

impl Voice {
    /// A packet with the raw byte of the extension: the level is in −dBov, 0 being the loudest.
    #[inline]
    pub fn handle_packet(&mut self, level: u8) {
        self.sum += u32::from(127 - (level & 0x7f));
        self.packets = self.packets.saturating_add(1);
    }

    /// The end of a stretch. Who sends nothing, be it that the browser leaves silence out, is silent. Returns whether
    /// there is any sense in looking at it again.
    pub fn handle_stretch(&mut self) -> bool {
        let level = (self.sum / u32::from(self.packets).max(1)) as u8;
        let came = self.packets > 0;
        (self.sum, self.packets) = (0, 0);
        // Rises at once by half and sinks by a quarter: words count, not the pauses between them.
        self.loudness = if level > self.loudness {
            self.loudness + (level - self.loudness).div_ceil(2)
        } else {
            self.loudness - (self.loudness - level).div_ceil(4)
        };
        match self.activity {
            Activity::Silent if level >= BEGINS => {
                (self.activity, self.speech, self.silence) = (Activity::Heard, 1, 0);
            }
            Activity::Silent => {}
            Activity::Heard | Activity::Speaks => {
                self.silence = if level < ENDS { self.silence + 1 } else { 0 };
                self.speech = self.speech.saturating_add(u8::from(level >= ENDS));
                if self.silence >= ENDS_AFTER {
                    self.activity = Activity::Silent;
                } else if self.speech >= TURN {
                    self.activity = Activity::Speaks;
                }
            }
        }
        came || self.activity != Activity::Silent
    }

    /// Muted, away or gone: silent at once.
    pub fn silence(&mut self) {
        *self = Self { listed: self.listed, spoke: self.spoke, heard: self.heard, ..Self::default() };
    }

    #[must_use]
    pub fn activity(&self) -> Activity {
        self.activity
    }

    #[must_use]
    pub fn loudness(&self) -> u8 {
        self.loudness
    }
}

/// Who speaks in a room. `K` names a publication of sound.
#[derive(Debug)]
pub struct Speakers<K> {
    /// The dominant one first, then in the order in which they began or were dominant.
    present: Vec<K>,
    /// Who is louder than the dominant one, and for how many stretches.
    challenger: Option<(K, u8)>,
    told: Vec<K>,
    told_at: Option<Instant>,
}

impl<K> Default for Speakers<K> {
    fn default() -> Self {
        Self { present: Vec::new(), challenger: None, told: Vec::new(), told_at: None }
    }
}

impl<K: Copy + Eq> Speakers<K> {
    /// The end of a stretch: everybody whose voice is not silent.
    pub fn handle_stretch(&mut self, voices: &[(K, Voice)]) {
        let voice = |key: K| {
            voices.iter().find(|(of, voice)| *of == key && voice.activity == Activity::Speaks).map(|(_, v)| v)
        };
        let loudness = |key: K| voice(key).map_or(0, Voice::loudness);
        let dominant = self.present.first().copied();
        self.present.retain(|&key| voice(key).is_some());
        for (key, _) in voices.iter().filter(|(key, _)| voice(*key).is_some()) {
            if !self.present.contains(key) {
                self.present.push(*key);
            }
        }
        let Some(loudest) =
            self.present.iter().copied().reduce(|a, b| if loudness(b) > loudness(a) { b } else { a })
        else {
            self.challenger = None;
            return;
        };
        if dominant.is_none_or(|dominant| voice(dominant).is_none()) {
            // Everybody here has spoken for a turn's length already.
            self.lead(loudest);
        } else if loudest == self.present[0] || loudness(loudest) < loudness(self.present[0]) + MARGIN {
            self.challenger = None;
        } else {
            let times = self.challenger.filter(|(key, _)| *key == loudest).map_or(0, |(_, times)| times) + 1;
            self.challenger = Some((loudest, times));
            if times >= TURN {
                self.lead(loudest);
            }
        }
    }

    /// Somebody is gone, or must not be named any more.
    pub fn forget(&mut self, key: K) {
        self.present.retain(|other| *other != key);
        self.challenger = self.challenger.filter(|(other, _)| *other != key);
    }

    /// Who speaks, the dominant one first, where that is to be told now.
    pub fn poll(&mut self, now: Instant) -> Option<&[K]> {
        let early = self.told_at.is_some_and(|at| now.saturating_duration_since(at) < TOLD_EVERY);
        if early || self.told == self.present {
            return None;
        }
        self.told_at = Some(now);
        self.told.clone_from(&self.present);
        Some(&self.told)
    }

    /// Whether something is still to be told.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.told != self.present
    }

    fn lead(&mut self, key: K) {
        self.challenger = None;
        self.present.retain(|other| *other != key);
        self.present.insert(0, key);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A room in which the people have these levels in −dBov in each stretch; `None`: nothing is sent.
    struct Talk {
        now: Instant,
        voices: Vec<(usize, Voice)>,
        speakers: Speakers<usize>,
        told: Vec<(u64, Vec<usize>)>,
        stretches: u64,
    }

    impl Talk {
        fn new(people: usize) -> Self {
            Self {
                now: Instant::now(),
                voices: (0..people).map(|n| (n, Voice::default())).collect(),
                speakers: Speakers::default(),
                told: Vec::new(),
                stretches: 0,
            }
        }

        fn hear(&mut self, levels: &[Option<u8>], stretches: usize) -> &mut Self {
            for _ in 0..stretches {
                self.stretches += 1;
                self.now += STRETCH;
                for ((_, voice), level) in self.voices.iter_mut().zip(levels) {
                    for _ in 0..5 {
                        level.iter().for_each(|level| voice.handle_packet(*level));
                    }
                    voice.handle_stretch();
                }
                self.speakers.handle_stretch(&self.voices);
                if let Some(present) = self.speakers.poll(self.now) {
                    self.told.push((self.stretches, present.to_vec()));
                }
            }
            self
        }

        fn present(&self) -> &[usize] {
            &self.speakers.present
        }
    }

    const QUIET: Option<u8> = Some(90);
    const TALK: Option<u8> = Some(35);
    const LOUD: Option<u8> = Some(20);

    #[test]
    fn who_talks_for_a_turn_is_a_speaker_and_is_told_once() {
        let mut talk = Talk::new(2);
        talk.hear(&[QUIET, QUIET], 10).hear(&[TALK, QUIET], 20);
        assert_eq!(talk.told, [(13, vec![0])], "300 ms after the first word");
        talk.hear(&[QUIET, QUIET], 20);
        assert_eq!(talk.told[1..], [(35, vec![])]);
    }

    #[test]
    fn a_cough_is_nobodys_turn_and_a_breath_does_not_end_one() {
        let mut talk = Talk::new(1);
        for _ in 0..10 {
            talk.hear(&[LOUD], 2).hear(&[QUIET], 8);
        }
        assert!(talk.told.is_empty());
        for _ in 0..10 {
            talk.hear(&[TALK], 6).hear(&[QUIET], 4);
        }
        assert_eq!(talk.told.len(), 1, "{:?}", talk.told);
    }

    #[test]
    fn who_is_louder_for_a_turn_becomes_the_dominant_one() {
        let mut talk = Talk::new(3);
        talk.hear(&[TALK, QUIET, QUIET], 10).hear(&[TALK, TALK, QUIET], 10);
        assert_eq!(talk.present(), [0, 1], "both talk, the first stays");
        talk.hear(&[TALK, LOUD, QUIET], 10);
        assert_eq!(talk.present(), [1, 0]);
        talk.hear(&[Some(18), LOUD, QUIET], 10);
        assert_eq!(talk.present(), [1, 0], "hardly louder");
        talk.hear(&[TALK, QUIET, QUIET], 10);
        assert_eq!(talk.present(), [0]);
    }

    #[test]
    fn who_sends_nothing_falls_out() {
        let mut talk = Talk::new(1);
        talk.hear(&[TALK], 10).hear(&[None], 6);
        assert!(talk.present().is_empty());
        assert!(!talk.voices[0].1.handle_stretch(), "there is nothing to look at");
        talk.hear(&[TALK], 10);
        talk.voices[0].1.silence();
        talk.hear(&[None], 1);
        assert!(talk.present().is_empty(), "muted: at once");
    }

    #[test]
    fn the_loudest_level_does_not_overflow() {
        Talk::new(2).hear(&[Some(0), Some(255)], 50);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn statements_are_rare_and_different_and_name_only_speakers(
            levels in prop::collection::vec(prop::collection::vec(prop::option::of(0u8..128), 4), 1..200)
        ) {
            let mut talk = Talk::new(4);
            for levels in levels {
                talk.hear(&levels, 1);
                for key in talk.present() {
                    prop_assert_eq!(talk.voices[*key].1.activity(), Activity::Speaks);
                }
            }
            for pair in talk.told.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= 2, "five a second");
                prop_assert_ne!(&pair[0].1, &pair[1].1);
            }
        }
    }
}
