//! Which publication each slot of a receiver carries. Sticky: what is shown stays where it is, whoever else comes
//! or goes, unless slots are short and somebody else matters more.

use crate::room::registry::{ParticipantKey, PublicationKey};
use crate::room::{Kind, Source};

/// Slots of each kind that share a stream id with their counterpart of the other kind: browsers keep sound and
/// picture of such a pair together, so a pair carries only ever one person.
const PAIRS: usize = 3;

/// Something that a receiver could see or hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub publication: PublicationKey,
    pub owner: ParticipantKey,
    pub kind: Kind,
    pub source: Source,
    /// Where slots are few the higher one takes the place of a lower one. Equals never do.
    pub rank: u32,
    /// Among equals that have no slot the higher one comes first, and among those that have one the lower one goes first.
    pub recency: u64,
    /// The slot that it had before.
    pub home: Option<u16>,
}

/// A slot as the assignment sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub kind: Kind,
    pub holds: Option<Candidate>,
    /// Whether what it holds may already be replaced by something that matters more.
    pub settled: bool,
}

/// Finds places for those that have none. They are sorted on the way. Returns whether somebody was left out who matters
/// more than something that is not settled yet.
pub fn place(places: &mut [Place], waiting: &mut [Candidate]) -> bool {
    waiting.sort_by_key(|candidate| std::cmp::Reverse((candidate.rank, candidate.recency)));
    let mut postponed = false;
    // Those that come later matter no more: where one found no place, none of its kind does.
    let mut full = [false; 2];
    for candidate in waiting {
        let full = &mut full[usize::from(candidate.kind == Kind::Video)];
        if *full {
            continue;
        }
        match choose(places, candidate) {
            Some(at) => {
                places[at].holds = Some(*candidate);
                places[at].settled = false;
            }
            None => {
                *full = true;
                let lower = |place: &Place| place.holds.is_some_and(|holder| holder.rank < candidate.rank);
                postponed |= places.iter().any(|place| place.kind == candidate.kind && lower(place));
            }
        }
    }
    postponed
}

/// The best place for somebody: a free one, or that of whoever matters least of those who matter less.
fn choose(places: &[Place], candidate: &Candidate) -> Option<usize> {
    let open = |place: &Place| match place.holds {
        None => Some((0, 0)),
        Some(holder) if place.settled && holder.rank < candidate.rank => {
            Some((holder.rank + 1, holder.recency))
        }
        Some(_) => None,
    };
    let own = || places.iter().enumerate().filter(|(_, place)| place.kind == candidate.kind);
    let least = own().filter_map(|(_, place)| open(place)).map(|(rank, _)| rank).min()?;
    let mut best: Option<((u8, u64), usize)> = None;
    for (index, (at, place)) in own().enumerate() {
        let Some((_, recency)) = open(place).filter(|(rank, _)| *rank == least) else { continue };
        let fit = match fit(places, candidate, index) {
            Fit::Partner => 0,
            _ if candidate.home == Some(at as u16) => 1,
            Fit::Free => 2,
            Fit::Strange => 3,
        };
        if best.is_none_or(|(other, _)| (fit, recency) < other) {
            best = Some(((fit, recency), at));
        }
    }
    best.map(|(_, at)| at)
}

/// How somebody goes with the other kind's slot of the same pair.
enum Fit {
    /// His own other half is there.
    Partner,
    /// Nobody is, or the slots are no pair.
    Free,
    /// Somebody else is, or it is no person's sound and picture: only where there is nothing else.
    Strange,
}

