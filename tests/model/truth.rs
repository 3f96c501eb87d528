//! Who is where, by what happened: the simple model that everybody's picture is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::fake::SECTIONS;
use super::page::Roster;

/// The limits of the protocol, and how late a room may act on them: it looks at silent people once a second.
pub const MEDIA_SILENT: Duration = Duration::from_secs(8);
pub const CARRIER_SILENT: Duration = Duration::from_secs(5);
pub const REMOVED: Duration = Duration::from_secs(30);
const EARLY: Duration = Duration::from_millis(50);
const LATE: Duration = Duration::from_millis(3500);

/// Somebody who is, or was until lately, in a room.
#[derive(Clone, Debug)]
pub struct Person {
    pub room: usize,
    pub name: String,
    /// Muted or not, by section.
    pub publications: BTreeMap<usize, bool>,
    /// The last signs of life; `None`: going on now.
    pub media: Option<Instant>,
    pub carrier: Option<Instant>,
}

/// What a rule says at a moment: yes, no, or any, because it may be acted upon a little later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    Yes,
    No,
    Either,
}

impl Is {
    fn past(silence: Duration, limit: Duration) -> Self {
        if silence + EARLY < limit {
            Self::No
        } else if silence > limit + LATE {
            Self::Yes
        } else {
            Self::Either
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, Self::Yes) => Self::Yes,
            (Self::No, _) | (_, Self::No) => Self::No,
            _ => Self::Either,
        }
    }

    pub fn allows(self, shown: bool) -> bool {
        self == Self::Either || (self == Self::Yes) == shown
    }
}

impl Person {
    fn silence(since: Option<Instant>, now: Instant) -> Duration {
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    pub fn is_away(&self, now: Instant) -> Is {
        let media = Is::past(Self::silence(self.media, now), MEDIA_SILENT);
        media.and(Is::past(Self::silence(self.carrier, now), CARRIER_SILENT))
    }

    pub fn is_gone(&self, now: Instant) -> Is {
        Is::past(Self::silence(self.media, now).min(Self::silence(self.carrier, now)), REMOVED)
    }
}

/// Everybody, by participant id.
#[derive(Clone, Debug, Default)]
pub struct Truth(pub BTreeMap<String, Person>);

impl Truth {
    /// Whether somebody in the room may see this; what is wrong with it.
    pub fn check(&self, now: Instant, room: usize, roster: &Roster) -> Result<(), String> {
        for (id, (name, away)) in &roster.people {
            let Some(person) = self.0.get(id) else { return Err(format!("{id} is shown and not here")) };
            if person.room != room {
                return Err(format!("{id} is in another room"));
            }
            if person.is_gone(now) == Is::Yes {
                return Err(format!("{id} is a ghost"));
            }
            if !person.is_away(now).allows(*away) {
                return Err(format!("{id} is shown as away: {away}"));
            }
            if person.name != *name {
                return Err(format!("{id} is called {name} instead of {}", person.name));
            }
            let of = |entry: &&super::page::Publication| entry.owner == *id;
            let shown = roster.publications.values().filter(of).map(|p| (p.source.as_str(), p.muted));
            let shown: Vec<_> = shown.collect();
            let distinct: BTreeSet<_> = shown.iter().copied().collect();
            let real: BTreeSet<_> =
                person.publications.iter().map(|(section, muted)| (SECTIONS[*section].1, *muted)).collect();
            if distinct != real || shown.len() != real.len() {
                return Err(format!("{id} publishes {real:?}, shown {shown:?}"));
            }
        }
        let missing = self.0.iter().find(|(id, person)| {
            person.room == room && person.is_gone(now) == Is::No && !roster.people.contains_key(*id)
        });
        missing.map_or(Ok(()), |(id, _)| Err(format!("{id} is missing")))
    }
}
