//! When to ask a publisher for a keyframe: one request per layer serves all its viewers.

use std::time::{Duration, Instant};

/// Shortest time between two requests for one layer. Shorter lets a few viewers on bad links make the
/// publisher send keyframes only, longer keeps a newcomer in the dark.
pub const SPACING: Duration = Duration::from_millis(500);

/// How old a keyframe may be for a newcomer to begin with it and all that followed, out of the history, instead
/// of asking for another. Longer spares the publisher keyframes, shorter the newcomer a burst. Not below
/// [`SPACING`]: for that long no other can be asked for.
pub const OPENS_FOR: Duration = SPACING;

/// Requests without an answer before it is given up, until somebody wishes again. More bothers a publisher that
/// sends nothing for minutes, fewer leaves a viewer in the dark where several requests were lost.
const TRIES: u8 = 10;

/// The merged wish of all viewers of one layer.
#[derive(Debug, Default)]
pub struct Keyframe {
    wanted: bool,
    asked: Option<Instant>,
    /// A keyframe came since.
    answered: bool,
    /// The next request need not keep its distance from one that was answered.
    urgent: bool,
    urged: Option<Instant>,
    tries: u8,
}

impl Keyframe {
    /// Somebody cannot go on without a keyframe.
    pub fn request(&mut self) {
        self.wanted = true;
        self.tries = 0;
    }

    /// Somebody could not take the keyframe that came, and now can: asks again at once, but for no more than one
    /// keyframe beyond the usual in each [`SPACING`].
    pub fn urge(&mut self, now: Instant) {
        self.request();
        if self.answered && self.urged.is_none_or(|at| now.saturating_duration_since(at) >= SPACING) {
            (self.urgent, self.urged) = (true, Some(now));
        }
    }

    /// A keyframe began to arrive.
    pub fn handle_keyframe(&mut self) {
        self.wanted = false;
        self.answered = true;
    }

    /// Nobody waits any more, or there is nobody to ask: a muted publisher must not be asked for ever.
    pub fn cancel(&mut self) {
        self.wanted = false;
    }

    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// When [`poll`](Self::poll) will next say yes.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.wanted.then(|| self.asked.filter(|_| !self.urgent).map_or(now, |asked| asked + SPACING))
    }

    /// Whether a request is to be sent now; repeated every [`SPACING`] until a keyframe comes, or
    /// nobody wishes for one again.
    pub fn poll(&mut self, now: Instant) -> bool {
        let due = self.poll_timeout(now).is_some_and(|at| at <= now);
        if due {
            self.asked = Some(now);
            (self.answered, self.urgent) = (false, false);
            self.tries += 1;
            self.wanted = self.tries < TRIES;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_that_never_answers_is_left_alone_after_a_while() {
        let start = Instant::now();
        let mut keyframe = Keyframe::default();
        keyframe.request();
        let asked = (0..100).filter(|n| keyframe.poll(start + *n * SPACING)).count();
        assert_eq!(asked, usize::from(TRIES));
        keyframe.request();
        assert!(keyframe.poll(start + 100 * SPACING));
    }

    #[test]
    fn who_could_not_take_the_answer_does_not_wait_for_the_next_turn() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let mut keyframe = Keyframe::default();
        keyframe.request();
        assert!(keyframe.poll(now));
        keyframe.urge(now + ms(20));
        assert!(!keyframe.poll(now + ms(20)), "the answer is still on its way");
        keyframe.handle_keyframe();
        keyframe.urge(now + ms(80));
        assert_eq!(keyframe.poll_timeout(now + ms(80)), Some(now + ms(80)));
        assert!(keyframe.poll(now + ms(80)));
        keyframe.handle_keyframe();
        keyframe.urge(now + ms(160));
        assert!(!keyframe.poll(now + ms(160)), "once in each spacing");
        assert!(keyframe.poll(now + ms(80) + SPACING));
    }

    #[test]
    fn a_hundred_viewers_cause_one_request_and_repeats_are_spaced() {
        let now = Instant::now();
        let mut keyframe = Keyframe::default();
        for _ in 0..100 {
            keyframe.request();
        }
        assert!(keyframe.poll(now));
        keyframe.request();
        assert!(!keyframe.poll(now + SPACING / 2));
        assert!(keyframe.poll(now + SPACING));
        keyframe.handle_keyframe();
        assert!(!keyframe.poll(now + 3 * SPACING));
        keyframe.request();
        assert!(keyframe.poll(now + 3 * SPACING), "the next request after a while goes out at once");
    }
}