fn fit(places: &[Place], candidate: &Candidate, index: usize) -> Fit {
    if index >= PAIRS {
        return Fit::Free;
    }
    let person = matches!(candidate.source, Source::Camera | Source::Microphone);
    let counterpart = places.iter().filter(|place| place.kind != candidate.kind).nth(index);
    match counterpart.and_then(|place| place.holds) {
        _ if !person => Fit::Strange,
        None => Fit::Free,
        Some(holder) if holder.owner == candidate.owner => Fit::Partner,
        Some(_) => Fit::Strange,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slotmap::SlotMap;

    use super::*;

    struct World {
        participants: SlotMap<ParticipantKey, ()>,
        publications: SlotMap<PublicationKey, ()>,
        candidates: Vec<Candidate>,
    }

    impl World {
        fn new() -> Self {
            Self { participants: SlotMap::with_key(), publications: SlotMap::with_key(), candidates: vec![] }
        }

        fn person(&mut self) -> ParticipantKey {
            self.participants.insert(())
        }

        fn publish(&mut self, owner: ParticipantKey, source: Source) -> PublicationKey {
            let kind = match source {
                Source::Microphone | Source::ScreenAudio => Kind::Audio,
                Source::Camera | Source::Screen => Kind::Video,
            };
            let publication = self.publications.insert(());
            let (rank, recency, home) = (0, 0, None);
            self.candidates.push(Candidate { publication, owner, kind, source, rank, recency, home });
            publication
        }

        fn voices<const N: usize>(&mut self) -> [PublicationKey; N] {
            std::array::from_fn(|_| {
                let person = self.person();
                self.publish(person, Source::Microphone)
            })
        }

        fn of(&mut self, publication: PublicationKey) -> &mut Candidate {
            let mut candidates = self.candidates.iter_mut();
            candidates.find(|candidate| candidate.publication == publication).expect("published")
        }
    }

    fn places(audio: usize, video: usize) -> Vec<Place> {
        let place = |kind| Place { kind, holds: None, settled: true };
        let mut places = vec![place(Kind::Audio); audio];
        places.extend(vec![place(Kind::Video); video]);
        places
    }

    /// Everything anew: who is no candidate any more goes, and the others find places.
    fn assign(places: &mut [Place], candidates: &[Candidate]) -> Vec<Option<PublicationKey>> {
        for place in &mut *places {
            place.holds = place.holds.and_then(|holder| {
                candidates.iter().find(|candidate| candidate.publication == holder.publication).copied()
            });
        }
        let held: Vec<_> = places.iter().filter_map(|place| Some(place.holds?.publication)).collect();
        let mut waiting = candidates.to_vec();
        waiting.retain(|candidate| !held.contains(&candidate.publication));
        place(places, &mut waiting);
        places.iter_mut().for_each(|place| place.settled = true);
        places.iter().map(|place| place.holds.map(|holder| holder.publication)).collect()
    }

    #[test]
    fn sound_and_picture_of_one_person_share_a_pair() {
        let mut world = World::new();
        let (a, b) = (world.person(), world.person());
        let (a_sound, b_picture, a_picture, b_sound) = (
            world.publish(a, Source::Microphone),
            world.publish(b, Source::Camera),
            world.publish(a, Source::Camera),
            world.publish(b, Source::Microphone),
        );
        let result = assign(&mut places(4, 4), &world.candidates);
        assert_eq!(result[..2], [Some(a_sound), Some(b_sound)]);
        assert_eq!(result[4..6], [Some(a_picture), Some(b_picture)]);
    }

    #[test]
    fn who_is_shown_stays_when_others_leave() {
        let mut world = World::new();
        let mut places = places(4, 4);
        let people: Vec<_> = (0..3).map(|_| world.person()).collect();
        for &person in &people {
            world.publish(person, Source::Camera);
        }
        let before = assign(&mut places, &world.candidates);
        world.candidates.remove(0);
        let after = assign(&mut places, &world.candidates);
        assert_eq!(after[4], None);
        assert_eq!(after[5..], before[5..]);
    }

    #[test]
    fn a_screen_leaves_the_pairs_to_people() {
        let mut world = World::new();
        let a = world.person();
        let screen = world.publish(a, Source::Screen);
        assert_eq!(assign(&mut places(4, 4), &world.candidates)[4 + 3], Some(screen));
        let result = assign(&mut places(1, 1), &world.candidates);
        assert_eq!(result[1], Some(screen), "unless there is nothing else");
    }

    #[test]
    fn more_publications_than_slots_leave_the_rest_out() {
        let mut world = World::new();
        for _ in 0..5 {
            let person = world.person();
            world.publish(person, Source::Camera);
        }
        world.candidates[4].rank = 9;
        let result = assign(&mut places(0, 2), &world.candidates);
        assert_eq!(result[0], Some(world.candidates[4].publication));
        assert_eq!(result.iter().flatten().count(), 2);
    }

    #[test]
    fn who_matters_more_takes_the_place_of_who_matters_least() {
        let mut world = World::new();
        let mut places = places(3, 0);
        let [a, b, c, d] = world.voices();
        (world.of(b).rank, world.of(c).rank) = (1, 1);
        world.of(a).rank = 2;
        assert!(!assign(&mut places, &world.candidates).contains(&Some(d)));
        world.of(d).rank = 2;
        world.of(b).recency = 7;
        let result = assign(&mut places, &world.candidates);
        assert!(result.contains(&Some(d)) && !result.contains(&Some(c)), "who spoke longest ago");
        world.of(c).rank = 1;
        assert_eq!(assign(&mut places, &world.candidates), result, "equals stay");
    }

    #[test]
    fn a_voice_comes_back_to_the_slot_that_it_had() {
        let mut world = World::new();
        let mut places = places(4, 0);
        let [a, b, c, d, e] = world.voices();
        let before = assign(&mut places, &world.candidates);
        let home = before.iter().position(|key| *key == Some(c)).map(|at| at as u16);
        (world.of(a).rank, world.of(e).rank) = (1, 1);
        world.of(c).recency = 0;
        (world.of(b).recency, world.of(d).recency) = (5, 6);
        assert!(!assign(&mut places, &world.candidates).contains(&Some(c)));
        (world.of(c).rank, world.of(c).home, world.of(e).rank) = (1, home, 0);
        world.of(e).recency = 9;
        let after = assign(&mut places, &world.candidates);
        assert_eq!(after.iter().position(|key| *key == Some(c)).map(|at| at as u16), home);
    }

    #[test]
    fn who_has_just_begun_is_not_cut_short() {
        let mut world = World::new();
        let [a, b] = world.voices();
        let mut places = places(1, 0);
        let mut waiting = vec![*world.of(a)];
        assert!(!place(&mut places, &mut waiting));
        world.of(b).rank = 2;
        let mut waiting = vec![*world.of(b)];
        assert!(place(&mut places, &mut waiting), "it is to be tried again");
        assert_eq!(places[0].holds.map(|holder| holder.publication), Some(a));
        places[0].settled = true;
        assert!(!place(&mut places, &mut waiting));
        assert_eq!(places[0].holds.map(|holder| holder.publication), Some(b));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Nobody has two places, none is of the wrong kind, none is free while somebody waits, and nobody who waits
        /// matters more than who has a place.
        #[test]
        fn places_are_given_to_whom_they_are_due(
            ranks in prop::collection::vec((0u32..3, 0u64..5, any::<bool>()), 0..20),
            later in prop::collection::vec((0u32..3, 0u64..5), 20),
            slots in (0usize..6, 0usize..6),
        ) {
            let mut world = World::new();
            for (rank, recency, picture) in ranks {
                let person = world.person();
                let key = world.publish(person, if picture { Source::Camera } else { Source::Microphone });
                (world.of(key).rank, world.of(key).recency) = (rank, recency);
            }
            let mut places = places(slots.0, slots.1);
            for _ in 0..2 {
                let result = assign(&mut places, &world.candidates);
                for (place, key) in places.iter().zip(&result) {
                    let Some(key) = key else { continue };
                    prop_assert_eq!(result.iter().filter(|other| **other == Some(*key)).count(), 1);
                    prop_assert_eq!(world.of(*key).kind, place.kind);
                }
                for candidate in &world.candidates {
                    if !result.contains(&Some(candidate.publication)) {
                        for place in places.iter().filter(|place| place.kind == candidate.kind) {
                            prop_assert!(place.holds.is_some_and(|holder| holder.rank >= candidate.rank));
                        }
                    }
                }
                for (candidate, (rank, recency)) in world.candidates.iter_mut().zip(&later) {
                    (candidate.rank, candidate.recency) = (*rank, *recency);
                }
            }
        }
    }
}
