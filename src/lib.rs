//! Motet is a selective-forwarding group call server: every browser keeps one WebRTC connection to the
//! server, which forwards RTP to the others in the room. This page is the map of the crate.
//!
//! # The journey of a packet
//! [`net::udp`] receives a batch → [`transport::demux`] finds whose it is → [`transport::srtp`] opens it →
//! [`room::participant`] latches its stream → [`room::publication`] keeps it in [`room::history`] → [`room::route`]
//! names its receivers → [`room::slot`] admits it, in the layer that [`room::select`] chose → [`room::rewrite`] gives it
//! the slot's next number → [`transport::srtp`] seals it → [`net::udp`] sends the batch. [`worker`] is the loop that calls
//! each stage by name.
//!
//! # The journey of a participant
//! [`signal::http`] accepts the request → [`signal::ws`] or [`signal::poll`] carries its messages → [`signal::join`] checks its `hello` →
//! [`signal::negotiate`] answers the offer with [`signal::sdp`] → [`signal::rooms`] finds the room's task →
//! [`signal::room`] enters it and tells the others → [`signal::session`] keeps what is not acknowledged, whatever the
//! carrier → [`signal::track`] obeys what it says later → [`signal::leave`] ends it. What concerns media goes to the
//! worker as a [`control::Command`].
//!
//! # Invariants
//! * `transport`, `rtp`, `room` hold no socket, clock, lock or task: bytes and `now` are arguments
//!   (`handle_*`), results are polled (`poll_*`). Whole rooms therefore run in a simulated network in tests.
//! * A (key, SSRC, roll-over counter, sequence number) is sealed at most once in its life.
//! * Nothing is sent to an address from which no authenticated check came.
//! * Every dropped packet and refused message has a [`observe::reason::Reason`] that is counted.
//! * Whose media a slot carries never lags or leads the picture: every packet's CSRC is its publication.

pub mod config;
pub mod id;
pub mod observe;
pub mod units;

pub mod net;
pub mod transport;

pub mod rtp;

pub mod room;

pub mod control;

pub mod worker;

pub mod signal;

pub mod server;
