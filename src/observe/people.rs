//! Who is here, as far as signaling knows: how many, by which carrier, and how they came.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::times::{JOIN, Times};

/// What carries a session's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum CarrierKind {
    #[default]
    WebSocket,
    LongPoll,
}

impl CarrierKind {
    /// The metrics' names, in order; the last one is for sessions that wait for a carrier.
    pub const NAMES: [&str; 3] = ["websocket", "poll", "none"];
}

/// Counts of all rooms' tasks: written by any of them, read by anyone.
#[derive(Debug)]
pub struct People {
    participants: AtomicI64,
    publications: AtomicI64,
    carriers: [AtomicI64; CarrierKind::NAMES.len()],
    /// Valid `hello`s.
    pub hellos: AtomicU64,
    /// From `hello` to `welcome`.
    pub welcome: Times,
}

impl Default for People {
    fn default() -> Self {
        Self {
            participants: AtomicI64::new(0),
            publications: AtomicI64::new(0),
            carriers: [const { AtomicI64::new(0) }; CarrierKind::NAMES.len()],
            hellos: AtomicU64::new(0),
            welcome: Times::new(JOIN),
        }
    }
}

impl People {
    #[must_use]
    pub fn participants(&self) -> i64 {
        self.participants.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn publications(&self) -> i64 {
        self.publications.load(Ordering::Relaxed)
    }

    /// Sessions by what carries them, in the order of [`CarrierKind::NAMES`].
    pub fn sessions(&self) -> impl Iterator<Item = (&'static str, i64)> + '_ {
        CarrierKind::NAMES.into_iter().zip(self.carriers.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// One participant's share of [`People`], taken back when it goes, however it goes.
#[derive(Debug)]
pub struct Present {
    people: Arc<People>,
    publications: i64,
    carrier: usize,
}

impl Present {
    /// Somebody who came on a carrier of this kind.
    #[must_use]
    pub fn new(people: Arc<People>, carrier: CarrierKind) -> Self {
        let carrier = carrier as usize;
        people.participants.fetch_add(1, Ordering::Relaxed);
        people.carriers[carrier].fetch_add(1, Ordering::Relaxed);
        Self { people, publications: 0, carrier }
    }

    /// What is true now. Cheap where nothing changed.
    pub fn update(&mut self, publications: usize, carrier: Option<CarrierKind>) {
        let publications = i64::try_from(publications).unwrap_or(i64::MAX);
        if publications != self.publications {
            self.people.publications.fetch_add(publications - self.publications, Ordering::Relaxed);
            self.publications = publications;
        }
        let carrier = carrier.map_or(CarrierKind::NAMES.len() - 1, |kind| kind as usize);
        if carrier != self.carrier {
            self.people.carriers[self.carrier].fetch_sub(1, Ordering::Relaxed);
            self.people.carriers[carrier].fetch_add(1, Ordering::Relaxed);
            self.carrier = carrier;
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.people.participants.fetch_sub(1, Ordering::Relaxed);
        self.people.publications.fetch_sub(self.publications, Ordering::Relaxed);
        self.people.carriers[self.carrier].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_goes_takes_everything_along() {
        let people = Arc::new(People::default());
        let counts = |people: &People| {
            let sessions: Vec<_> = people.sessions().map(|(_, count)| count).collect();
            (people.participants(), people.publications(), sessions)
        };
        let mut ada = Present::new(people.clone(), CarrierKind::WebSocket);
        let ben = Present::new(people.clone(), CarrierKind::LongPoll);
        ada.update(3, None);
        ada.update(2, None);
        assert_eq!(counts(&people), (2, 2, vec![0, 1, 1]));
        ada.update(2, Some(CarrierKind::LongPoll));
        drop(ben);
        assert_eq!(counts(&people), (1, 2, vec![0, 1, 0]));
        drop(ada);
        assert_eq!(counts(&people), (0, 0, vec![0, 0, 0]));
    }
}
