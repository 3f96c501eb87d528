//! The integration tests, one binary: a whole server core in a simulated network, with a clock of its own. No test
//! sleeps, opens a socket or starts a thread; the seed of a test fixes every decision of its network.

// One binary has no outside: `pub` here says what a module offers to the others.
#![allow(unreachable_pub)]

/// What the tests share: network, server, clients, media.
mod support;

/// Joining, seeing and hearing each other, with independent peer connections as clients.
mod journey;

/// What happens within a call: roles, faults, mutes, departures, reports.
mod call;

/// Restarts, rebinding, silence, consent.
mod ice_restart;

/// A second connection that takes the place of the first.
mod succession;

/// Loss, copies and detours in both directions, padding and probes.
mod loss;

/// Strangers and hostile participants.
mod malformed;

/// What one participant can make the server spend.
mod limits;

/// Encodings of one picture, and slots that pass from one to another.
mod simulcast;

/// Whatever people do, everyone's picture of the room is the true one.
mod model;

/// Slots that pass from one person to another, and offers that grow.
mod rebinding;

/// Who speaks, and who is heard and seen where not everybody can be.
mod speakers;

/// Which layers anybody watches, and cures for still pictures.
mod demand;

/// What a room of many costs, by counting.
mod scale;

/// Suspended people and processes, and what happens in the middle of something else.
mod misfortune;

/// The packet path allocates nothing once it runs.
mod allocation;

/// Who may use whom, read off the source.
mod layers;

/// Every parser, and whole calls, over corpus and seeded mutation.
mod fuzz;

/// What the documents say of the tree.
mod docs;

/// The fuzzed functions' shells for libFuzzer.
mod shells;
