//! Which publication each slot of a receiver carries. Sticky: what is shown stays where it is, whoever else comes
//! or goes.

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
    /// Higher first where slots are few.
    pub priority: u8,
}

/// A slot as the assignment sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub kind: Kind,
    pub holds: Option<PublicationKey>,
}

/// The publication of each slot, in the order of `places`. Candidates beyond the slots get none.
#[must_use]
pub fn assign(places: &[Place], candidates: &[Candidate]) -> Vec<Option<PublicationKey>> {
    let find = |key: PublicationKey| candidates.iter().find(|candidate| candidate.publication == key);
    let mut result: Vec<Option<PublicationKey>> = places
        .iter()
        .map(|place| place.holds.filter(|&key| find(key).is_some_and(|c| c.kind == place.kind)))
        .collect();
    let mut waiting: Vec<&Candidate> =
        candidates.iter().filter(|candidate| !result.contains(&Some(candidate.publication))).collect();
    waiting.sort_by_key(|candidate| std::cmp::Reverse(candidate.priority));
    for candidate in waiting {
        let owner_at = |kind: Kind, index: usize| {
            let at = nth(places, kind, index)?;
            Some(result[at].and_then(find).map(|holder| holder.owner))
        };
        let fits = |index: usize, strict: bool| {
            let paired = index < PAIRS;
            let together = matches!(candidate.source, Source::Camera | Source::Microphone);
            match (strict, paired) {
                (false, _) | (true, false) => true,
                (true, true) => {
                    let other = owner_at(other(candidate.kind), index).flatten();
                    together && other.is_none_or(|owner| owner == candidate.owner)
                }
            }
        };
        // First where its counterpart already is, then any fitting place, then any place at all.
        let partner = |index: usize| {
            index < PAIRS
                && fits(index, true)
                && owner_at(other(candidate.kind), index).flatten() == Some(candidate.owner)
        };
        let free = |index: &usize| nth(places, candidate.kind, *index).is_some_and(|at| result[at].is_none());
        let count = places.iter().filter(|place| place.kind == candidate.kind).count();
        let chosen = (0..count)
            .filter(free)
            .find(|&index| partner(index))
            .or_else(|| (0..count).filter(free).find(|&index| fits(index, true)))
            .or_else(|| (0..count).find(free))
            .and_then(|index| nth(places, candidate.kind, index));
        if let Some(at) = chosen {
            result[at] = Some(candidate.publication);
        }
    }
    result
}

/// Where the `index`th slot of a kind stands.
fn nth(places: &[Place], kind: Kind, index: usize) -> Option<usize> {
    places.iter().enumerate().filter(|(_, place)| place.kind == kind).nth(index).map(|(at, _)| at)
}

fn other(kind: Kind) -> Kind {
    match kind {
        Kind::Audio => Kind::Video,
        Kind::Video => Kind::Audio,
    }
}

#[cfg(test)]
mod tests {
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
            self.candidates.push(Candidate { publication, owner, kind, source, priority: 0 });
            publication
        }
    }

    fn places(audio: usize, video: usize) -> Vec<Place> {
        let place = |kind| Place { kind, holds: None };
        let mut places = vec![place(Kind::Audio); audio];
        places.extend(vec![place(Kind::Video); video]);
        places
    }

    fn hold(places: &mut [Place], result: &[Option<PublicationKey>]) {
        for (place, holds) in places.iter_mut().zip(result) {
            place.holds = *holds;
        }
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
        let result = assign(&places(4, 4), &world.candidates);
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
        let before = assign(&places, &world.candidates);
        hold(&mut places, &before);
        world.candidates.remove(0);
        let after = assign(&places, &world.candidates);
        assert_eq!(after[4], None);
        assert_eq!(after[5..], before[5..]);
    }

    #[test]
    fn a_screen_leaves_the_pairs_to_people() {
        let mut world = World::new();
        let a = world.person();
        let screen = world.publish(a, Source::Screen);
        assert_eq!(assign(&places(4, 4), &world.candidates)[4 + 3], Some(screen));
        assert_eq!(assign(&places(1, 1), &world.candidates)[1], Some(screen), "unless there is nothing else");
    }

    #[test]
    fn more_publications_than_slots_leave_the_rest_out() {
        let mut world = World::new();
        for _ in 0..5 {
            let person = world.person();
            world.publish(person, Source::Camera);
        }
        world.candidates[4].priority = 9;
        let result = assign(&places(0, 2), &world.candidates);
        assert_eq!(result[0], Some(world.candidates[4].publication));
        assert_eq!(result.iter().flatten().count(), 2);
    }
}
