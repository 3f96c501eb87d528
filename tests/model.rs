//! Random people do random things to real rooms, and everyone's picture is compared with a simple model of the truth.
//!
//! `MOTET_MODEL_SEQUENCES` sequences (of seeds from `MOTET_MODEL_FIRST` on) are played where it is set, and a share in every
//! run. A seed that fails is printed with the shortest part of its sequence that still fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

mod fake;
mod op;
mod page;
mod truth;
mod world;

use op::{Op, sequence};
use world::World;

/// Sequences in an ordinary run: some seconds.
const SHARE: u64 = 1500;

/// What went wrong, if anything did.
fn play(ops: &[Op]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let played = catch_unwind(AssertUnwindSafe(|| runtime.block_on(World::new().play(ops))));
    played.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// The shortest part that still fails: ever smaller pieces are left out.
fn shrink(mut ops: Vec<Op>) -> (Vec<Op>, String) {
    let mut why = String::new();
    let mut piece = ops.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let before = ops.len();
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + piece).min(ops.len()));
            match play(&fewer) {
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

static QUIET: AtomicBool = AtomicBool::new(false);

/// Expected panics of this thread's sequences say nothing.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    static ONE: Mutex<()> = Mutex::new(());
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = std::thread::current().name().is_some_and(|name| name.contains("model"));
            if !(QUIET.load(Ordering::Relaxed) && ours) {
                usual(info);
            }
        }));
    });
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    QUIET.store(true, Ordering::Relaxed);
    let done = work();
    QUIET.store(false, Ordering::Relaxed);
    done
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn whatever_people_do_everyone_sees_the_truth() {
    let first = setting("MOTET_MODEL_FIRST").unwrap_or(0);
    let count = setting("MOTET_MODEL_SEQUENCES").unwrap_or(SHARE);
    let failed = quietly(|| {
        (first..first + count).find(|seed| play(&sequence(*seed)).is_err()).map(|seed| {
            let (ops, why) = shrink(sequence(seed));
            (seed, ops, why)
        })
    });
    if let Some((seed, ops, why)) = failed {
        panic!("seed {seed}\n{ops:#?}\n{why}");
    }
}
