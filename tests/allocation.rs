//! The packet path allocates nothing once it runs, and a stranger's datagram never does.

// A global allocator cannot be written otherwise; this one only counts, and hands everything to the system's.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use crate::support::network::Rng;
use crate::support::raw::Shape;
use crate::support::{Sim, s};

thread_local! {
    /// Allocations of this thread while it counts.
    static COUNTED: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note() {
    // While a thread ends its cells are gone; nothing is counted there.
    let _ = COUNTED.try_with(|counted| counted.set(counted.get().map(|n| n + 1)));
}

// SAFETY: every call goes to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// How many times `work` allocated on this thread.
pub fn during(work: impl FnOnce()) -> u64 {
    COUNTED.set(Some(0));
    work();
    COUNTED.take().unwrap_or_default()
}

#[test]
fn the_counter_counts() {
    assert_eq!(during(|| drop(std::hint::black_box(vec![1u8; 100]))), 1);
    assert_eq!(during(|| ()), 0);
}

#[test]
fn forwarding_allocates_nothing_once_it_runs() {
    let mut sim = Sim::new(71);
    for _ in 0..3 {
        sim.raw_caller(1, &Shape::default());
    }
    sim.connect();
    sim.start_media();
    sim.run_for(s(5));
    sim.server.allocations = 0;
    let before = sim.server.worker.traffic().forwarded.load(std::sync::atomic::Ordering::Relaxed);
    sim.run_for(s(3));
    let after = sim.server.worker.traffic().forwarded.load(std::sync::atomic::Ordering::Relaxed);
    assert!(after - before > 1000, "{} packets were forwarded", after - before);
    assert_eq!(sim.server.allocations, 0, "while {} packets were forwarded", after - before);
}

#[test]
fn a_strangers_datagrams_allocate_nothing() {
    let mut sim = Sim::new(72);
    sim.raw_caller(1, &Shape::default());
    sim.connect();
    let mut random = Rng::new(73);
    let mut check = sim.raw(0).check_as("stranger", "a password of a stranger", true);
    sim.server.allocations = 0;
    for n in 0..2000usize {
        let mut bytes = random.bytes(1 + n % 1300);
        // All kinds of protocol, and checks that are almost right.
        bytes[0] = [0, 1, 20, 22, 25, 63, 128, 144, 191, 255][n % 10];
        let from = format!("203.0.113.{}:{}", n % 250, 1024 + n).parse().expect("an address");
        sim.server.handle_datagram(sim.now, from, &bytes);
        let at = random.below(check.len());
        check[at] ^= 1;
        sim.server.handle_datagram(sim.now, from, &check);
        check[at] ^= 1;
    }
    assert_eq!(sim.server.allocations, 0);
}
