//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! The sender numbers all packets of its transport; the receiver reports, for each number, whether and when it
//! came. After the SSRCs of the feedback packet:
//!
//! ```text
//! |      base sequence number     |      packet status count      |
//! |                 reference time                | fb pkt. count |
//! |          packet chunk         |         packet chunk          |  …
//! |  recv delta   |  recv delta   |          recv delta           |  … zeros up to a whole word
//! ```
//! A chunk (§3.1.3, §3.1.4) gives the status of several packets:
//! ```text
//! |0| S |      run length (13)    |  as many packets of status S
//! |1|0|     14 symbols of 1 bit   |  0: not received, 1: received, small delta
//! |1|1|      7 symbols of 2 bits  |
//! ```

mod read;
mod record;

pub use read::{Feedback, Packets};
pub use record::Recorder;

use std::time::Duration;

/// The unit of arrival times; the reference time counts 256 of it, 64 ms.
pub const TICK: Duration = Duration::from_micros(250);

/// The status of one packet (§3.1.1).
const NOT_RECEIVED: u8 = 0;
/// Came 0 to 255 ticks after the one before: one byte.
const SMALL_DELTA: u8 = 1;
/// Came more than 255 ticks after the one before, or earlier than it: two bytes.
const LARGE_DELTA: u8 = 2;

#[cfg(test)]
mod tests;
