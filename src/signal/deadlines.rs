//! When which participant is to be looked at, without looking at the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::id::ParticipantId;

/// The earliest time known for each. Too early only costs a look; so a deadline that moves back is left where it
/// is, and signs of life cost nothing here.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Instant, ParticipantId)>,
    of: BTreeMap<ParticipantId, Instant>,
}

impl Deadlines {
    pub(super) fn schedule(&mut self, id: ParticipantId, at: Instant) {
        if self.of.get(&id).is_some_and(|&known| known <= at) {
            return;
        }
        self.remove(id);
        self.of.insert(id, at);
        self.by_time.insert((at, id));
    }

    pub(super) fn remove(&mut self, id: ParticipantId) {
        if let Some(at) = self.of.remove(&id) {
            self.by_time.remove(&(at, id));
        }
    }

    /// When [`Self::due`] is not empty.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Those whose time has come, each once.
    pub(super) fn due(&mut self, now: Instant) -> Vec<ParticipantId> {
        let mut due = Vec::new();
        while let Some(&(at, id)) = self.by_time.first().filter(|(at, _)| *at <= now) {
            self.by_time.remove(&(at, id));
            self.of.remove(&id);
            due.push(id);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_is_due_once_at_the_earliest_time_that_was_named() {
        let (mut deadlines, start) = (Deadlines::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let [ada, ben, cleo] = [1, 2, 3].map(ParticipantId);
        deadlines.schedule(ada, at(20));
        deadlines.schedule(ada, at(30));
        deadlines.schedule(ben, at(20));
        deadlines.schedule(ben, at(10));
        deadlines.schedule(cleo, at(5));
        deadlines.remove(cleo);
        assert_eq!((deadlines.next(), deadlines.due(at(9))), (Some(at(10)), Vec::new()));
        assert_eq!(deadlines.due(at(25)), [ben, ada]);
        assert_eq!((deadlines.next(), deadlines.due(at(99))), (None, Vec::new()));
        deadlines.schedule(ben, at(40));
        assert_eq!(deadlines.due(at(40)), [ben]);
    }
}
