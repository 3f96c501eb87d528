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
