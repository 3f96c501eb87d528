//! A hashed timing wheel: one deadline for each key. A thousand participants with a handful of timers each then
//! cost a few list operations, where a sorted queue would be reordered at every packet and a timer task for
//! each would wake the thread for nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

/// The width of a slot. Wider puts more deadlines into one list, which is searched when it is due; narrower
/// makes the wheel turn through more empty slots. Deadlines themselves are exact.
const SLOT: Duration = Duration::from_millis(10);

/// Slots in the wheel: 10 s. More costs memory (32 B each); with fewer, distant deadlines (the 30 s of consent)
/// are looked at in passing more often.
const SLOTS: usize = 1024;

/// Deadlines by key. `K` is a small id.
#[derive(Debug)]
pub struct Wheel<K> {
    start: Instant,
    /// The slot number, counted from `start`, before which nothing is due any more.
    cursor: u64,
    slots: Box<[Vec<K>]>,
    /// One bit for each slot that is not empty.
    occupied: [u64; SLOTS / 64],
    entries: HashMap<K, Entry, RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    due: Instant,
    slot: usize,
    index: usize,
}

impl<K: Copy + Eq + Hash> Wheel<K> {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            cursor: 0,
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; SLOTS / 64],
            entries: HashMap::default(),
        }
    }

    /// Sets the deadline of `key`, which replaces the one it had. One in the past is due at once.
    pub fn schedule(&mut self, key: K, at: Instant) {
        let slot = (self.number(at).max(self.cursor) % SLOTS as u64) as usize;
        if let Some(entry) = self.entries.get_mut(&key) {
            if entry.slot == slot {
                entry.due = at;
                return;
            }
            self.cancel(key);
        }
        let index = self.slots[slot].len();
        self.slots[slot].push(key);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.entries.insert(key, Entry { due: at, slot, index });
    }

    /// Takes the deadline of `key` away.
    pub fn cancel(&mut self, key: K) {
        let Some(entry) = self.entries.remove(&key) else { return };
        let keys = &mut self.slots[entry.slot];
        keys.swap_remove(entry.index);
        if let Some(moved) = keys.get(entry.index)
            && let Some(moved) = self.entries.get_mut(moved)
        {
            moved.index = entry.index;
        }
        if keys.is_empty() {
            self.occupied[entry.slot / 64] &= !(1 << (entry.slot % 64));
        }
    }

    /// A key whose deadline has come, which is thereby taken away; to be called until it says `None`.
    pub fn poll(&mut self, now: Instant) -> Option<K> {
        let today = self.number(now);
        // After a long pause one turn of the wheel passes every slot.
        self.cursor = self.cursor.max(today.saturating_sub(SLOTS as u64 - 1));
        loop {
            let slot = (self.cursor % SLOTS as u64) as usize;
            let due = self.slots[slot].iter().copied().find(|key| self.entries[key].due <= now);
            if let Some(key) = due {
                self.cancel(key);
                return Some(key);
            }
            if self.cursor >= today {
                return None;
            }
            let skip = u64::from(self.empty_from(slot + 1)) + 1;
            self.cursor = (self.cursor + skip).min(today);
        }
    }

    /// When to call [`poll`](Self::poll) next: never later than the earliest deadline, and earlier only where all
    /// deadlines are more than a turn of the wheel away.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        if self.entries.is_empty() {
            return None;
        }
        let mut ahead = 0;
        while ahead < SLOTS as u64 {
            let number = self.cursor + ahead;
            let slot = (number % SLOTS as u64) as usize;
            let dues = self.slots[slot].iter().map(|key| self.entries[key].due);
            if let Some(due) = dues.filter(|due| self.number(*due) <= number).min() {
                return Some(due);
            }
            ahead += u64::from(self.empty_from(slot + 1)) + 1;
        }
        Some(self.start + Duration::from_millis((self.cursor + SLOTS as u64) * SLOT.as_millis() as u64))
    }

    /// How many keys have a deadline.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn number(&self, at: Instant) -> u64 {
        (at.saturating_duration_since(self.start).as_nanos() / SLOT.as_nanos()) as u64
    }

    /// How many slots in a row are certainly empty, from `slot` to the end of its group of 64: lets the wheel
    /// turn 64 empty slots at a time.
    fn empty_from(&self, slot: usize) -> u32 {
        let slot = slot % SLOTS;
        let rest = 64 - (slot % 64) as u32;
        (self.occupied[slot / 64] >> (slot % 64)).trailing_zeros().min(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_key_has_one_deadline_and_the_newest_counts() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        wheel.schedule(1, at(50));
        wheel.schedule(1, at(500));
        assert_eq!((wheel.len(), wheel.next()), (1, Some(at(500))));
        assert_eq!(wheel.poll(at(499)), None);
        assert_eq!(wheel.poll(at(500)), Some(1));
        assert_eq!((wheel.poll(at(500)), wheel.next()), (None, None));
    }

    #[test]
    fn a_deadline_in_the_past_is_due_at_once() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        assert_eq!(wheel.poll(start + Duration::from_secs(60)), None::<u32>);
        wheel.schedule(1, start + Duration::from_secs(1));
        assert_eq!(wheel.next(), Some(start + Duration::from_secs(1)));
        assert_eq!(wheel.poll(start + Duration::from_secs(60)), Some(1));
    }

    #[test]
    fn a_distant_deadline_survives_many_turns() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let due = start + Duration::from_secs(3600);
        wheel.schedule(1, due);
        let mut now = start;
        let mut wakes = 0;
        while let Some(next) = wheel.next().filter(|next| *next < due) {
            assert!(next > now, "wakes without progress");
            now = next;
            assert_eq!(wheel.poll(now), None);
            wakes += 1;
        }
        assert!(wakes < 400, "{wakes}");
        assert_eq!(wheel.next(), Some(due));
        assert_eq!(wheel.poll(due), Some(1));
    }

    #[test]
    fn years_do_not_matter() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let years = start + Duration::from_secs(10 * 365 * 86400);
        assert_eq!(wheel.poll(years), None);
        wheel.schedule(1, years + Duration::from_secs(60));
        let next = wheel.next().expect("scheduled");
        assert!(next > years && next <= years + Duration::from_secs(60));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Schedule(u8, u64),
        Cancel(u8),
        Advance(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let far = prop_oneof![4 => 0..200u64, 2 => 0..11_000u64, 1 => 0..100_000u64];
        let op = prop_oneof![
            3 => (any::<u8>(), far.clone()).prop_map(|(key, ms)| Op::Schedule(key % 32, ms)),
            1 => any::<u8>().prop_map(|key| Op::Cancel(key % 32)),
            2 => far.prop_map(Op::Advance),
        ];
        prop::collection::vec(op, 1..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn agrees_with_a_sorted_model(ops in ops()) {
            let start = Instant::now();
            let mut wheel = Wheel::new(start);
            let mut model = BTreeMap::new();
            let mut now = start;
            for op in ops {
                match op {
                    Op::Schedule(key, ms) => {
                        // Sometimes in the past.
                        let at = (now + Duration::from_millis(ms)).checked_sub(Duration::from_millis(20)).expect("late enough");
                        wheel.schedule(key, at);
                        model.insert(key, at);
                    }
                    Op::Cancel(key) => {
                        wheel.cancel(key);
                        model.remove(&key);
                    }
                    Op::Advance(ms) => {
                        now += Duration::from_millis(ms);
                        let mut expired: Vec<u8> = std::iter::from_fn(|| wheel.poll(now)).collect();
                        expired.sort_unstable();
                        let due: Vec<u8> = model.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
                        model.retain(|_, at| *at > now);
                        prop_assert_eq!(expired, due);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let earliest = model.values().min().copied();
                prop_assert_eq!(wheel.next().is_some(), earliest.is_some());
                if let (Some(next), Some(earliest)) = (wheel.next(), earliest) {
                    prop_assert!(next <= earliest);
                    prop_assert!(next == earliest || earliest - now > SLOT * (SLOTS as u32 - 2));
                }
            }
        }
    }
}
