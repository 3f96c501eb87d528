//! How far somebody who joined has come, for the metrics.

use std::time::Instant;

use crate::observe::traffic::Joins;

/// The step that is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Check,
    Secure,
    Media,
    Done,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    next: Step,
    /// When the last step was made.
    since: Instant,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: Step::Check, since: now }
    }

    /// An authenticated check came.
    pub(super) fn checked(&mut self, now: Instant, joins: &Joins) {
        if self.next == Step::Check {
            joins.check.observe(now.saturating_duration_since(self.since));
            *self = Self { next: Step::Secure, since: now };
        }
    }

    /// The handshake ended. `awaits`: somebody's media is there to be forwarded. Who comes first sees nothing for as
    /// long as nobody else comes, which says nothing of the server.
    pub(super) fn secured(&mut self, now: Instant, awaits: bool, joins: &Joins) {
        if self.next == Step::Secure {
            joins.secure.observe(now.saturating_duration_since(self.since));
            *self = Self { next: if awaits { Step::Media } else { Step::Done }, since: now };
        }
    }

    /// The first packet of a publication was forwarded.
    pub(super) fn shown(&mut self, now: Instant, joins: &Joins) {
        if self.next == Step::Media {
            joins.media.observe(now.saturating_duration_since(self.since));
            *self = Self { next: Step::Done, since: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::times::Times;

    fn of(times: &Times) -> (u64, f64) {
        (times.buckets().map(|(_, count)| count).sum(), times.sum())
    }

    #[test]
    fn each_step_counts_once_from_the_one_before() {
        let (start, joins) = (Instant::now(), Joins::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut progress = Progress::new(start);
        progress.shown(at(1), &joins);
        progress.checked(at(1), &joins);
        progress.checked(at(2), &joins);
        progress.secured(at(4), true, &joins);
        progress.shown(at(9), &joins);
        progress.shown(at(10), &joins);
        assert_eq!([&joins.check, &joins.secure, &joins.media].map(of), [(1, 1.0), (1, 3.0), (1, 5.0)]);
    }

    #[test]
    fn who_is_alone_at_first_awaits_nothing() {
        let (start, joins) = (Instant::now(), Joins::default());
        let mut progress = Progress::new(start);
        progress.checked(start, &joins);
        progress.secured(start, false, &joins);
        progress.shown(start, &joins);
        assert_eq!(of(&joins.media), (0, 0.0));
    }
}
