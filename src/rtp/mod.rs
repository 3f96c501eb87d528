//! Wire formats of RTP and RTCP: pure functions over bytes.
pub mod extension;
