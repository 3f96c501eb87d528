//! Which packet indices of one source were used: the replay list of RFC 3711 §3.3.2 and the estimate of the
//! roll-over counter of §3.3.1. The same bookkeeping serves both directions: an index is opened once and sealed
//! once.

use crate::observe::reason::Reason;

/// Indices that are remembered behind the highest. Higher costs memory (a bit each) and accepts older packets,
/// which nobody can play any more; lower refuses retransmissions on fast streams: at 1000 packets a second this
/// is one second.
pub(super) const WIDTH: u64 = 1024;

const WORDS: usize = (WIDTH / 64) as usize;

/// Indices are 48 bits: 32 of the roll-over counter and 16 of the sequence number.
const MAX_INDEX: u64 = (1 << 48) - 1;

/// The newest [`WIDTH`] indices, as a ring of bits: an index has its bit at itself modulo [`WIDTH`], so nothing
/// is ever shifted.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// One above the highest index; 0 while there is none.
    next: u64,
    used: [u64; WORDS],
}

/// Why an index is not available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It was recorded before.
    Used,
    /// It lies behind the window: whether it was recorded is not known any more.
    TooOld,
}

impl Window {
    /// Whether nothing was recorded yet.
    pub(super) fn is_empty(&self) -> bool {
        self.next == 0
    }

    /// The index that a sequence number most probably has: the one nearest to the highest (RFC 3711 §3.3.1). The
    /// first may have any sequence number, with roll-over counter 0. `None` where it would be before index 0.
    ///
    /// # Errors
    /// [`Reason::SealKeyExhausted`] beyond 48 bits: the key must not be used any longer (§9.2).
    #[inline]
    pub(super) fn index_of(&self, sequence: u16) -> Result<Option<u64>, Reason> {
        let Some(highest) = self.next.checked_sub(1) else { return Ok(Some(u64::from(sequence))) };
        let newest = highest as u16;
        let ahead = i64::from(sequence) - i64::from(newest);
        // Exactly half a cycle away stays in the present one, whichever side that is: so says appendix A.
        let distance = match ahead {
            ..-0x8000 => ahead + 0x1_0000,
            0x8001.. => ahead - 0x1_0000,
            _ => ahead,
        };
        let index = highest.checked_add_signed(distance);
        if index > Some(MAX_INDEX) { Err(Reason::SealKeyExhausted) } else { Ok(index) }
    }

    /// Whether an index may still be recorded.
    #[inline]
    pub(super) fn check(&self, index: u64) -> Result<(), Refused> {
        if index >= self.next {
            Ok(())
        } else if self.next - index > WIDTH {
            Err(Refused::TooOld)
        } else if self.used[word(index)] & bit(index) != 0 {
            Err(Refused::Used)
        } else {
            Ok(())
        }
    }

    /// Records an index that [`check`](Self::check) accepted.
    #[inline]
    pub(super) fn record(&mut self, index: u64) {
        if index >= self.next {
            if index - self.next >= WIDTH {
                self.used = [0; WORDS];
            } else {
                for skipped in self.next..index {
                    self.used[word(skipped)] &= !bit(skipped);
                }
            }
            self.next = index + 1;
        }
        self.used[word(index)] |= bit(index);
    }
}

fn word(index: u64) -> usize {
    (index % WIDTH / 64) as usize
}

fn bit(index: u64) -> u64 {
    1 << (index % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The estimate as appendix A of RFC 3711 writes it, on roll-over counter and sequence number.
    fn appendix_a(highest: u64, sequence: u16) -> i64 {
        let (roll_over, newest) = ((highest >> 16) as i64, i64::from(highest as u16));
        let sequence = i64::from(sequence);
        let roll_over = if newest < 32_768 {
            if sequence - newest > 32_768 { roll_over - 1 } else { roll_over }
        } else if newest - 32_768 > sequence {
            roll_over + 1
        } else {
            roll_over
        };
        roll_over * 0x1_0000 + sequence
    }

    fn window_at(highest: u64) -> Window {
        let mut window = Window::default();
        window.record(highest);
        window
    }

    #[test]
    fn the_first_sequence_number_may_be_any() {
        for sequence in [0, 1, 0x7fff, 0x8000, 0xffff] {
            assert_eq!(Window::default().index_of(sequence), Ok(Some(u64::from(sequence))));
        }
    }

    #[test]
    fn nothing_comes_before_index_zero() {
        assert_eq!(window_at(5).index_of(0xffff), Ok(None));
        assert_eq!(window_at(0).index_of(0x8001), Ok(None));
        assert_eq!(window_at(0).index_of(0x8000), Ok(Some(0x8000)));
    }

    #[test]
    fn the_last_index_is_usable_and_nothing_after_it() {
        let window = window_at(MAX_INDEX);
        assert_eq!(window.index_of(0xffff), Ok(Some(MAX_INDEX)));
        assert_eq!(window.index_of(0), Err(Reason::SealKeyExhausted));
    }

    #[test]
    fn a_long_jump_forgets_everything_behind_the_window() {
        for jump in [WIDTH - 1, WIDTH, WIDTH + 1, 10 * WIDTH] {
            let mut window = window_at(5);
            window.record(5 + jump);
            for index in 6 + jump - WIDTH..5 + jump {
                let expected = if index == 5 { Err(Refused::Used) } else { Ok(()) };
                assert_eq!(window.check(index), expected, "{index} after a jump of {jump}");
            }
            assert_eq!(window.check(5 + jump - WIDTH), Err(Refused::TooOld));
        }
    }

    proptest! {
        #[test]
        fn the_estimate_is_that_of_the_specification(
            highest in prop_oneof![0..=MAX_INDEX, 0..0x3_0000_u64],
            ahead in prop_oneof![any::<u16>(), 0x7ffe..=0x8002_u16],
        ) {
            let sequence = (highest as u16).wrapping_add(ahead);
            let expected = appendix_a(highest, sequence);
            let found = window_at(highest).index_of(sequence);
            if expected > MAX_INDEX as i64 {
                prop_assert_eq!(found, Err(Reason::SealKeyExhausted));
            } else {
                prop_assert_eq!(found, Ok(u64::try_from(expected).ok()));
            }
        }

        #[test]
        fn a_window_agrees_with_a_list_of_all_indices(
            first in prop_oneof![Just(0), 0..3000_u64, Just(MAX_INDEX - 100_000)],
            steps in prop::collection::vec(prop_oneof![8 => -4..8_i64, 2 => -1100..1100_i64, 1 => 0..5000_i64], 1..400),
        ) {
            let (mut window, mut all) = (Window::default(), BTreeSet::new());
            let mut at = first;
            for step in steps {
                at = at.saturating_add_signed(step).min(MAX_INDEX);
                let highest = all.last().copied().unwrap_or(0);
                let expected = if at + WIDTH <= highest {
                    Err(Refused::TooOld)
                } else if all.contains(&at) {
                    Err(Refused::Used)
                } else {
                    Ok(())
                };
                prop_assert_eq!(window.check(at), expected, "index {} with {} the highest", at, highest);
                if expected.is_ok() {
                    window.record(at);
                    all.insert(at);
                }
            }
        }
    }
}
