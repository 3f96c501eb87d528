//! Random people do random things to real rooms, and everyone's picture is compared with a simple model of the truth.
//!
//! Two tiers: signaling alone, thousands of sequences; and with a media worker and clients in a simulated network, where
//! every packet is looked at. `MOTET_MODEL_SEQUENCES` and `MOTET_MODEL_MEDIA` say how many sequences are played, of seeds
//! from `MOTET_MODEL_FIRST` on; an ordinary run plays a share. A seed that fails is printed with the shortest part of its
//! sequence that still fails.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

mod fake;
mod ground;
mod op;
mod page;
mod truth;
mod world;

use op::{Op, media_sequence, sequence};
use world::World;

/// Sequences in an ordinary run: some seconds.
const SHARE: u64 = 1500;

/// The same with media.
const MEDIA_SHARE: u64 = 6;

/// Plays operations in a new world; what went wrong, if anything did.
fn play(world: impl FnOnce() -> World, ops: &[Op]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let played = catch_unwind(AssertUnwindSafe(|| runtime.block_on(async { world().play(ops).await })));
    played.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// The shortest part that still fails: ever smaller pieces are left out.
fn shrink(world: impl Fn() -> World, mut ops: Vec<Op>, mut why: String) -> (Vec<Op>, String) {
    let mut piece = ops.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let before = ops.len();
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + piece).min(ops.len()));
            match play(&world, &fewer) {
                Err(still) => (ops, why) = (fewer, still),
                Ok(()) => at += piece,
            }
        }
        if piece == 1 && ops.len() == before {
            return (ops, why);
        }
        piece = piece.div_ceil(2).max(1);
    }
}

/// Plays the sequences of so many seeds.
fn play_all(count: u64, world: impl Fn(u64) -> World, sequence: impl Fn(u64) -> Vec<Op>) {
    let first = setting("MOTET_MODEL_FIRST").unwrap_or(0);
    let failed = quietly(|| {
        (first..first + count).find_map(|seed| {
            let why = play(|| world(seed), &sequence(seed)).err()?;
            eprintln!("seed {seed} fails, now to be shortened: {why}");
            let (ops, why) = shrink(|| world(seed), sequence(seed), why);
            Some(format!("seed {seed}\n{ops:#?}\n{why}"))
        })
    });
    assert!(failed.is_none(), "{}", failed.unwrap_or_default());
}

thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });

/// Expected panics say nothing. Room tasks run on the thread of their test, too.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let done = work();
    QUIET.set(false);
    done
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn whatever_people_do_everyone_sees_the_truth() {
    let count = setting("MOTET_MODEL_SEQUENCES").unwrap_or(SHARE);
    play_all(count, |_| World::new(), sequence);
}

#[test]
fn whatever_people_do_every_slot_carries_what_is_said() {
    let count = setting("MOTET_MODEL_MEDIA").unwrap_or(MEDIA_SHARE);
    play_all(count, World::with_media, media_sequence);
}
