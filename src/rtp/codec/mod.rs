//! What a forwarding server must know of a codec's payload: nothing is decoded.

pub mod opus;
pub mod vp8;
