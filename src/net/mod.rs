//! Bytes from and to the kernel: the only sockets, system calls and unsafe code.
//!
//! The contract with the loop that uses it. Nothing here blocks but [`Poller::wait`], nothing allocates once
//! the batches exist, and no error of one receiver is an error of the socket.
//!
//! ```no_run
//! # fn echo() -> Result<(), Box<dyn std::error::Error>> {
//! use motet::net::{Poller, ReceiveBatch, SendBatch, UdpSocket};
//!
//! let socket = UdpSocket::bind("[::]:7882".parse()?, 4 << 20)?;
//! let (poller, _waker) = Poller::new(&socket)?;
//! let (mut received, mut sending) = (ReceiveBatch::new(), SendBatch::new());
//! loop {
//!     poller.wait(None)?;
//!     while socket.receive(&mut received)? > 0 {
//!         for (pair, datagram) in received.datagrams() {
//!             let Some(space) = sending.space() else { continue }; // full: send first
//!             space[..datagram.len()].copy_from_slice(datagram);
//!             sending.push(pair, 0, true, datagram.len());
//!         }
//!         socket.send(&mut sending, &mut |_receiver, _error, _failure| ());
//!     }
//! }
//! # }
//! ```
//!
//! * [`UdpSocket`]: every participant of a worker behind one port, both IP versions, replies from the address
//!   asked. [`ReceiveBatch`] is what one call received; [`SendBatch`] collects what one call sends and is a
//!   plain buffer without a socket, so that simulated networks drain it too.
//! * [`Poller`] waits for the socket or a [`Waker`], which any thread may hold.
//! * [`raise_nofile`] lets the process open as many descriptors as it is permitted to; [`thread_times`] is the processor
//!   time that a thread has used.

mod buffer;
mod flush;
mod limit;
mod message;
mod poll;
pub mod udp;
mod usage;

pub use buffer::{Arrivals, RECEIVE_MESSAGES, ReceiveBatch, SPACE, SendBatch};
pub use flush::SendFailure;
pub use limit::raise_nofile;
pub use poll::{Poller, Ready, Waker};
pub use udp::UdpSocket;
pub use usage::thread_times;
