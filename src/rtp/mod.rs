//! Wire formats of RTP and RTCP: pure functions over bytes.
//!
//! Everything here reads bytes that a stranger may have written: parsers return a
//! [`Reason`](crate::observe::reason::Reason) and never panic, and nothing allocates on the path of a packet.

pub mod codec;
pub mod extension;
pub mod feedback;
pub mod header;
pub mod rtcp;
pub mod seq;
pub mod twcc;

#[cfg(test)]
mod differential;
