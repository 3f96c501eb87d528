//! Time, memory and statistics of the benchmarks.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::ops::AddAssign;
use std::time::Duration;

/// CPU time of this thread: unlike the clock on the wall it does not count what others did meanwhile.
#[allow(unsafe_code, reason = "the standard library has no clock of CPU time")]
pub(crate) fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer leads to a timespec that lives until the call returns.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "a thread has a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// CPU time that `work` takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let before = cpu();
    let result = work();
    (cpu() - before, result)
}

/// The middle one; the lower of two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Nanoseconds for each of `count`.
pub(crate) fn each(total: Duration, count: u64) -> f64 {
    total.as_nanos() as f64 / count as f64
}

/// What something took of the processor and keeps of the memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) time: Duration,
    /// Bytes that were allocated and not freed.
    pub(crate) bytes: i64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.time += other.time;
        self.bytes += other.bytes;
    }
}

/// CPU time that `work` takes and bytes that it leaves allocated.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (Cost, T) {
    let before = heap();
    let (time, result) = timed(work);
    (Cost { time, bytes: heap() - before }, result)
}

/// Bytes allocated by this (single-threaded) process, those of C libraries too, with the allocator's overhead.
#[allow(unsafe_code, reason = "the ciphers allocate in C, where no allocator of ours could count")]
fn heap() -> i64 {
    // SAFETY: it takes no arguments and reads the allocator's own figures.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as i64
}
