//! Which encodings of a picture anybody watches: a publisher need not make the others.

use std::time::{Duration, Instant};

/// How long an encoding is kept that nobody watches any more. Longer costs the publisher, shorter makes who looks away for
/// a moment wait for it.
pub const KEPT_FOR: Duration = Duration::from_secs(5);

/// Encodings of one picture at most.
pub const MOST_LAYERS: usize = 4;

/// The wishes for the encodings of one picture. Until somebody could have wished for them, all are kept.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// It must be looked at again.
    pub changed: bool,
    kept: [bool; MOST_LAYERS],
    /// Since when nobody wants it.
    unwanted: [Option<Instant>; MOST_LAYERS],
}

impl Default for Demand {
    fn default() -> Self {
        Self { changed: false, kept: [true; MOST_LAYERS], unwanted: [None; MOST_LAYERS] }
    }
}

impl Demand {
    /// What is wanted now. Returns whether the publisher should make others than before.
    pub fn handle_wishes(&mut self, now: Instant, wanted: [bool; MOST_LAYERS]) -> bool {
        let mut changed = false;
        for (index, wanted) in wanted.into_iter().enumerate() {
            if wanted {
                changed |= !self.kept[index];
                self.kept[index] = true;
                self.unwanted[index] = None;
            } else {
                self.unwanted[index].get_or_insert(now);
            }
        }
        self.handle_timeout(now) | changed
    }

    /// Gives up what nobody has wanted for a while. Returns whether the publisher should make others than before.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let mut changed = false;
        for (kept, unwanted) in self.kept.iter_mut().zip(&self.unwanted) {
            if *kept && unwanted.is_some_and(|since| now.saturating_duration_since(since) >= KEPT_FOR) {
                *kept = false;
                changed = true;
            }
        }
        changed
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let kept = self.kept.iter().zip(&self.unwanted).filter(|(kept, _)| **kept);
        kept.filter_map(|(_, unwanted)| Some((*unwanted)? + KEPT_FOR)).min()
    }

    /// The encodings that are to be made, of so many; largest first.
    #[must_use]
    pub fn kept(&self, layers: usize) -> Vec<u8> {
        (0..layers.min(MOST_LAYERS)).filter(|&index| self.kept[index]).map(|index| index as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_wants_is_given_up_after_a_while_and_comes_back_at_once() {
        let start = Instant::now();
        let mut demand = Demand::default();
        assert_eq!(demand.poll_timeout(), None);
        assert!(!demand.handle_wishes(start, [true, false, false, false]));
        assert_eq!(demand.kept(3), [0, 1, 2]);
        assert_eq!(demand.poll_timeout(), Some(start + KEPT_FOR));
        assert!(!demand.handle_wishes(start + KEPT_FOR / 2, [true, false, true, false]));
        assert!(demand.handle_timeout(start + KEPT_FOR));
        assert_eq!(demand.kept(3), [0, 2]);
        assert!(!demand.handle_timeout(start + 2 * KEPT_FOR), "the others are wanted");
        assert!(demand.handle_wishes(start + 2 * KEPT_FOR, [false, true, false, false]));
        assert_eq!(demand.kept(3), [0, 1, 2]);
        assert!(demand.handle_timeout(start + 3 * KEPT_FOR));
        assert_eq!(demand.kept(3), [1]);
        assert!(!demand.handle_wishes(start + 3 * KEPT_FOR, [false; 4]));
        assert!(demand.handle_timeout(start + 4 * KEPT_FOR));
        assert!(demand.kept(3).is_empty());
        assert_eq!(demand.poll_timeout(), None);
    }
}
